#!/usr/bin/env bash
# What `make test` counts, runs a second time and says at its end: scripts/judges.sh on crates of its own, whose tests pass, fail once,
# fail always, or die. Run by `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
mkdir -p "$work"/{scripts,judged/src,other/src,target/log}
cp scripts/step.sh scripts/judges.sh "$work/scripts/"
printf '[workspace]\nresolver = "3"\nmembers = ["judged", "other"]\n' >"$work/Cargo.toml"
for crate in judged other; do
  printf '[package]\nname = "%s"\nversion = "0.1.0"\nedition = "2024"\n' $crate >"$work/$crate/Cargo.toml"
done
echo '#[test] fn sound() { assert!(std::env::var_os("DIES").is_none()) }' >"$work/other/src/lib.rs"
cat >"$work/judged/src/lib.rs" <<'RUST'
#[cfg(test)]
mod tests {
    /// Fails the first time, and always when the variable says so.
    fn fails_once(name: &str) {
        let always = std::env::var("ALWAYS").unwrap_or_default().split(' ').any(|one| one == name);
        let been_here = std::fs::create_dir(name).is_err();
        assert!(been_here && !always, "{name}");
    }

    #[test]
    fn starved() {
        fails_once("starved");
    }

    #[test]
    fn starved_too() {
        fails_once("starved_too");
    }

    #[test]
    fn dies() {
        assert!(std::env::var_os("DIES").is_none_or(|_| std::process::abort()));
    }
}
RUST
cat >"$work/test.sh" <<'BASH'
set -euo pipefail
source scripts/judges.sh
trap finish EXIT
most_again=${MOST:-5}
cargo_beside "unit" "" --lib -- --test-threads=2
together
[ -z "${STOPS:-}" ] || exit 3
second_runs
BASH
(cd "$work" && cargo generate-lockfile --offline --quiet)

# closes WHAT ENVIRONMENT LINES...: a run in that environment ends with these lines after the time it took.
closes() {
  local what=$1 environment=$2 said; shift 2
  rm -rf "$work"/judged/starved*
  # shellcheck disable=SC2086 # words
  said=$(cd "$work" && env -u CARGO_TARGET_DIR $environment bash test.sh 2>&1) || true
  said=$(sed '1,/^all of it: [0-9]* s$/d' <<<"$said")
  if [ "$said" = "$(printf '%s\n' "$@")" ]; then
    echo "ok   $what"
  else
    printf 'FAIL %s: it closed with\n%s\n' "$what" "$said"
    failed=1
  fi
}

closes "a test that failed beside others and passes alone is counted as passed and listed" "" \
  "PASSED ONLY ALONE: unit: tests::starved" "PASSED ONLY ALONE: unit: tests::starved_too" "4 passed, 0 failed"
if grep -q 'tests::starved .*FAILED' "$work/target/log/unit.log"; then echo "ok   the log of its first run is kept"
else echo "FAIL the log of its first run is gone"; failed=1; fi
closes "a test that fails again has failed" ALWAYS=starved \
  "PASSED ONLY ALONE: unit: tests::starved_too" "FAILED: unit: tests::starved, alone too" "3 passed, 1 failed"
closes "more failures than one would blame on load get no second run" MOST=1 \
  "FAILED: unit: tests::starved" "FAILED: unit: tests::starved_too" "2 passed, 2 failed"
closes "a program that died is a failure, whatever else failed in it" DIES=1 \
  "FAILED: unit (1): -p judged --lib; -p other --lib; sound" "0 passed, 1 failed"
closes "a run that ends early has failed with what was to be run again" STOPS=1 \
  "FAILED: unit: tests::starved" "FAILED: unit: tests::starved_too" "2 passed, 2 failed"
exit $failed
