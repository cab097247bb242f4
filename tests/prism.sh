#!/usr/bin/env bash
# A whole lab run, the demo, with Prism between everybody and the cloud's API. scripts/build.sh has built what it runs.
set -euo pipefail
cd "$(dirname "$0")/.."
release=$PWD/${CARGO_TARGET_DIR:-target}/release
folder=$PWD/target/prism
description=$(tests/judges/description.sh)
JUDGE_PRISM=$(tests/judges/prism.sh)
KUBEBUILDER_ASSETS=$(tests/control-plane/build.sh all)
export KUBEBUILDER_ASSETS JUDGE_PRISM
rm -rf "$folder"
mkdir -p "$folder"
export JUDGED_SIMULATOR=$release/do-simulator JUDGE_DESCRIPTION=$description/openapi.strict.json JUDGE_LOG=$folder/prism.log
export EGRESS_LAB_SIMULATOR=$PWD/tests/judges/do-simulator-behind-prism.sh

lab=("$release/egress-lab" --name prism --state-dir "$folder/lab")
trap '"${lab[@]}" stop >/dev/null 2>&1 || true' EXIT
code=0
"${lab[@]}" demo --report "$folder/report.json" || code=$?

forwarded=$(grep -c 'Forwarding "' "$JUDGE_LOG" || true)
violations=$(grep -c 'terminated with error' "$JUDGE_LOG" || true)
echo "$forwarded requests passed Prism, $violations violations"
if [ "$violations" -ne 0 ] || [ "$code" -ne 0 ]; then
  grep -B4 'terminated with error' "$JUDGE_LOG" | cut -c1-300 | head -n 80 || true
  exit 1
fi
# A lab that asked the cloud nothing, or not through Prism, has shown nothing.
for request in 'post" request to [^ ]*/v2/droplets\.\.\.' 'post" request to [^ ]*/v2/firewalls' 'delete" request to [^ ]*/v2/droplets/'; do
  grep -q "Forwarding \"$request" "$JUDGE_LOG" || { echo "not ok: no $request"; exit 1; }
done
