# shellcheck shell=bash
# Sourced by tests that need a real API server and nothing else: the smallest lab there is, gone when the test ends. Sets KUBECONFIG
# and puts kubectl of the same version first in PATH. About 4 s; as root, after the build.

api_server_lab=("${CARGO_TARGET_DIR:-target}/release/egress-lab" --name "api$$")

api_server_start() {
  local programs
  programs=$("$(dirname "${BASH_SOURCE[0]}")/control-plane/build.sh" api)
  export PATH="$programs:$PATH"
  api_server_work=$(mktemp -d)
  trap api_server_stop EXIT
  export EGRESS_LAB_STATE=$api_server_work/lab
  "${api_server_lab[@]}" start --size api --assets "$programs" >"$api_server_work/start.log" 2>&1 || { cat "$api_server_work/start.log" >&2; return 1; }
  export KUBECONFIG=$EGRESS_LAB_STATE/kubeconfig
}

api_server_stop() {
  "${api_server_lab[@]}" stop >/dev/null 2>&1 || true
  rm -rf "$api_server_work"
}
