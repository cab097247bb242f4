#!/usr/bin/env bash
# Stands in for do-simulator in a lab: takes its options, and puts Prism, which judges every request and every answer by
# DigitalOcean's strict description, where it would listen. A request that is not in the description never reaches the simulator (422),
# an answer that is not reaches nobody (500): what depends on it fails, and Prism's log says why.
#
#   JUDGED_SIMULATOR=do-simulator JUDGE_PRISM=prism JUDGE_DESCRIPTION=openapi.strict.json JUDGE_LOG=file [this] --listen ADDRESS:PORT ...
set -euo pipefail
behind=127.0.0.1:8480
options=()
while [ $# -gt 0 ]; do
  case $1 in
  --listen) listen=$2; options+=(--listen "$behind"); shift ;;
  *) options+=("$1") ;;
  esac
  shift
done
"$JUDGE_PRISM" proxy --errors --cors=false --host "${listen%:*}" --port "${listen##*:}" "$JUDGE_DESCRIPTION" "http://$behind" \
  </dev/null >>"$JUDGE_LOG" 2>&1 &
exec "$JUDGED_SIMULATOR" "${options[@]}"
