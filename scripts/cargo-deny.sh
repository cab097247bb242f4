#!/usr/bin/env bash
# Runs cargo-deny, one version of it, installed once into the cache.
set -euo pipefail
version=0.20.2
tools=${EGRESS_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egress-gateway}/tools
if [ "$("$tools/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
  echo "building cargo-deny $version, once (about 3 minutes on 2 cores)"
  # A folder outside the workspace: its toolchain and lock file are not for others' programs.
  mkdir -p "$tools"
  (cd "$tools" && cargo install --locked --root "$tools" --version "$version" cargo-deny)
fi
exec "$tools/bin/cargo-deny" "$@"
