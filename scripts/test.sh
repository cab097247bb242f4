#!/usr/bin/env bash
# All tests, from a machine that has never seen the project: `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS

# What fails in a second is not found out after twenty minutes.
scripts/step.sh "formatting" cargo fmt --all --check
# Builds the control plane beside the crates; the tests that need it find it in the cache.
scripts/build.sh
make --no-print-directory check
# The API server's programs are found by this variable first; see tests/control-plane/build.sh.
KUBEBUILDER_ASSETS=$(tests/control-plane/build.sh all)
export KUBEBUILDER_ASSETS
scripts/step.sh "build the tests" cargo test --workspace --locked --no-run
scripts/step.sh "unit, contract, API server, kernel" cargo test --workspace --locked
scripts/step.sh "manifests at a real API server" tests/manifests.sh
scripts/step.sh "push to a registry" tests/push.sh
if [ -x scripts/e2e.sh ]; then scripts/step.sh "end to end" scripts/e2e.sh; fi
echo "all tests passed in $((SECONDS - started)) s"
