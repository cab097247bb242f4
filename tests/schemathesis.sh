#!/usr/bin/env bash
# schemathesis holds the simulator against DigitalOcean's description: requests made up from it, good and bad, and every answer
# judged by it. Bounded in time; the seed is fixed.
#
#   tests/schemathesis.sh DO_SIMULATOR [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
if ! description=$(tests/judges/description.sh); then
  echo "NOT TESTED: the simulator by requests made up from DigitalOcean's description, which is not there"
  exit 0
fi
environment=$(tests/judges/python.sh tests/judges/schemathesis.txt)
exec "$environment/bin/python" tests/judges/schemathesis_run.py --simulator "$1" --description "$description/openapi.yaml" \
  --seconds "${2:-120}"
