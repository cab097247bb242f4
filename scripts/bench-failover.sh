#!/usr/bin/env bash
# Measures failover: `make bench-failover`. What it measures and how: docs/benchmarks.md.
#
#   KILLS=1000 CONTROL_PLANE=down PROFILE=fast PAIRS=6 scripts/bench-failover.sh [options of egress-bench failover]
#   PLANNED=1000 scripts/bench-failover.sh      planned switches instead of kills
#   SOAK=30 scripts/bench-failover.sh           minutes under loss and load instead of kills
#
# Kills of several runs add up while the code is the same: what it is made from, not the documents about it.
set -euo pipefail
cd "$(dirname "$0")/.."

# All of it, as for the images: fewer crates would be built with other features, hence anew and not as they are shipped.
cargo build --release --locked --workspace --bins

code=(crates cloud-init crds Cargo.toml Cargo.lock)
commit=$(git log -1 --format=%h -- "${code[@]}" 2>/dev/null || true)
[ -z "$(git status --porcelain -- "${code[@]}" 2>/dev/null)" ] || commit+=-dirty

options=(--control-plane "${CONTROL_PLANE:-up}" --profile "${PROFILE:-default}" --commit "$commit" --document docs/benchmarks.md)
[ -z "${PAIRS:-}" ] || options+=(--pairs "$PAIRS")
[ -z "${SEED:-}" ] || options+=(--seed "$SEED")
[ -z "${FAULTS:-}" ] || options+=(--faults "$FAULTS")
if [ -n "${SOAK:-}" ]; then
  options+=(--soak "$SOAK")
elif [ -n "${PLANNED:-}" ]; then
  options+=(--planned "$PLANNED")
else
  options+=(--kills "${KILLS:-1000}")
fi
exec "${CARGO_TARGET_DIR:-target}/release/egress-bench" failover "${options[@]}" "$@"
