#!/usr/bin/env bash
# Installs the Debian packages the project needs and checks the two prerequisites, Rust and Go. Safe to run any number of times;
# asks nothing; does nothing when all is there.
#
#   scripts/setup.sh [--check-only | --for-push | --list]
#
# `--for-push`: only checks what `make push` needs, on any Linux machine; installs nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# Versions are those of the Debian release; the tests say what they rely on.
packages=(
  build-essential pkg-config git make curl jq openssl ca-certificates # building and scripts
  iproute2 nftables iptables conntrack procps util-linux      # the lab's networks, and looking into them
  runc containernetworking-plugins                            # the lab's nodes
  mmdebstrap systemd-container busybox-static                 # the lab's Droplets and its smallest images
  skopeo docker-registry                                      # pushing images, and a registry to test it with
  prometheus                                                  # judges the metrics and the dashboard's queries
  chromium chromium-driver                                    # opens the health page
  python3-venv shellcheck                                     # judges of the simulator and of the scripts
)
if [ "${1:-}" = --list ]; then printf '%s\n' "${packages[@]}"; exit; fi
rust_minimum=1.89
go_minimum=$("$here/../tests/control-plane/build.sh" go-version)

fail() { printf '\n%s\n\n    %s\n\nThen start again.\n' "$1" "$2" >&2; exit 1; }
# For a line that fetches something, on a machine that cannot yet.
with_curl() { command -v curl >/dev/null || printf 'sudo apt-get install -y curl ca-certificates && '; printf '%s' "$1"; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

check_rust() {
  local line
  line=$(with_curl "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal && . \"\$HOME/.cargo/env\"")
  command -v cargo >/dev/null || fail "Rust $rust_minimum or newer is needed and there is none. This line gets it:" "$line"
  local found
  # With rustup this also gets the toolchain that rust-toolchain.toml names.
  found=$(cd "$here/.." && cargo --version | awk '{print $2}') || fail "cargo does not run. This line gets another:" "$line"
  at_least "$rust_minimum" "$found" || fail "Rust $rust_minimum or newer is needed, this is $found. This line gets it:" "$line"
  echo "Rust $found"
}

check_go() {
  local arch line found
  arch=$(dpkg --print-architecture)
  line=$(with_curl "curl -fsSL https://go.dev/dl/go$go_minimum.linux-$arch.tar.gz | sudo tar -C /usr/local -xz && export PATH=/usr/local/go/bin:\$PATH")
  command -v go >/dev/null || fail "Go $go_minimum or newer is needed and there is none. This line gets it:" "$line"
  found=$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//; s/ .*//')
  at_least "$go_minimum" "$found" || fail "Go $go_minimum or newer is needed, this is $found. This line gets it:" "$line"
  echo "Go $found"
}

# What `make push` runs beside Rust. kubectl renders the manifests, and is needed to apply them anyway.
check_push_programs() {
  local on_debian="On Debian and Ubuntu this line gets it:"
  need cc "$on_debian" "sudo apt-get install -y build-essential"
  need skopeo "$on_debian" "sudo apt-get install -y skopeo"
  need kubectl "How to get it:" "https://kubernetes.io/docs/tasks/tools/#kubectl"
}
need() {
  command -v "$1" >/dev/null || fail "$1 is needed and there is none. $2" "$3"
  echo "$1"
}

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Packages that bring a service must not start it: we run our own copies, on ports of our own.
services=(prometheus docker-registry)
install_packages() {
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    # shellcheck disable=SC2064
    trap "as_root rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
  fi
  as_root apt-get -q update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"
  local service
  for service in "${services[@]}"; do
    if [[ " $* " == *" $service "* ]] && [ -d /run/systemd/system ]; then
      as_root systemctl disable --now "$service" || true
    fi
  done
}

if [ "${1:-}" = --for-push ]; then
  [ "$(uname -s)" = Linux ] || fail "The images are made of this machine's libraries, so it must run Linux." "use a Linux machine"
  check_rust
  check_push_programs
  exit
fi
[ "$(uname -s)" = Linux ] || fail "The lab needs Linux (network namespaces, nexthop objects)." "use a Debian 12 or 13 machine"
command -v apt-get >/dev/null || fail "The lab's packages come from Debian 12 or 13." "use such a machine, or install: ${packages[*]}"
check_rust
check_go
mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -eq 0 ]; then
  echo "all ${#packages[@]} packages are there"
elif [ "${1:-}" = --check-only ]; then
  fail "Packages are missing. This line gets them:" "scripts/setup.sh"
else
  echo "installing ${missing[*]}"
  install_packages "${missing[@]}"
fi
