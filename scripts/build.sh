#!/usr/bin/env bash
# Builds all that the lab runs: the control plane and Helm from Go modules beside the crates, then the images.
#
#   scripts/build.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# The two builds share the cores; the control plane is the longer one, and free when it is cached.
mkdir -p target/log
set -m # a process group of its own, to stop it with the compilers it started
{ tests/control-plane/build.sh all >target/log/control-plane.path && tests/helm/build.sh >target/log/helm.path; } 2>target/log/control-plane.log &
control_plane=$!
set +m
trap 'kill -- "-$control_plane" 2>/dev/null || true' EXIT

scripts/step.sh "build the crates" cargo build --release --locked --bins --workspace
# Not `cargo xtask`, which would build half of the crates a second time, for debugging.
scripts/step.sh "build the images" "${CARGO_TARGET_DIR:-target}/release/xtask" images --no-build
# The first Droplet would otherwise build it while everybody waits for that Droplet.
if [ "$(id -u)" = 0 ]; then
  scripts/step.sh "build the Droplets' disk" "${CARGO_TARGET_DIR:-target}/release/egress-lab" machine prepare
fi

wait_for_control_plane() {
  # Not `wait`: step.sh runs this in a process that is not its parent.
  while kill -0 "$1" 2>/dev/null; do
    tail -n 1 target/log/control-plane.log
    sleep 1
  done
  tests/control-plane/build.sh all
  tests/helm/build.sh
}
export -f wait_for_control_plane
scripts/step.sh "build the control plane" bash -c "wait_for_control_plane $control_plane"
trap - EXIT
