#!/usr/bin/env bash
# `make push` against a real registry (Debian package docker-registry) on this machine: both images arrive, the install file names
# them by the digests the registry has, and a second push changes nothing. Run by `make test`, after `make images`.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
read -ra xtask <<<"${XTASK:-cargo xtask}"

fail() { echo "push: $1" >&2; exit 1; }
work=$(mktemp -d)
registry_pid=
cleanup() {
  if [ -n "$registry_pid" ]; then kill "$registry_pid" 2>/dev/null || true; wait "$registry_pid" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

start_registry() {
  local attempt
  for attempt in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 10000))
    printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: %s/storage}}\nhttp: {addr: "127.0.0.1:%s"}\nlog: {level: warn}\n' \
      "$work" "$port" >"$work/config.yml"
    docker-registry serve "$work/config.yml" >"$work/registry.log" 2>&1 &
    registry_pid=$!
    for _ in $(seq 100); do
      # Ours, and not somebody else's on a port we could not have.
      kill -0 "$registry_pid" 2>/dev/null || break
      if curl -fsS "http://127.0.0.1:$port/v2/" >/dev/null 2>&1; then return; fi
      sleep 0.1
    done
    kill "$registry_pid" 2>/dev/null || true
    echo "attempt $attempt: no registry on port $port" >&2
  done
  cat "$work/registry.log" >&2
  fail "docker-registry does not start"
}

[ -f "$target/images/egress-controller.tar" ] || fail "make images first"
start_registry
registry=127.0.0.1:$port/acme

push() { "${xtask[@]}" push --registry "$registry" --plain-http; }
push
cp "$target/deploy/install.yaml" "$work/first.yaml"

for name in egress-controller egress-agent; do
  image=$(sed -n "s|^ *image: \($registry/$name@sha256:[0-9a-f]*\)$|\1|p" "$target/deploy/install.yaml")
  [[ $image =~ ^[^[:space:]]+$ ]] || fail "install.yaml does not name $name once by digest: '$image'"
  # The registry, not skopeo, says that this digest is there.
  digest=${image##*@}
  served=$(curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
    "http://127.0.0.1:$port/v2/acme/$name/manifests/$digest" | sha256sum | cut -d' ' -f1)
  [ "sha256:$served" = "$digest" ] || fail "the registry has sha256:$served under $digest"
  entrypoint=$(skopeo inspect --tls-verify=false --config "docker://$image" | jq -r '.config.Entrypoint[0]')
  [ "$entrypoint" = "/usr/local/bin/$name" ] || fail "$image starts $entrypoint"
done

grep -q 'name: registry-acme' "$target/deploy/install.yaml" && fail "a pull secret of DigitalOcean's for another registry"
if grep -E 'image: *[^ @]+$' "$target/deploy/install.yaml"; then fail "an image without digest"; fi
grep -q 'kind: CustomResourceDefinition' "$target/deploy/install.yaml" && fail "CRDs are a file of their own"
[ "$(grep -c 'kind: CustomResourceDefinition' "$target/deploy/crds.yaml")" = 3 ] || fail "crds.yaml does not hold the three CRDs"

push >/dev/null
cmp -s "$work/first.yaml" "$target/deploy/install.yaml" || fail "a second push of the same images changed install.yaml"

if "${xtask[@]}" push --registry "https://$registry" 2>/dev/null; then fail "a registry with a scheme was accepted"; fi
echo "push: both images by digest, install file rendered, repeatable"
