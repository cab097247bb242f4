#!/usr/bin/env bash
# `make push` as the README has it, against a real registry (Debian package docker-registry, with TLS) and a real API server on this
# machine: both images arrive, what is rendered names them by the digests the registry has, the API server takes it and holds
# exactly that, and a second push changes nothing. Run by `make test`, after the build.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/api-server.sh
. tests/api-server.sh
target=${CARGO_TARGET_DIR:-target}

fail() { echo "push: $1" >&2; exit 1; }
work=$(mktemp -d)
registry_pid=
cleanup() {
  if [ -n "$registry_pid" ]; then kill "$registry_pid" 2>/dev/null || true; wait "$registry_pid" 2>/dev/null || true; fi
  rm -rf "$work"
  api_server_stop
}

api_server_start
trap cleanup EXIT

# Trusted by what is told to; everything else on this machine goes on as before.
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=registry -addext subjectAltName=IP:127.0.0.1 \
  -keyout "$work/key.pem" -out "$work/certificate.pem" 2>"$work/openssl.log" || fail "no certificate: $(cat "$work/openssl.log")"

start_registry() {
  local attempt
  for attempt in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 10000))
    cat >"$work/config.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $work/storage}}
http: {addr: "127.0.0.1:$port", tls: {certificate: $work/certificate.pem, key: $work/key.pem}}
log: {level: warn}
YAML
    docker-registry serve "$work/config.yml" >"$work/registry.log" 2>&1 &
    registry_pid=$!
    for _ in $(seq 100); do
      # Ours, and not somebody else's on a port we could not have.
      kill -0 "$registry_pid" 2>/dev/null || break
      if ask v2/ >/dev/null 2>&1; then return; fi
      sleep 0.1
    done
    kill "$registry_pid" 2>/dev/null || true
    echo "attempt $attempt: no registry on port $port" >&2
  done
  cat "$work/registry.log" >&2
  fail "docker-registry does not start"
}
ask() { curl -fsS --cacert "$work/certificate.pem" "https://127.0.0.1:$port/$1" "${@:2}"; }

start_registry
registry=127.0.0.1:$port/acme
push() { SSL_CERT_FILE=$work/certificate.pem make --no-print-directory push "REGISTRY=$1"; }
push "$registry"
cp "$target/deploy/install.yaml" "$work/first.yaml"
cp "$target/deploy/values.yaml" "$work/values.yaml"

for name in egress-controller egress-agent; do
  image=$(sed -n "s|^ *image: \($registry/$name@sha256:[0-9a-f]*\)$|\1|p" "$target/deploy/install.yaml")
  [[ $image =~ ^[^[:space:]]+$ ]] || fail "install.yaml does not name $name once by digest: '$image'"
  # The registry, not skopeo, says that this digest is there.
  digest=${image##*@}
  served=$(ask "v2/acme/$name/manifests/$digest" -H 'Accept: application/vnd.oci.image.manifest.v1+json' |
    sha256sum | cut -d' ' -f1)
  [ "sha256:$served" = "$digest" ] || fail "the registry has sha256:$served under $digest"
  entrypoint=$(SSL_CERT_FILE=$work/certificate.pem skopeo inspect --config "docker://$image" | jq -r '.config.Entrypoint[0]')
  [ "$entrypoint" = "/usr/local/bin/$name" ] || fail "$image starts $entrypoint"
  echo "$image"
done | sort >"$work/pushed"
[ "$(wc -l <"$work/pushed")" = 2 ] || fail "not both images arrived: $(cat "$work/pushed")"

# The chart gets the same.
sed -n "s|^  [a-z]*: ||p" "$work/values.yaml" | sort | diff "$work/pushed" - || fail "values.yaml names other images (< pushed, > values)"
grep -q 'name: registry-acme' "$target/deploy/install.yaml" && fail "a pull secret of DigitalOcean's for another registry"
grep -q 'kind: CustomResourceDefinition' "$target/deploy/install.yaml" && fail "CRDs are a file of their own"

# What the push says is to be done, in that order.
kubectl apply --server-side --validate=strict -f "$target/deploy/crds.yaml" >/dev/null
kubectl wait --for=condition=Established --timeout=30s crd --all >/dev/null
[ "$(kubectl get crd -o name | wc -l)" = 3 ] || fail "crds.yaml does not hold the three CRDs"
kubectl apply --validate=strict -f "$target/deploy/install.yaml" >/dev/null
kubectl get deployments,daemonsets,statefulsets,jobs,pods --all-namespaces -o json |
  jq -r '.items[].spec.template.spec | (.containers + .initContainers)[]? | .image' | sort >"$work/installed"
diff "$work/pushed" "$work/installed" || fail "the API server holds other images (< pushed, > installed)"

push "$registry" >/dev/null
cmp -s "$work/first.yaml" "$target/deploy/install.yaml" || fail "a second push of the same images changed install.yaml"

if push "https://$registry" 2>/dev/null; then fail "a registry with a scheme was accepted"; fi
if push "" 2>/dev/null; then fail "no registry was accepted"; fi
echo "push: both images by digest, install file rendered and taken by the API server, repeatable"
