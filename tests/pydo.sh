#!/usr/bin/env bash
# DigitalOcean's own Python client drives the simulator through the whole life of everything that it has.
#
#   tests/pydo.sh DO_SIMULATOR
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(tests/judges/python.sh tests/judges/pydo.txt)
exec "$environment/bin/python" tests/judges/pydo_life.py --simulator "$1"
