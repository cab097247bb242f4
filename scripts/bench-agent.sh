#!/usr/bin/env bash
# Measures the agent: `make bench-agent`. What it measures and how: docs/benchmarks.md.
#
#   scripts/bench-agent.sh [options of egress-bench agent, such as --peer-command '...' or --only idle]
set -euo pipefail
cd "$(dirname "$0")/.."

# All of it, as for the images: fewer crates would be built with other features, hence anew and not as they are shipped.
cargo build --release --locked --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/egress-bench" agent --document docs/benchmarks.md "$@"
