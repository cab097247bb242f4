#!/usr/bin/env bash
# Measures the agent: `make bench-agent`. What it measures and how: docs/benchmarks.md.
#
#   scripts/bench-agent.sh [options of egress-bench, such as --peer-command '...']
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked -p egress-agent -p egress-bench
exec "${CARGO_TARGET_DIR:-target}/release/egress-bench" --document docs/benchmarks.md "$@"
