#!/usr/bin/env bash
# DigitalOcean's own Python client drives the simulator through a Droplet's whole life.
#
#   tests/pydo.sh DO_SIMULATOR
set -euo pipefail
cd "$(dirname "$0")/.."

# Its packages are pinned; they are installed once into the cache, and again when the pins change.
cache=${EGRESS_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egress-gateway}
environment=$cache/pydo-$(sha256sum tests/judges/requirements.txt | cut -c1-16)
if [ ! -e "$environment/complete" ]; then
  echo "installing DigitalOcean's Python client, once"
  rm -rf "$environment"
  mkdir -p "$cache"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check -r tests/judges/requirements.txt
  touch "$environment/complete"
fi
exec "$environment/bin/python" tests/judges/pydo_droplet_life.py --simulator "$1"
