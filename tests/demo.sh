#!/usr/bin/env bash
# The demo as a test, in a lab of its own, and the dashboard's queries in a real Prometheus against it. A line `ok` or `FAIL` for
# each step and each query. Needs root and what scripts/build.sh builds; leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=${CARGO_TARGET_DIR:-target}/release/egress-lab
assets=$(tests/control-plane/build.sh all)
name=judged
report=target/judged/report.json
EGRESS_LAB_STATE=${XDG_STATE_HOME:-/var/lib}/egress-lab/$name
export EGRESS_LAB_STATE KUBECONFIG=$EGRESS_LAB_STATE/kubeconfig

stop() { "$lab" --name $name stop || echo "FAIL the lab does not stop"; }
trap stop EXIT
mkdir -p "$(dirname "$report")"
rm -f "$report"
# Not CI: the lab stays up for the dashboard.
shown=0
env -u CI "$lab" --name $name demo --assets "$assets" --report "$report" || shown=$?
jq -r '.steps[] | if .ok then "ok demo: \(.name), \(.seconds) s" else "FAIL demo: \(.name): \(.error)" end' "$report"
[ $shown -eq 0 ]

# The demo deleted its EgressGateway; gateways there must be.
"$assets/kubectl" apply -f examples/egressgateway.yaml
"$assets/kubectl" wait --for=condition=Ready --timeout=120s egressgateway --all
tests/dashboard.py --lab "$lab" --name $name --kubectl "$assets/kubectl" --kubeconfig "$KUBECONFIG"
