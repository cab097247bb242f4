#!/usr/bin/env bash
# Fuzzes the netlink codec: every target of crates/netlink/fuzz for so many runs, from its seeds on.
#
#   scripts/fuzz.sh [RUNS [TARGET...]]
#
# With the pinned compiler: these are the flags with which `cargo fuzz` has it instrument, without a sanitizer, which needs a
# nightly compiler and has nothing to find in code without `unsafe`. What was found stays in target/fuzz/corpus/ for the next run.
# An input that fails is printed and kept in target/fuzz/finds/; it goes into crates/netlink/fuzz/seeds/, and is tried first ever
# after.
set -euo pipefail
cd "$(dirname "$0")/.."

# The sample of `make test`: a few seconds each.
runs=${1:-1000000}
targets=("${@:2}")
fuzz=crates/netlink/fuzz
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(find $fuzz/targets -name '*.rs' -printf '%f\n' | sed 's/\.rs$//' | sort)

host=$(rustc -vV | sed -n 's/^host: //p')
work=$PWD/target/fuzz
export CARGO_TARGET_DIR=$work
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
# Named, so that the flags are for the targets alone and not for build scripts.
cargo build --quiet --release --locked --manifest-path $fuzz/Cargo.toml --target "$host" --bins

failed=0
for target in "${targets[@]}"; do
  corpus=$work/corpus/$target
  mkdir -p "$corpus" "$work/finds/$target"
  if "$work/$host/release/$target" -runs="$runs" -seed=1 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$work/finds/$target/" "$corpus" "$fuzz/seeds/$target" >"$work/$target.log" 2>&1; then
    echo "ok $target: $(grep -E '^#[0-9]+\s+DONE' "$work/$target.log" | tr -s '\t ' ' ')"
  else
    tail -n 40 "$work/$target.log"
    echo "FAIL $target"
    failed=1
  fi
done
exit $failed
