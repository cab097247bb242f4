# One line each; the work is in scripts/, xtask and cargo. `make` alone lists the targets.

SHELL := /bin/bash
.NOTPARALLEL:
.DEFAULT_GOAL := help

# `sudo make` has root's PATH: where the person who called it has Rust and Go.
caller := $(if $(SUDO_USER),$(shell getent passwd $(SUDO_USER) | cut -d: -f6),$(HOME))
export PATH := $(caller)/.cargo/bin:$(HOME)/.cargo/bin:/usr/local/go/bin:$(PATH)
export RUSTUP_HOME ?= $(firstword $(wildcard $(HOME)/.rustup $(caller)/.rustup) $(HOME)/.rustup)

step := scripts/step.sh
xtask := $(or $(XTASK),cargo xtask)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

# Asked before anything is built: namespaces, mounts and cgroups are root's.
.PHONY: root
root:
	@test "$$(id -u)" = 0 || { echo "This needs root: sudo make $(MAKECMDGOALS)" >&2; exit 1; }

.PHONY: setup
setup: ## Debian packages; checks Rust and Go
	@scripts/setup.sh

.PHONY: build
build: setup ## all that the lab runs: control plane, crates, images
	@scripts/build.sh

# In front of a person: what takes longer than two seconds shows progress, on a terminal or not.
demo: export STEP_SECONDS := 2

.PHONY: demo
demo: root build ## a real cluster on this machine, and the main job step by step
	@scripts/demo.sh

.PHONY: demo-down
demo-down: root ## stops what `make demo` left running
	@scripts/demo.sh down

.PHONY: images
images: setup ## OCI images of controller and agent into target/images/
	@$(xtask) images

.PHONY: push
push: ## pushes the images: REGISTRY=registry.digitalocean.com/<name>; renders target/deploy/install.yaml
	@test -n "$(REGISTRY)" || { echo "REGISTRY=registry.digitalocean.com/<your registry> is missing" >&2; exit 2; }
	@scripts/setup.sh --for-push
	@$(xtask) images
	@$(xtask) push --registry "$(REGISTRY)"

.PHONY: generate
generate: ## crds/, deploy/rbac.txt, docs/reference.md and the list of decision records from their sources
	@cargo xtask crdgen
	@cargo xtask rbac
	@cargo xtask reference
	@cargo xtask decisions

.PHONY: check
check: ## formatting, clippy, licences, generated files, crate arrows, scripts
	@$(step) "formatting" cargo fmt --all --check
	@$(step) "formatting of the fuzz targets" cargo fmt --manifest-path crates/netlink/fuzz/Cargo.toml --check
	@$(step) "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
	@$(step) "licences, bans, sources" scripts/cargo-deny.sh check licenses bans sources
	@$(step) "generated files, arrows, rights" $(xtask) check
	@$(step) "scripts" shellcheck $(wildcard scripts/*.sh tests/*.sh tests/*/*.sh .ci/run)

.PHONY: advisories
advisories: ## known vulnerabilities; needs the advisory database from the network
	@scripts/cargo-deny.sh check advisories

.PHONY: test
test: root setup ## everything; the last line is `N passed, M failed`
	@scripts/test.sh

.PHONY: moves
moves: root build ## an address that moves, in each failure of its holder, under traffic in a lab: MOVES=kill,nat
	@$(step) "moves" scripts/moves.sh

.PHONY: rolls
rolls: root build ## gateways replaced one by one, and deleted, under traffic in a lab: ROLLS=4
	@$(step) "rolls" scripts/rolls.sh

.PHONY: failover-matrix
failover-matrix: root build ## every failure of docs/failover.md in a lab: FAILOVER_ROWS=kill,nat FAILOVER_CONTROL_PLANE=up|down
	@$(step) "failure matrix" scripts/failure-matrix.sh

.PHONY: crash-points
crash-points: root setup ## the controller killed and stopped at every effect of a gateway's life: points=N runs=N differences=N
	@scripts/crash-points.sh

.PHONY: bench-agent
bench-agent: root setup ## speed and size of the agent: target/bench/agent.json and the table of docs/benchmarks.md
	@scripts/bench-agent.sh

.PHONY: bench-status
bench-status: root setup ## how fast a thousand nodes report a change, and what that costs: target/bench/status.json
	@scripts/bench-status.sh

.PHONY: bench-gateway
bench-gateway: root setup ## what one gateway can bear: target/bench/gateway.json and the table of docs/benchmarks.md
	@scripts/bench-gateway.sh

.PHONY: bench-failover
bench-failover: root setup ## time without a gateway: KILLS=1000 CONTROL_PLANE=down PROFILE=fast, PLANNED=1000 or SOAK=<minutes>
	@scripts/bench-failover.sh

.PHONY: judges
judges: root build ## judges that others wrote, in full: pydo, schemathesis, a whole lab run through Prism
	@scripts/outside-judges.sh

.PHONY: test-exhaustive
test-exhaustive: setup ## all of one suite of random cases, resumable: SUITE=<name>; without it a list
	@scripts/exhaustive.sh $(SUITE)
