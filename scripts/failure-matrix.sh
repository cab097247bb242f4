#!/usr/bin/env bash
# The failure matrix of docs/failover.md in a lab of its own; scripts/build.sh has built what it runs.
#
#   FAILOVER_ROWS=kill,nat FAILOVER_CONTROL_PLANE=up|down EGRESS_E2E_KEEP=1 scripts/failure-matrix.sh
set -euo pipefail
cd "$(dirname "$0")/.."
KUBEBUILDER_ASSETS=$(tests/control-plane/build.sh all)
export KUBEBUILDER_ASSETS
# Of the whole workspace: alone, its crate would be built with other features, and its dependencies anew.
exec cargo test --workspace --locked --test failure_matrix -- --nocapture --test-threads=1
