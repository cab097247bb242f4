#!/usr/bin/env bash
# The commands that documents tell people to run, at a real API server with objects that have something to show.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/api-server.sh
. tests/api-server.sh

api_server_start
kubectl apply --server-side --validate=strict -k deploy/crds >/dev/null
kubectl wait --for=condition=Established --timeout=30s crd --all >/dev/null
python3 tests/documents.py
