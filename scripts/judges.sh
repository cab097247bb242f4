# shellcheck shell=bash
# How scripts/test.sh runs what judges, counts what it says, and closes: `N passed, M failed`. To be sourced.
#
# A judge is a program, or several, that tests something. A test of a judge that is made by cargo and failed beside all others is run
# a second time, alone, after everything else has ended: on two cores under load a test that measures time can starve, and a real
# flaw fails twice. What then passes is counted as passed and listed: `PASSED ONLY ALONE`.

# More failures than that are no starved tests.
most_again=5

passed=0
failed=0
failures=()
only_alone=()
names=()
running=()
again=() # judge, tab, test
declare -A targets=() # of each judge made by cargo: which tests it is
# Hanging for ever is a failure like another.
tests=(timeout --kill-after=30s 30m cargo test --workspace --locked --no-fail-fast)

# To be called at the end, whatever the end is.
finish() {
  local code=$? one
  # They ignore Ctrl-C, as all that is started with `&`.
  [ ${#running[@]} -eq 0 ] || kill "${running[@]}" 2>/dev/null || true
  # It ended before their turn came.
  for one in "${again[@]}"; do failure "$(shown "$one")"; done
  if [ $code -ne 0 ] && [ $failed -eq 0 ]; then failed=1 failures=("ended early with $code"); fi
  printf '\nall of it: %d s\n' $SECONDS
  # Tests that could not judge say so in their logs; nobody shall have to look there to know.
  grep -h '^NOT TESTED:' target/log/*.log 2>/dev/null | sort -u || true
  [ ${#only_alone[@]} -eq 0 ] || printf 'PASSED ONLY ALONE: %s\n' "${only_alone[@]}"
  [ ${#failures[@]} -eq 0 ] || printf 'FAILED: %s\n' "${failures[@]}"
  printf '%d passed, %d failed\n' $passed $failed
  [ $failed -eq 0 ] || exit 1
}

failure() { failed=$((failed + ${2:-1})); failures+=("$1"); }

# What everything after it needs.
must() { scripts/step.sh "$@" || { failure "$1"; exit 1; }; }

# Runs a judge.
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

# cargo_beside NAME PRIORITY TARGETS [-- OPTIONS]: starts a judge that is made by cargo.
cargo_beside() {
  local name=$1 priority=$2; shift 2
  local all="$*"
  targets[$name]=${all%% -- *}
  # shellcheck disable=SC2086 # none, or a word and its options
  beside "$name" $priority "${tests[@]}" "$@"
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
  log=$(log_of "$1")
  read -r ok bad < <(awk '
    /^test result: / { cargo = 1; ok += $4; bad += $6 }
    /^[0-9]+ passed, [0-9]+ failed$/ { within_ok += $1; within_bad += $3 }
    /^ok / { lines_ok++ }
    /^(not ok|FAIL)/ { lines_bad++ }
    END { if (cargo) print ok + within_ok, bad + within_bad; else print lines_ok + 0, lines_bad + 0 }' "$log")
  if [ "$code" -eq 0 ] && [ $((ok + bad)) -eq 0 ]; then ok=1; fi
  if [ "$code" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
  passed=$((passed + ok))
  [ "$bad" -eq 0 ] || set_aside "$1" "$log" "$bad" || failure "$1 ($bad): $(named "$log")" "$bad"
}

# For a second run, all that failed in a judge made by cargo; fails where the log does not name each of them, as when a program died.
set_aside() {
  local bad
  [ -n "${targets[$1]:-}" ] || return 1
  mapfile -t bad < <(failed_tests "$2")
  [ ${#bad[@]} -eq "$3" ] || return 1
  [ "$(grep -c '^test result: FAILED' "$2")" -eq "$(failed_programs "$2" | wc -l)" ] || return 1
  again+=("${bad[@]/#/$1$'\t'}")
}

# Runs what was set aside, one after the other. To be called when nothing else runs.
second_runs() {
  local one name test code
  [ ${#again[@]} -le $most_again ] || return 0 # `finish` counts them as failed
  while [ ${#again[@]} -gt 0 ]; do
    one=${again[0]} name=${again[0]%%$'\t'*} test=${again[0]#*$'\t'} code=0
    # shellcheck disable=SC2086 # words without spaces in them
    scripts/step.sh "alone: $test" "${tests[@]}" ${targets[$name]} -- --exact "$test" || code=$?
    again=("${again[@]:1}")
    # A second run that found no such test has shown nothing.
    if [ $code -eq 0 ] && grep -q '^test result: ok\. [1-9]' "$(log_of "alone: $test")"; then
      passed=$((passed + 1)) only_alone+=("$(shown "$one")")
    else
      failure "$(shown "$one"), alone too"
    fi
  done
}

log_of() { echo "target/log/$(tr -cs 'a-zA-Z0-9\n' '-' <<<"$1").log"; }

shown() { echo "${1/$'\t'/: }"; }

failed_tests() { sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$1" | sed 's/ - should panic$//' | sort; }

# shellcheck disable=SC2016 # the backticks are those of cargo
failed_programs() { sed -n 's/^ *`\(-p .*\)`$/\1/p' "$1"; }

# What failed, by name.
named() {
  { failed_tests "$1"; sed -n 's/^\(not ok\|FAIL\) */\1 /p' "$1"; failed_programs "$1"; } |
    sort -u | paste -sd '~' | sed 's/~/; /g'
}
