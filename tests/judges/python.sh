#!/usr/bin/env bash
# Prints the folder of a Python environment with the pinned packages of a list; installs it once into the cache, and again when the
# pins change.
#
#   tests/judges/python.sh tests/judges/pydo.txt
set -euo pipefail
cache=${EGRESS_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egress-gateway}
environment=$cache/$(basename "$1" .txt)-$(sha256sum "$1" | cut -c1-16)
if [ ! -e "$environment/complete" ]; then
  echo "installing what $1 lists, once" >&2
  rm -rf "$environment"
  mkdir -p "$cache"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --progress-bar off --disable-pip-version-check -r "$1" >&2
  touch "$environment/complete"
fi
echo "$environment"
