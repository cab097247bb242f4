#!/usr/bin/env bash
# The whole lab, end to end; scripts/build.sh has built what it runs. About twelve minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
KUBEBUILDER_ASSETS=$(tests/control-plane/build.sh all)
HELM=$(tests/helm/build.sh)
export KUBEBUILDER_ASSETS HELM
# Of the whole workspace: alone, its crate would be built with other features, and its dependencies anew.
exec cargo test --workspace --locked --test end_to_end -- --nocapture --test-threads=1
