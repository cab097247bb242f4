#!/usr/bin/env bash
# Prints the path of Prism, pinned with all that it brings; installs it once into the cache, and again when the pins change.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)/prism
command -v npm >/dev/null || { echo "npm is missing: apt-get install nodejs npm" >&2; exit 1; }
cache=${EGRESS_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egress-gateway}
folder=$cache/prism-$(sha256sum "$here/package-lock.json" | cut -c1-16)
if [ ! -e "$folder/complete" ]; then
  echo "installing Prism, once" >&2
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "$here"/package*.json "$folder"
  (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=http >&2)
  touch "$folder/complete"
fi
echo "$folder/node_modules/.bin/prism"
