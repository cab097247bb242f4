#!/usr/bin/env bash
# Prints the folder of DigitalOcean's API description: DIGITALOCEAN_OPENAPI_DIR, or the one beside the checkout.
set -euo pipefail
folder=${DIGITALOCEAN_OPENAPI_DIR:-$(cd "$(dirname "$0")/../../.." && pwd)/shared/digitalocean}
if [ ! -f "$folder/openapi.strict.json" ]; then
  echo "$folder has no openapi.strict.json: set DIGITALOCEAN_OPENAPI_DIR" >&2
  exit 1
fi
echo "$folder"
