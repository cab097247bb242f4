#!/usr/bin/env bash
# Measures what one gateway can bear: `make bench-gateway`. What it measures and how: docs/benchmarks.md.
#
#   scripts/bench-gateway.sh [options of egress-bench gateway, such as --samples 3]
set -euo pipefail
cd "$(dirname "$0")/.."

# All of it, as for the images: fewer crates would be built with other features, hence anew and not as they are shipped.
cargo build --release --locked --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/egress-bench" gateway --document docs/benchmarks.md "$@"
