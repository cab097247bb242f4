#!/usr/bin/env bash
# Debian 12 and 13 have every package that scripts/setup.sh installs: apt resolves the whole list in each release, and installs
# nothing. Needs the Debian archive; a few seconds each. Run by `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

list=$(scripts/setup.sh --list | paste -sd,)
[[ $list == *,*,* ]] || { echo "debian: scripts/setup.sh lists no packages: '$list'" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for release in bookworm trixie; do
  if mmdebstrap --simulate --variant=apt --include="$list" "$release" /dev/null >"$work/log" 2>&1; then
    echo "ok   $release: $(tr , '\n' <<<"$list" | wc -l) packages and all that they need"
  elif grep -qE 'Could not (resolve|connect)|Temporary failure|Network is unreachable|Connection timed out' "$work/log"; then
    echo "NOT TESTED: packages of Debian $release: its archive can't be reached"
  else
    grep '^E:' "$work/log" || tail -n 20 "$work/log"
    echo "FAIL $release"
    exit 1
  fi
done
