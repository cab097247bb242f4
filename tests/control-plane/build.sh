#!/usr/bin/env bash
# Builds the lab's Kubernetes control plane and node programs from pinned Go modules and prints the folder that holds them.
#
#   tests/control-plane/build.sh [api|all|go-version]
#
# `api` builds etcd, kube-apiserver and kubectl (all that an API server test needs); `all` (default) everything. `go-version` only
# prints the oldest version of Go that builds them.
# Looked for in this order: $KUBEBUILDER_ASSETS, the cache ($EGRESS_LAB_CACHE, default ~/.cache/egress-gateway), a build.
# The cache key is the content of this folder, so another version never meets a stale program. Safe to run twice at once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=${1:-all}

# The one place that states the Kubernetes version: the newest minor that DOKS offers to new clusters.
kubernetes=$(sed -n 's/^require k8s.io\/kubernetes \(v.*\)/\1/p; s/^\tk8s.io\/kubernetes \(v[0-9.]*\)$/\1/p' "$here/kubernetes/go.mod" | head -1)

api=(etcd kube-apiserver kubectl)
all=("${api[@]}" kube-controller-manager kube-scheduler kubelet kube-proxy coredns containerd containerd-shim-runc-v2 ctr)
# The newest that a module asks for, in three parts as Go's releases are named.
go_version=$(sed -n 's/^go //p' "$here"/*/go.mod | sort -V | tail -1)
[[ $go_version == *.*.* ]] || go_version+=.0

case $what in
  go-version) echo "$go_version"; exit ;;
  api) wanted=("${api[@]}") ;;
  all) wanted=("${all[@]}") ;;
  *) echo "usage: build.sh [api|all|go-version]" >&2; exit 2 ;;
esac

complete() { for p in "${wanted[@]}"; do [ -x "$1/$p" ] || return 1; done; }

if [ -n "${KUBEBUILDER_ASSETS:-}" ] && complete "$KUBEBUILDER_ASSETS"; then
  echo "$KUBEBUILDER_ASSETS"
  exit 0
fi

key=$(cat "$here"/*/go.mod "$here"/*/go.sum "$here"/*/main.go "$here/build.sh" | sha256sum | cut -c1-16)
cache=${EGRESS_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egress-gateway}/control-plane-$key
if complete "$cache"; then echo "$cache"; exit 0; fi

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
if complete "$cache"; then echo "$cache"; exit 0; fi

if ! command -v go >/dev/null; then
  echo "Go $go_version or newer is needed to build the control plane, and there is none; scripts/setup.sh gives the line that gets it" >&2
  exit 1
fi

minor=$(cut -d. -f2 <<<"$kubernetes")
version="-X k8s.io/component-base/version.gitVersion=$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$minor -X k8s.io/component-base/version.gitTreeState=clean"

# folder, ldflags, then "package=name" for each program
build() {
  local folder=$1 flags=$2 pair started=$SECONDS; shift 2
  for pair in "$@"; do
    local package=${pair%=*} name=${pair#*=}
    [ -x "$cache/$name" ] && continue
    echo "  building $name ($kubernetes)..." >&2
    (cd "$here/$folder" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local go build -trimpath -ldflags "-s -w $flags" -o "$cache/.$name" "$package")
    mv "$cache/.$name" "$cache/$name"
    echo "  built $name after $((SECONDS - started)) s" >&2
  done
}

build etcd "" .=etcd
build kubernetes "$version" k8s.io/kubernetes/cmd/kube-apiserver=kube-apiserver k8s.io/kubernetes/cmd/kubectl=kubectl
if [ "$what" = all ]; then
  build kubernetes "$version" k8s.io/kubernetes/cmd/{kube-controller-manager=kube-controller-manager,kube-scheduler=kube-scheduler,kubelet=kubelet,kube-proxy=kube-proxy}
  build coredns "" .=coredns
  build containerd "-X github.com/containerd/containerd/v2/version.Version=v2.2.9" github.com/containerd/containerd/v2/cmd/{containerd=containerd,containerd-shim-runc-v2=containerd-shim-runc-v2,ctr=ctr}
fi
echo "$cache"
