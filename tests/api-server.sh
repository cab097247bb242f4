# shellcheck shell=bash
# Sourced by tests that need a real API server and nothing else: etcd and kube-apiserver on loopback, in a folder that is
# removed with them when the test ends. Sets KUBECONFIG and puts kubectl of the same version first in PATH. About 4 s.

api_server_work=
api_server_pids=()

api_server_stop() {
  local pid
  # Not gracefully, which takes half a minute: what they hold is thrown away.
  for pid in "${api_server_pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  for pid in "${api_server_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  [ -z "$api_server_work" ] || rm -rf "$api_server_work"
}

# Three ports that nothing listens on now. Whoever cannot have one ends at once, and the test fails with its log.
api_server_free_ports() {
  local found=() port
  while [ ${#found[@]} -lt 3 ]; do
    port=$((20000 + RANDOM % 10000))
    [ -n "$(ss -Hltn "sport = :$port")" ] || found+=("$port")
  done
  echo "${found[@]}"
}

api_server_start() {
  local programs client peer secure deadline
  programs=$("$(dirname "${BASH_SOURCE[0]}")/control-plane/build.sh" api)
  export PATH="$programs:$PATH"
  api_server_work=$(mktemp -d)
  trap api_server_stop EXIT
  read -r client peer secure < <(api_server_free_ports)

  etcd --data-dir "$api_server_work/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "default=http://127.0.0.1:$peer" >"$api_server_work/etcd.log" 2>&1 &
  api_server_pids+=($!)
  openssl genrsa -out "$api_server_work/accounts.key" 2048 2>/dev/null
  echo "test-token,test,test,system:masters" >"$api_server_work/tokens.csv"
  kube-apiserver --etcd-servers "http://127.0.0.1:$client" --bind-address 127.0.0.1 --secure-port "$secure" \
    --cert-dir "$api_server_work/certificates" --token-auth-file "$api_server_work/tokens.csv" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --service-cluster-ip-range 10.245.0.0/16 \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$api_server_work/accounts.key" \
    --service-account-signing-key-file "$api_server_work/accounts.key" >"$api_server_work/kube-apiserver.log" 2>&1 &
  api_server_pids+=($!)

  export KUBECONFIG="$api_server_work/kubeconfig"
  kubectl config set-cluster test --server "https://127.0.0.1:$secure" --insecure-skip-tls-verify >/dev/null
  kubectl config set-credentials test --token test-token >/dev/null
  kubectl config set-context test --cluster test --user test >/dev/null
  kubectl config use-context test >/dev/null
  deadline=$((SECONDS + 60))
  until kubectl get --raw /readyz >/dev/null 2>&1; do
    if [ $SECONDS -gt $deadline ] || ! kill -0 "${api_server_pids[0]}" 2>/dev/null || ! kill -0 "${api_server_pids[1]}" 2>/dev/null; then
      tail -n 20 "$api_server_work"/*.log >&2
      echo "the API server does not come up" >&2
      return 1
    fi
    sleep 0.1
  done
}
