#!/usr/bin/env bash
# Runs all of one exhaustive suite: `make test-exhaustive SUITE=name`. Without a name it lists them.
#
#   scripts/exhaustive.sh [SUITE]
#
# A suite is a number of seeds; with each its properties are tried on so many random cases. Progress is kept in
# target/exhaustive/SUITE.json: killed and started again it goes on where it was, as long as the code it is about is the same.
# At the end the record docs/exhaustive/SUITE.json is written, to be committed. A case that fails stops the run; proptest has then
# written it to the crate's proptest-regressions/, which is committed too and tried first by every later run and by `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

# name|package|cargo's target|crates it is about|cases of each property per seed|seeds|properties (as the test program takes them)|its environment
suites() {
  cat <<'TABLE'
routing-plan|egress-routing|--lib|routing|2000|12|plan::tests::properties:: prefix::tests::difference_is_what_is_in_the_prefix_and_in_no_hole prefix::tests::parsing_never_panics_and_round_trips
routing-confirm|egress-routing|--lib|routing|2000|12|confirm::tests::properties::
health-sharing|egress-health|--lib|health|2000|30|sharing::tests::nobody_shares_who_is_dead_while_another_works_and_nobody_leaves_who_lives
agent-pacing|egress-agent|--lib|agent|2000|12|pacing::tests::no_window_of_time_sees_more_than_the_burst_and_the_sustained_rate
health|egress-health|--lib|health|2000|30|detector::tests::down_is_entered_and_left_as_configured selection::tests::never_on_a_dead_one_while_a_live_one_is_known_and_never_moved_by_fewer_misses_than_fall
health-watch|egress-health|--lib|health|300|20|watch::tests::a_node_ends_on_a_gateway_that_works_and_no_whole_one_is_condemned watch::tests::single_losses_move_nobody
lease|egress-runtime|--lib|runtime|4000|40|lease::tests::never_two_current_claims
simulator-cloud|do-simulator|--lib|simulator|2000|30|cloud::properties::
netlink-codec|egress-netlink|--lib|netlink routing|50000|10|tests::bytes::a_nexthop tests::bytes::no_
kernel-covers|egress-netlink|--lib|netlink routing|500|24|tests::covers::no_cover_sends_a_protected_address_through_a_gateway_and_every_other_goes_where_brute_force_says
objects-of-any-json|egress-agent|--lib|agent api routing|4000|10|objects::arbitrary::any_json_in_a_spec_is_named_and_leaves_the_others_alone
controller-decisions|egress-controller|--test model|controller api digitalocean runtime|1000|24|whatever_happens_no_invariant_breaks_and_the_pair_comes_back
exploration|egress-controller|--profile thorough --test model|controller api digitalocean runtime health|1|1|exploration::every_order_of_events_to_a_depth_breaks_no_invariant|EXPLORATION_DEPTH=5 RUST_TEST_NOCAPTURE=1
agent-killed|egress-agent|--test node|agent netlink routing|1|18|fail_static::an_agent_killed fail_static::an_agent_held_up
TABLE
}

fail() { echo "$1" >&2; exit "${2:-1}"; }
wanted=${1:-}
line=$(suites | awk -F'|' -v name="$wanted" '$1 == name')
if [ -z "$line" ]; then
  echo "SUITE is one of:" >&2
  suites | awk -F'|' '{ printf "  %-21s %s seeds of %s cases of each of: %s\n", $1, $6, $5, $7 }' >&2
  exit 2
fi
IFS='|' read -r suite package cargo_target crates cases seeds properties environment <<<"$line"
read -ra properties <<<"$properties"
read -ra cargo_target <<<"$cargo_target"
read -ra environment <<<"$environment"
folders=(Cargo.lock)
for crate in $crates; do folders+=("crates/$crate"); done

# A record is of a commit: what it says was tried must be what anybody finds there.
[ -z "$(git status --porcelain -- "${folders[@]}")" ] || fail "uncommitted changes in ${folders[*]}: commit them first" 2
commit=$(git rev-parse HEAD)
work=target/exhaustive
progress=$work/$suite.json
record=docs/exhaustive/$suite.json
mkdir -p "$work" docs/exhaustive

# Of the whole workspace, as `make test` builds it: alone, the crate would be built with other features, and its dependencies anew.
cargo test --quiet --locked --workspace "${cargo_target[@]}" --no-run
# A copy: another build must not change what is running.
program=$work/$suite.test
built=$(cargo test --quiet --locked --workspace "${cargo_target[@]}" --no-run --message-format=json |
  jq -r --arg package "#$package@" 'select(.profile.test == true and .executable != null and (.package_id | contains($package))) | .executable')
[ -x "$built" ] || fail "expected one test program, got: '$built'"
cp "$built" "$program"

keep() { jq "${@:2}" "$1" <"$progress" >"$progress.new" && mv "$progress.new" "$progress"; }
recorded() { jq -r ".$1" "$progress"; }
if [ -s "$progress" ] && git diff --quiet "$(recorded commit)" HEAD -- "${folders[@]}" 2>/dev/null &&
  [ "$(recorded per_seed) $(recorded seeds)" = "$cases $seeds" ]; then
  echo "$suite: goes on after $(recorded 'done | length') of $seeds seeds"
else
  jq -n --arg suite "$suite" --arg commit "$commit" --argjson per_seed "$cases" --argjson seeds "$seeds" \
    '{suite: $suite, commit: $commit, per_seed: $per_seed, seeds: $seeds, done: [], cases: 0, seconds: 0}' >"$progress"
fi

crate_folder=crates/$(cut -d' ' -f1 <<<"$crates")
log=$work/$suite.log
for seed in $(seq "$seeds"); do
  [ "$(jq "any(.done[]; . == $seed)" "$progress")" = false ] || continue
  before=$SECONDS
  # Rejected cases are counted over the whole run, so their limits grow with it. Tests look for their crate's folder around them.
  (cd "$crate_folder" && exec env "${environment[@]}" PROPTEST_CASES="$cases" PROPTEST_RNG_SEED="$seed" \
    PROPTEST_MAX_GLOBAL_REJECTS=1000000000 PROPTEST_MAX_LOCAL_REJECTS=1000000000 \
    "../../$program" "${properties[@]}") >"$log" 2>&1 &
  job=$!
  trap 'kill $job 2>/dev/null; exit 130' INT TERM
  wait $job || {
    tail -n 40 "$log"
    fail "$suite: seed $seed failed; all of it: $log. Commit the case: git status --short '*proptest-regressions*'"
  }
  passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$log")
  [ "${passed:-0}" -ge "${#properties[@]}" ] || fail "$suite: ${passed:-no} properties ran, ${#properties[@]} names are given"
  # What finds its cases by itself says how many they were.
  found=$(sed -n 's/.*[ ,]\([0-9]*\) events tried.*/\1/p' "$log")
  # shellcheck disable=SC2016
  keep '.done += [$seed] | .cases += $cases | .seconds += $seconds' \
    --argjson seed "$seed" --argjson cases "${found:-$((passed * cases))}" --argjson seconds $((SECONDS - before))
  printf '%s: seed %s of %s, %s cases so far, %s s\n' "$suite" "$seed" "$seeds" "$(recorded cases)" "$(recorded seconds)"
done

jq --arg date "$(date -u +%F)" '{suite, date: $date, commit, cases, failures: 0, seconds}' "$progress" >"$record"
rm "$progress"
echo "$record: $(jq -c . "$record")"
