#!/usr/bin/env bash
# Every crash point (docs/crash-points.md): in memory all of them, with real processes a sample. `make crash-points`.
#
# The last line, for whoever reads it by machine: `points=N runs=N differences=N`. Ends with 0 only when there is no difference.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p target/log
log=target/log/crash-points.log
: >"$log"
failed=0
# Tests one after the other: each uses all cores by itself.
run() {
  echo "$1"
  set +e
  "${@:2}" 2>&1 | tee -a "$log" | grep --line-buffered 'points='
  [ "${PIPESTATUS[0]}" = 0 ] || failed=1
  set -e
}
run "in memory:" env CRASH_POINTS=all cargo test --locked --profile thorough --package egress-controller --test crash -- \
  --nocapture --test-threads=1
KUBEBUILDER_ASSETS=$(tests/control-plane/build.sh api)
export KUBEBUILDER_ASSETS
# The second has the simulator's program built.
run "with real processes:" cargo test --locked --workspace --test life --test http -- --nocapture crash_points::

sum() { grep -o "$1=[0-9]*" "$log" | cut -d= -f2 | awk '{ total += $1 } END { print total + 0 }'; }
differences=$(sum differences)
# What ended in another way than by a difference is one all the same.
[ "$failed" = 0 ] || [ "$differences" != 0 ] || differences=1
echo "points=$(sum points) runs=$(sum runs) differences=$differences"
[ "$differences" = 0 ]
