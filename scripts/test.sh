#!/usr/bin/env bash
# All tests, from a machine that has never seen the project: `make test`. A build that fails ends it; a test that fails does not,
# so that one run shows all there is to mend. Where the time goes: docs/testing.md.
#
# The last line, for whoever reads it by machine: `N passed, M failed`. Ends with 0 only when M is 0.
set -euo pipefail
cd "$(dirname "$0")/.."

# Names the sample of random cases that the property tests take; scripts/exhaustive.sh takes many others.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}

passed=0
failed=0
failures=()
names=()
running=()
finish() {
  local code=$?
  # They ignore Ctrl-C, as all that is started with `&`.
  [ ${#running[@]} -eq 0 ] || kill "${running[@]}" 2>/dev/null || true
  if [ $code -ne 0 ] && [ $failed -eq 0 ]; then failed=1 failures=("ended early with $code"); fi
  printf '\nall of it: %d s\n' $SECONDS
  # Tests that could not judge say so in their logs; nobody shall have to look there to know.
  grep -h '^NOT TESTED:' target/log/*.log 2>/dev/null | sort -u || true
  [ ${#failures[@]} -eq 0 ] || printf 'FAILED: %s\n' "${failures[@]}"
  printf '%d passed, %d failed\n' $passed $failed
  [ $failed -eq 0 ] || exit 1
}
trap finish EXIT

failure() { failed=$((failed + ${2:-1})); failures+=("$1"); }

# What everything after it needs.
must() { scripts/step.sh "$@" || { failure "$1"; exit 1; }; }

# Runs a judge: a program, or several, that tests something.
judge() {
  local code=0
  scripts/step.sh "$@" || code=$?
  count "$1" $code
}

# Starts a judge beside those that run. Not on the terminal, whose last line only one can have: each says lines of its own.
beside() {
  scripts/step.sh "$@" > >(cat) &
  names+=("$1") running+=($!)
}

# Waits for all that were started.
together() {
  local index code
  for index in "${!running[@]}"; do
    code=0
    wait "${running[index]}" || code=$?
    count "${names[index]}" $code
  done
  names=() running=()
}

# Adds what a judge's log says: cargo's results and lines `N passed, M failed` of judges within it, else lines that begin with ok,
# not ok or FAIL, else the judge as one test.
count() {
  local code=$2 log ok bad
  log=target/log/$(tr -cs 'a-zA-Z0-9\n' '-' <<<"$1").log
  read -r ok bad < <(awk '
    /^test result: / { cargo = 1; ok += $4; bad += $6 }
    /^[0-9]+ passed, [0-9]+ failed$/ { within_ok += $1; within_bad += $3 }
    /^ok / { lines_ok++ }
    /^(not ok|FAIL)/ { lines_bad++ }
    END { if (cargo) print ok + within_ok, bad + within_bad; else print lines_ok + 0, lines_bad + 0 }' "$log")
  if [ "$code" -eq 0 ] && [ $((ok + bad)) -eq 0 ]; then ok=1; fi
  if [ "$code" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  passed=$((passed + ok))
  [ "$bad" -eq 0 ] || failure "$1 ($bad): $(named "$log")" "$bad"
}

# The failed tests by name, and the programs that died without a word.
# shellcheck disable=SC2016 # the backticks are those of cargo
named() {
  sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p; s/^\(not ok\|FAIL\) */\1 /p; s/^ *`\(-p .*\)`$/\1/p' "$1" |
    sort -u | paste -sd '~' | sed 's/~/; /g'
}

# What fails in a second is not found out after twenty minutes.
scripts/step.sh "formatting" cargo fmt --all --check || failure "formatting"
judge "what is said of missing programs" tests/prerequisites.sh
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
# Hanging for ever is a failure like another.
tests=(timeout --kill-after=30s 30m cargo test --workspace --locked --no-fail-fast)
apart=(node life gateway_machine lab)
mapfile -t others < <(cargo metadata --locked --no-deps --format-version 1 |
  jq -r '.packages[].targets[] | select(.kind == ["test"] and .test) | .name' | sort -u | grep -vxF "$(printf '%s\n' "${apart[@]}")")
beside "controller" "${tests[@]}" --test life -- --test-threads="$many"
beside "agent on a node" "${tests[@]}" --test node -- --test-threads="$many"
beside "machines and labs" "${tests[@]}" --test gateway_machine --test lab -- --test-threads="$cores"
beside "unit, contract, kernel" nice "${tests[@]}" --lib --bins "${others[@]/#/--test=}"
beside "examples in the documentation" nice "${tests[@]}" --doc
together
beside "fuzz the netlink codec" nice timeout --kill-after=30s 10m scripts/fuzz.sh
beside "manifests at a real API server" tests/manifests.sh
beside "push to a registry" tests/push.sh
beside "packages of Debian 12 and 13" tests/debian.sh
beside "DigitalOcean's own Python client" tests/pydo.sh "$release/do-simulator"
together
judge "end to end" timeout --kill-after=60s 15m scripts/e2e.sh
