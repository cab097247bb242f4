#!/usr/bin/env bash
# All tests, from a machine that has never seen the project: `make test`. A build that fails ends it; a test that fails does not,
# so that one run shows all there is to mend. Where the time goes: docs/testing.md.
#
# The last line, for whoever reads it by machine: `N passed, M failed`. Ends with 0 only when M is 0.
set -euo pipefail
cd "$(dirname "$0")/.."

# Names the sample of random cases that the property tests take; scripts/exhaustive.sh takes many others.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}

# shellcheck source=scripts/judges.sh
source scripts/judges.sh
trap finish EXIT

# What fails in a second is not found out after twenty minutes.
scripts/step.sh "formatting" cargo fmt --all --check || failure "formatting"
judge "what is said of missing programs" tests/prerequisites.sh
judge "what is counted and run again" tests/second-run.sh
judge "alerts and dashboards" tests/monitoring/check.py
# Builds the control plane beside the crates; the tests that need it find it in the cache.
scripts/build.sh || { failure "build"; exit 1; }
release=${CARGO_TARGET_DIR:-target}/release
# With what was built: `cargo xtask` would build half of the crates again, for fewer features.
export XTASK=$release/xtask
make --no-print-directory check || failure "check"
# The API server's programs are found by this variable first; see tests/control-plane/build.sh.
KUBEBUILDER_ASSETS=$(tests/control-plane/build.sh all)
export KUBEBUILDER_ASSETS

# Known vulnerabilities, where the database can be had: it comes from the network.
if ! timeout 120 scripts/cargo-deny.sh check advisories >target/log/advisories.log 2>&1; then
  if grep -q 'failed to fetch advisory database' target/log/advisories.log; then
    echo "NOT TESTED: known vulnerabilities: the advisory database can't be had" | tee target/log/advisories.log
  else
    failure "advisories: see target/log/advisories.log"
  fi
fi

must "build the tests" cargo test --workspace --locked --no-run

# Half of all test time is waiting: for machines that boot, for API servers, for what must not happen within a while. So programs run
# beside each other, and the tests of those that wait in more threads than there are cores. What computes gives way (`nice`).
cores=$(nproc)
many=$((2 * cores < 12 ? 2 * cores : 12)) # an API server each, 350 MB
apart=(node life gateway_machine lab)
mapfile -t others < <(cargo metadata --locked --no-deps --format-version 1 |
  jq -r '.packages[].targets[] | select(.kind == ["test"] and .test) | .name' | sort -u | grep -vxF "$(printf '%s\n' "${apart[@]}")")
cargo_beside "controller" "" --test life -- --test-threads="$many"
cargo_beside "agent on a node" "" --test node -- --test-threads="$many"
cargo_beside "machines and labs" "" --test gateway_machine --test lab -- --test-threads="$cores"
cargo_beside "unit, contract, kernel" nice --lib --bins "${others[@]/#/--test=}"
cargo_beside "examples in the documentation" nice --doc
together
beside "fuzz the netlink codec" nice timeout --kill-after=30s 10m scripts/fuzz.sh
beside "manifests at a real API server" tests/manifests.sh
beside "chart at a real API server" tests/chart.sh
beside "commands of the documents" tests/documents.sh
beside "push to a registry" tests/push.sh
beside "packages of Debian 12 and 13" tests/debian.sh
beside "DigitalOcean's own Python client" tests/pydo.sh "$release/do-simulator"
together
judge "end to end" timeout --kill-after=60s 20m scripts/e2e.sh
# A sample of its rows, with the control plane up; all of them, and again without: `make failover-matrix`.
FAILOVER_ROWS=sample FAILOVER_CONTROL_PLANE=up judge "failure matrix" timeout --kill-after=60s 20m scripts/failure-matrix.sh
second_runs
