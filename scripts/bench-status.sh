#!/usr/bin/env bash
# Measures how a thousand nodes report: `make bench-status`. What it measures and how: docs/benchmarks.md.
#
#   NODES=1000 CHANGES=10 scripts/bench-status.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# With the features that the shipped programs have; the test starts the controller that was built beside it.
cargo build --release --locked --workspace --bins
cargo test --release --locked --workspace --test api_server -- --ignored --nocapture many_nodes::measure_a_thousand_nodes
exec "${CARGO_TARGET_DIR:-target}/release/egress-bench" status --document docs/benchmarks.md
