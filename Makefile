# The commands of the project; `make help` lists them. Each installs what it needs and does not ask.
SHELL         := bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Where things go. Both can lie outside the clone.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
CACHE  := $(abspath $(or $(RESERVEGRID_CACHE),.cache))
TOOLS  := $(CACHE)/tools
BIN    := $(TARGET)/release/reservegrid
DEMO   := $(TARGET)/demo/demo.toml

NEXTEST := 0.9.151
DENY    := 0.20.2
# Other people's software that the gateway is tried with.
TRANSLATOR    := 0.6.0
MINING_DEVICE := 0.6.0

# For how long `make fuzz` tries each target.
FUZZ_SECONDS ?= 60

POLICIES      := $(patsubst policies/%/Cargo.toml,%,$(wildcard policies/*/Cargo.toml))
POLICY_WASM   := $(POLICIES:%=$(TARGET)/policies/%.wasm)
POLICY_INPUTS := $(shell find wit policy-sdk -type f -not -name '*.md')

# What the demo, the tests and the benchmarks find their parts by.
export RESERVEGRID_BIN        := $(BIN)
export RESERVEGRID_POLICY_DIR := $(TARGET)/policies
export RESERVEGRID_NODE_DIR   := $(CACHE)/node
export RESERVEGRID_BROWSER_DIR := $(CACHE)/browser
export RESERVEGRID_PROMETHEUS_DIR := $(CACHE)/prometheus
export RESERVEGRID_CACHE      := $(CACHE)
export PATH                   := $(TOOLS)/bin:$(PATH)

.PHONY: run test interop fuzz crash build policies container node browser prometheus docs screenshots lint fmt audit gate-soak bench bench-load bench-tip bench-template clean help setup wasm-toolchain nextest foreign deny

run: policies ## gateway, embedded chain, pool backend and miners in one terminal; Ctrl-C ends it
	@mkdir -p $(dir $(DEMO))
	@sed 's|"\.\./target/|"$(TARGET)/|' examples/demo.toml >$(DEMO)
	@exec $(BIN) demo --config $(DEMO)

test: policies node browser prometheus nextest ## every test, with a real Bitcoin node, browser and Prometheus
	cargo nextest run --workspace --release
	cargo test --doc --workspace --release --quiet

interop: policies nextest foreign ## miners and proxies that are not ours, against the real binary
	cargo nextest run --workspace --release --test interop --run-ignored only

fuzz: policies ## a minute (FUZZ_SECONDS) of strange bytes for each fuzz target
	@scripts/setup.sh c++=g++
	scripts/fuzz.sh $(CACHE)/fuzz $(FUZZ_SECONDS)

crash: policies nextest ## 200 crashes of the gateway under load, and what files and books say then
	RESERVEGRID_CRASHES=200 cargo nextest run --workspace --release --no-capture -E 'test(whatever_the_moment_of_a_crash)'

# Always the whole workspace: a part of it alone would build its dependencies once more, with other features.
build: setup ## target/release/reservegrid
	cargo build --release --workspace --bin reservegrid

policies: $(POLICY_WASM) ## the standard policies as WebAssembly, in target/policies

# A policy is built again when its own sources, the SDK or the contract changed, not when the gateway did.
.SECONDEXPANSION:
$(POLICY_WASM): $(TARGET)/policies/%.wasm: $$(shell find policies/$$* -type f) $(POLICY_INPUTS) | build wasm-toolchain
	@mkdir -p $(@D)
	$(BIN) policy build policies/$* --out $@

container: ## the image of examples/container, with podman, buildah or docker
	@scripts/container.sh

node: ## a Bitcoin node for the tests
	@scripts/get-node.sh $(RESERVEGRID_NODE_DIR)

browser: ## a headless Chromium for the tests
	@scripts/get-browser.sh $(RESERVEGRID_BROWSER_DIR)

prometheus: ## a Prometheus for the tests
	@scripts/get-prometheus.sh $(RESERVEGRID_PROMETHEUS_DIR)

docs: nextest ## write the generated pages of docs/ again
	RESERVEGRID_WRITE_DOCS=1 cargo nextest run --workspace --release --lib -E 'test(/generated_/)'

screenshots: policies browser nextest ## pictures of the dashboard, in target/screenshots
	RESERVEGRID_SCREENSHOTS=$(TARGET)/screenshots cargo nextest run --workspace --release --test view -E 'test(/^dashboard/)'

lint: setup deny ## formatting, clippy, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo deny --workspace check bans licenses sources

fmt: ## format the sources
	cargo fmt --all

audit: deny ## known vulnerabilities in dependencies (needs the network)
	cargo deny --workspace check advisories

gate-soak: setup ## two million random sequences through the gate, watched for broken promises
	RESERVEGRID_GATE_SEQUENCES=2000000 cargo test --release --workspace --lib gate::soak -- --nocapture

bench: policies bench-template ## handshake, frames, shares, the ledger and policies: measured here, beside the reference
	cargo bench --workspace --bench noise --bench share --bench pack --bench facts --bench swap --bench ledger

bench-load: build policies ## the mining server under load: shares, arrivals, idle crowds, new tips, hostile crowds
	cargo build --release --workspace --bin reservegrid-load
	$(TARGET)/release/reservegrid-load all

bench-tip: policies ## from a new tip to the last of 1, 100 and 1,000 miners, beside bare TCP
	cargo bench --workspace --bench tip

bench-template: policies node ## from a node's new tip to the admitted template, beside the node's own time, for full blocks
	cargo bench --workspace --bench template

clean: ## remove what was built; tools and node stay in .cache
	cargo clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup:
	@scripts/setup.sh cc=gcc

wasm-toolchain: setup
	@scripts/wasm-toolchain.sh

nextest: setup
	@scripts/cargo-tool.sh cargo-nextest $(NEXTEST) $(TOOLS) --no-default-features --features default-no-update

foreign: setup
	@scripts/setup.sh capnp=capnproto /usr/include/capnp/c++.capnp=libcapnp-dev
	@scripts/cargo-tool.sh translator_sv2 $(TRANSLATOR) $(TOOLS) --no-default-features
	@scripts/cargo-tool.sh mining_device=integration_tests_sv2 $(MINING_DEVICE) $(TOOLS) --bin mining_device

deny: setup
	@scripts/cargo-tool.sh cargo-deny $(DENY) $(TOOLS)
