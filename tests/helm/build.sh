#!/usr/bin/env bash
# Builds Helm from its pinned Go module and prints the path of the program.
#
#   tests/helm/build.sh [go-version]
#
# `go-version` only prints the oldest version of Go that builds it.
# Looked for in this order: $HELM, the cache ($EGRESS_LAB_CACHE, default ~/.cache/egress-gateway), a build. Not in PATH: the tests say what
# they rely on. The cache key is the content of this folder. Safe to run twice at once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

version=$(sed -n 's/^require helm.sh\/helm\/v4 \(v.*\)/\1/p; s/^\thelm.sh\/helm\/v4 \(v[0-9.]*\)$/\1/p' "$here/go.mod" | head -1)
go_version=$(sed -n 's/^go //p' "$here/go.mod")
[[ $go_version == *.*.* ]] || go_version+=.0

case ${1:-} in
  go-version) echo "$go_version"; exit ;;
  "") ;;
  *) echo "usage: build.sh [go-version]" >&2; exit 2 ;;
esac

if [ -n "${HELM:-}" ]; then echo "$HELM"; exit 0; fi

key=$(cat "$here"/{go.mod,go.sum,commands.go,build.sh} | sha256sum | cut -c1-16)
cache=${EGRESS_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egress-gateway}/helm-$key
if [ -x "$cache/helm" ]; then echo "$cache/helm"; exit 0; fi

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
if [ -x "$cache/helm" ]; then echo "$cache/helm"; exit 0; fi

if ! command -v go >/dev/null; then
  echo "Go $go_version or newer is needed to build Helm, and there is none; scripts/setup.sh gives the line that gets it" >&2
  exit 1
fi

started=$SECONDS
echo "  building helm ($version)..." >&2
(cd "$here" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local go build -trimpath \
  -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=$version" -o "$cache/.helm" helm.sh/helm/v4/cmd/helm)
mv "$cache/.helm" "$cache/helm"
echo "  built helm after $((SECONDS - started)) s" >&2
echo "$cache/helm"
