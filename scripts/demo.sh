#!/usr/bin/env bash
# The main job in front of a newcomer; everything it runs was built by scripts/build.sh.
#
#   scripts/demo.sh [down]
set -euo pipefail
cd "$(dirname "$0")/.."
lab=target/release/egress-lab
if [ "${1:-}" = down ]; then
  if [ -x $lab ]; then exec $lab --name demo stop; fi
  echo "nothing was built yet, so nothing runs"
  exit 0
fi
exec $lab --name demo demo --assets "$(tests/control-plane/build.sh all)"
