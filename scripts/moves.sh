#!/usr/bin/env bash
# One address that moves between gateways, with each failure of its holder, in a lab of its own; scripts/build.sh has built what it runs.
#
#   MOVES=kill,nat EGRESS_E2E_KEEP=1 scripts/moves.sh
set -euo pipefail
cd "$(dirname "$0")/.."
KUBEBUILDER_ASSETS=$(tests/control-plane/build.sh all)
export KUBEBUILDER_ASSETS
# Of the whole workspace: alone, its crate would be built with other features, and its dependencies anew.
exec cargo test --workspace --locked --test moves -- --nocapture --test-threads=1
