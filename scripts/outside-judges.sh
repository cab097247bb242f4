#!/usr/bin/env bash
# Judges that others wrote, of the client, the simulator and the lab, in full: `make judges`. `make test` runs a bounded part of them.
# Each installs what it needs into the cache, pinned. The last line: `N passed, M failed`.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/judges.sh
source scripts/judges.sh
trap finish EXIT
release=${CARGO_TARGET_DIR:-target}/release
# Not among what scripts/setup.sh installs: only this needs it.
if ! command -v npm >/dev/null; then
  must "install Node" apt-get -q install -y --no-install-recommends nodejs npm
fi
must "install the judges" bash -c 'tests/judges/python.sh tests/judges/pydo.txt && tests/judges/python.sh tests/judges/schemathesis.txt && tests/judges/prism.sh'

judge "DigitalOcean's own Python client" tests/pydo.sh "$release/do-simulator"
judge "schemathesis" tests/schemathesis.sh "$release/do-simulator" "${SCHEMATHESIS_SECONDS:-300}"
judge "a lab run through Prism" timeout --kill-after=60s 15m tests/prism.sh
