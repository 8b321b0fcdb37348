# `make run` and `make test` set up what they need; `make` alone shows the targets.

CARGO ?= cargo
# For example `make run ARGS="--replicas 3 --keep"`, or `make run SHARDS=2`.
ARGS ?=
SHARDS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run build test chaos promises shards soak giants overload regress drivers bench bench-check bench-budget check fmt deny clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the tests need and this machine lacks (PostgreSQL, Python and Node packages)
	@scripts/setup.sh --tests

run: ## Build, start a primary, two replicas and pgyard in front; Ctrl-C stops all of it
	@scripts/setup.sh
	$(CARGO) build --release --bin pgyard
	@# exec: Ctrl-C goes to pgyard, which stops everything in order.
	@exec target/release/pgyard demo $(if $(SHARDS),--shards $(SHARDS)) $(ARGS)

build: ## Build the release binary
	$(CARGO) build --release --bin pgyard

test: ## Run all tests (sets up PostgreSQL, Python and Node itself)
	@scripts/setup.sh --tests
	$(CARGO) test --all-targets
	$(CARGO) test --doc

chaos: ## Break hosts and networks under checked sessions, 10 minutes a level (MINUTES=2 SEED=7 ARGS=global)
	@scripts/setup.sh --tests
	PGYARD_CHAOS_MINUTES=$(or $(MINUTES),10) PGYARD_CHAOS_SEED=$(SEED) \
		$(CARGO) test --test integration chaos::levels::$(ARGS) -- --nocapture --test-threads=1

promises: ## Count what is promised in numbers, in full: stale reads, hosts that break, a lost primary (needs a machine of its own)
	@scripts/setup.sh --tests
	$(CARGO) test --lib an_idle_hour_and_one_write_eject_nobody
	PGYARD_PROMISES=1 $(CARGO) test --test integration -- --nocapture --test-threads=1 \
		promises:: stubborn:: lag:: faults:: slow_hosts:: reload::replicas_are_added failover::a_restart failover::a_promotion

shards: ## Figures of reading over three shards of a million rows each (ROWS=100000)
	@scripts/setup.sh --tests
	$(CARGO) build --release --bin pgyard
	PGYARD_PROGRAM=$(CURDIR)/target/release/pgyard PGYARD_SHARD_ROWS=$(or $(ROWS),1000000) \
		$(CARGO) test --test integration sharded::figures -- --nocapture

soak: ## Clients that do everything and vanish, servers that end sessions, for 30 minutes (MINUTES=5 SEED=7)
	@scripts/setup.sh --tests
	PGYARD_SOAK_MINUTES=$(or $(MINUTES),30) PGYARD_CHAOS_SEED=$(SEED) $(CARGO) test --test integration soak:: -- --nocapture

giants: ## Pass values of a gigabyte through in both directions (the server needs 6 GB of memory)
	@scripts/setup.sh --tests
	PGYARD_GIANTS=1 $(CARGO) test --test integration giants:: -- --nocapture

overload: ## 2,000 clients on a pool of 20, for a minute (SECONDS=10)
	@scripts/setup.sh --tests
	PGYARD_OVERLOAD_SECONDS=$(or $(SECONDS),60) $(CARGO) test --test integration overload::a_crowd_waits -- --nocapture

regress: ## Run PostgreSQL's own test suites directly and through pgyard, and compare (ARGS="--suite regress --mode transaction")
	@scripts/setup.sh --regress
	$(CARGO) build --bin pgyard
	@python3 scripts/regress.py $(ARGS)

drivers: ## Run the test suites of drivers and frameworks directly and through pgyard, and compare (ARGS="--suite asyncpg")
	@scripts/setup.sh --drivers
	$(CARGO) build --bin pgyard
	@python3 scripts/drivers.py $(ARGS)

bench: ## Measure pgyard beside a direct connection and installed proxies (ARGS="--fake", docs/benchmarks.md)
	@scripts/setup.sh --bench
	$(CARGO) build --release --bin pgyard
	@python3 scripts/bench.py $(ARGS)

bench-check: ## Compare the hot paths' instructions with benches/budget.toml
	@scripts/setup.sh --bench
	@python3 scripts/bench_budget.py $(ARGS)

bench-budget: ## Count the hot paths' instructions anew and write benches/budget.toml
	@scripts/setup.sh --bench
	@python3 scripts/bench_budget.py --update

check: ## Format, lints, house rules, documentation, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) test --test tidy
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items
	@scripts/shell.sh
	@$(MAKE) --no-print-directory deny

deny: ## Check licences, sources and banned crates, if cargo-deny is installed
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny check bans licenses sources; \
	else \
		echo "cargo-deny is not installed: licences, sources and banned crates were NOT checked (cargo install cargo-deny --locked)"; \
	fi

fmt: ## Format the code
	$(CARGO) fmt --all

clean: ## Delete what was built and installed here
	$(CARGO) clean
	rm -rf .venv tests/drivers/node/node_modules
