#!/usr/bin/env bash
# Shows what a long command is doing.
#
#   scripts/step.sh NAME COMMAND [ARGUMENT...]
#
# Prints the name, then, while it runs, how long it has taken and the last line it wrote (on a terminal all the time, else every
# STEP_SECONDS, ten unless set), then the time it took. Output goes to target/log/; the end of it is shown when the command fails.
# `-m`: the command gets a process group of its own, so that it can be stopped with all it started.
set -muo pipefail
name=$1; shift
logs=$(cd "$(dirname "$0")/.." && pwd)/target/log
mkdir -p "$logs"
log=$logs/$(tr -cs 'a-zA-Z0-9\n' '-' <<<"$name").log

started=$SECONDS
"$@" >"$log" 2>&1 &
job=$!
# Ctrl-C and a stopped make take the command along.
trap 'kill -- "-$job" 2>/dev/null; wait "$job" 2>/dev/null; exit 130' INT TERM

say() {
  local last
  last=$(tail -c 400 "$log" 2>/dev/null | tr '\r' '\n' | grep -v '^[[:space:]]*$' | tail -n 1 | tr -cd '[:print:]' | cut -c1-70)
  printf '%s  %-34s %4d s  %s' "$1" "$name" $((SECONDS - started)) "$last"
}

[ -t 1 ] || printf '....  %s\n' "$name"
ticks=0
told=$SECONDS
while kill -0 "$job" 2>/dev/null; do
  if [ -t 1 ]; then
    printf '\r\033[K%s' "$(say ....)"
  elif [ $((SECONDS - told)) -ge "${STEP_SECONDS:-10}" ]; then
    say ....; echo
    told=$SECONDS
  fi
  ticks=$((ticks + 1))
  if [ -t 1 ] || [ $ticks -gt 10 ]; then sleep 0.2; else sleep 0.05; fi
done
wait "$job"
code=$?
[ -t 1 ] && printf '\r\033[K'
if [ $code -ne 0 ]; then
  printf 'FAIL  %-34s %4d s\n' "$name" $((SECONDS - started))
  tail -n 60 "$log"
  echo "all of it: target/log/$(basename "$log")"
  exit $code
fi
printf 'ok    %-34s %4d s\n' "$name" $((SECONDS - started))
