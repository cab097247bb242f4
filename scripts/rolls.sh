#!/usr/bin/env bash
# Gateways that work are replaced, and all are deleted, under traffic in a lab of its own; scripts/build.sh has built what it runs.
#
#   ROLLS=4 PUBLIC_IP=ReservedPerGateway EGRESS_E2E_KEEP=1 scripts/rolls.sh
#
# Without PUBLIC_IP: both kinds of addresses, one lab after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
KUBEBUILDER_ASSETS=$(tests/control-plane/build.sh all)
export KUBEBUILDER_ASSETS
# Of the whole workspace: alone, its crate would be built with other features, and its dependencies anew.
for kind in ${PUBLIC_IP:-Ephemeral ReservedPerGateway}; do
  PUBLIC_IP=$kind cargo test --workspace --locked --test rolls -- --nocapture --test-threads=1
done
