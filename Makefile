# `make` lists what there is. Each target installs what it needs and the machine lacks, and says what before it does: Debian
# packages by apt, as root, and the rest at pinned versions into target/tools, target/bench/peers, and tests/clients/node_modules,
# .venv and .venv-v1. Rust, Node and Python must be there. ARGS="…" is passed on by run, test and bench.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CLIENTS := tests/clients
NPM := $(CLIENTS)/node_modules/.package-lock.json
KONTEXT := target/clients/kontext/debug/kontext-life
VENVS := $(CLIENTS)/.venv/installed $(CLIENTS)/.venv-v1/installed
PEERS := target/bench/peers
CARGO_DENY := target/tools/cargo-deny-0.20.2/bin/cargo-deny

# Everyday

.PHONY: run
run: compiler ## Build the release binary and serve (ARGS="--help" shows the options)
	cargo build --release --locked
	exec target/release/sessiond serve $(ARGS)

.PHONY: run-cluster
run-cluster: compiler curl postgres balancer ## Serve with three nodes on a PostgreSQL in target/cluster, behind a balancer, and say what to try
	cargo build --release --locked
	exec cluster/run target/release/sessiond target/cluster

.PHONY: test
test: compiler strace curl terminals postgres balancer clients ## Run all tests and say how long they took (ARGS="revoke" runs those whose name contains it)
	python3 tests/timed.py cargo test --locked --workspace $(ARGS)
	$(if $(strip $(ARGS)),,+$(MAKE) --no-print-directory test-postgres)

# The tests of what clients see and of the committer, once more with a service that keeps its sessions in PostgreSQL: those that
# are quick with `make test`, and all of them with `make proof`, which takes half an hour. Those that are about SQLite's files
# say that they are left out.
ON_POSTGRES := agents:: feeds:: orders:: store::suite:: store::batches:: store::history:: store::following::
SLOW_ON_POSTGRES := directory:: mcp:: media:: workloads:: terminals:: webhooks:: idempotency:: races:: kills:: authority:: \
    traces:: people:: organizations:: store::retention::
# Those that lose connections, servers and processes, ten times as often as with `make test`: they choose their store themselves.
REPEATED := store::lost_commits:: store::failover:: store::bystanders:: store::copying:: operation::migrate_store:: \
    nodes::
.PHONY: test-postgres
test-postgres: compiler terminals postgres clients
	TEST_STORE=postgres python3 tests/timed.py cargo test --locked --test it -- $(ON_POSTGRES)

.PHONY: proof
proof: compiler strace curl terminals postgres clients ## Run on PostgreSQL what is too slow for every day (ARGS="-- revoke" runs those whose name contains it)
	$(if $(strip $(ARGS)),,PROOF=1 python3 tests/timed.py cargo test --locked --test it -- $(REPEATED))
	TEST_STORE=postgres python3 tests/timed.py cargo test --locked --test it $(if $(strip $(ARGS)),$(ARGS),-- $(ON_POSTGRES) $(SLOW_ON_POSTGRES))

.PHONY: check
check: compiler components $(CARGO_DENY) $(NPM) ## Check format, lints, dependencies and openapi.yaml
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO_DENY) --locked check bans licenses sources
	@echo "Comparing openapi.yaml with the code; 'make openapi' writes it"
	cargo run --locked --quiet -- openapi | diff openapi.yaml -
	REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true \
	    $(CLIENTS)/node_modules/.bin/redocly lint --config $(CLIENTS)/redocly.yaml openapi.yaml

.PHONY: bench
bench: compiler terminals postgres $(if $(or $(if $(strip $(ARGS)),,all),$(filter peers,$(ARGS))),peers) ## Measure (ARGS chooses what; without, all of it)
	@# Many clients are many sockets: the limit of open files is raised as far as it goes, for root to what all rows need.
	ulimit -n 65536 2>/dev/null || ulimit -n "$$(ulimit -Hn)" || echo "The limit of open files stays at $$(ulimit -n)"; \
	    cargo bench --locked --bench sessiond -- $(ARGS)

.PHONY: peers
peers: $(PEERS)/cargo/bin/mcp-proxy $(PEERS)/npm/node_modules/.package-lock.json $(PEERS)/contextforge/installed ## Install the gateways that bench measures beside ours (25 minutes, once)

.PHONY: openapi
openapi: compiler ## Write openapi.yaml from the code
	@mkdir -p target
	cargo run --locked --quiet -- openapi > target/openapi.yaml
	mv target/openapi.yaml openapi.yaml

.PHONY: example
example: compiler ## Write docs/sessiond.example.toml from the code
	cargo run --locked --quiet -- config --example > target/sessiond.example.toml
	mv target/sessiond.example.toml docs/sessiond.example.toml

.PHONY: authorization
authorization: compiler ## Write docs/authorization.md from the tests' table
	WRITE_AUTHORIZATION=1 cargo test --locked --quiet --test it the_page_about_rights

.PHONY: mcp-clients
mcp-clients: compiler ## Write docs/mcp-clients.md from the tests' table
	WRITE_MCP_CLIENTS=1 cargo test --locked --quiet --test it the_page_about_clients

.PHONY: mcp-servers
mcp-servers: compiler ## Write docs/mcp-servers.md from the tests' table
	WRITE_MCP_SERVERS=1 cargo test --locked --quiet --test it the_page_about_servers

.PHONY: help
help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

# What the above need; each says what it installs, and nothing where there is nothing to do

# $(call debian,<test that tells whether it is there>,<packages>,<what for>[,<more to know>,<a file of root's that comes first>[,<a line in it>]])
# Only this asks for root's rights, and it says for what before it does.
define debian
@$(1) >/dev/null 2>&1 || { \
    command -v apt-get >/dev/null || { echo "Please install by hand, since this is not a Debian machine: $(2)" >&2; exit 1; }; \
    as=; if [ "$$(id -u)" != 0 ]; then as=sudo; \
        command -v sudo >/dev/null || { echo "Please run as root: apt-get install --no-install-recommends $(2)" >&2; exit 1; }; fi; \
    echo "Installing as root$${as:+, by sudo}: $(2) (Debian), for $(3)"; \
    $(if $(4),echo "  $(strip $(4))";) \
    $$as apt-get update -qq; \
    $(if $(5),$$as mkdir -p $(dir $(5)); made=; [ -e $(5) ] || { made=yes; printf '%b\n' '$(6)' | $$as tee $(5) >/dev/null; };) \
    $$as env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $(2) >/dev/null || { \
        $(if $(5),[ -z "$$made" ] || $$as rm -f $(5);) exit 1; }; }
endef

.PHONY: compiler strace curl terminals balancer postgres openssl python components clients
compiler:
	$(call debian,command -v cc,gcc libc6-dev,compiling the bundled SQLite)

openssl:
	$(call debian,pkg-config --exists openssl,libssl-dev pkg-config,Kontext's client in the tests)

strace:
	$(call debian,command -v strace,strace,the test that counts fdatasync)

curl:
	$(call debian,command -v curl,curl,the test that runs the commands of README and the pages)

# Debian starts a server that it installs. The tests start their own, so one that came for them is to listen to nobody, not
# even for the seconds until it is turned off: openssh-server's service and socket do not start where NO_SSHD exists.
NO_SSHD := /etc/ssh/sshd_not_to_be_run
NOT_STARTED := Each of those tests runs sshd itself, on a free port of 127.0.0.1, with its own keys and settings. The system's \
    service is not started, now or at boot: $(NO_SSHD) is made for that. Remove that file if you want the service.
terminals:
	$(call debian,test -x /usr/sbin/sshd,openssh-server,the tests of terminals: real shells over SSH,$(NOT_STARTED),$(NO_SSHD))
	$(call debian,{ command -v ssh && command -v zsh && command -v vim && command -v less && command -v top && command -v fish && command -v git; },openssh-client zsh vim less procps fish git,the tests that read commands off the screen)

# Debian makes a cluster of databases and starts it when it installs PostgreSQL, unless this file says that it is not to.
NO_CLUSTER := /etc/postgresql-common/createcluster.conf
NO_CLUSTER_MADE := The tests run PostgreSQL themselves, as the user postgres where they run as root, on a free port of 127.0.0.1 and \
    in a directory of their own. No cluster of the system is made or started: $(NO_CLUSTER) says so, unless it was there before. \
    pg_createcluster makes one if you want it.
# Debian starts a pooler that it installs, and at each boot, unless its unit wants a file that is not there.
NO_POOLER := /etc/systemd/system/pgbouncer.service.d/not_to_be_run.conf
NO_POOLER_MADE := The tests run PgBouncer themselves, on a free port of 127.0.0.1. The system's service is not started, now or at \
    boot: $(NO_POOLER) says so. Remove that file if you want the service.
balancer:
	$(call debian,command -v haproxy,haproxy,the balancer before several nodes,Debian's own settings for it listen to nobody. Ours are in target/cluster)

postgres:
	$(call debian,{ ls /usr/lib/postgresql/1[5-9]/bin/initdb || command -v initdb; },postgresql-15,the tests of the store in PostgreSQL,$(NO_CLUSTER_MADE),$(NO_CLUSTER),create_main_cluster = false)
	$(call debian,test -x /usr/sbin/pgbouncer,pgbouncer,the tests of a pooler before PostgreSQL,$(NO_POOLER_MADE),$(NO_POOLER),[Unit]\nConditionPathExists=/etc/pgbouncer/to_be_run)

python:
	$(call debian,python3 -c 'import ensurepip',python3-venv,the Python clients)

components:
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || { \
	    echo "Installing rustfmt and clippy (rustup)"; rustup component add rustfmt clippy; }

clients: $(NPM) $(VENVS) $(KONTEXT)

# A crate by itself, with what it needs apart from ours. Its reqwest speaks TLS with the system's OpenSSL.
$(KONTEXT): $(CLIENTS)/kontext/Cargo.toml $(CLIENTS)/kontext/Cargo.lock $(CLIENTS)/kontext/src/main.rs | compiler openssl
	@echo "Building Kontext's published Rust client (crates.io) into target/clients; this takes about a minute, once"
	@CARGO_TARGET_DIR=target/clients/kontext cargo build --quiet --locked --manifest-path $<
	@touch $@

$(NPM): $(CLIENTS)/package.json $(CLIENTS)/package-lock.json
	@echo "Installing the official MCP SDKs, servers and conformance suite, mcp-proxy, and the OpenAPI tools (npm) into $(CLIENTS)/node_modules"
	@npm ci --prefix $(CLIENTS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(CLIENTS)/.venv/installed: $(CLIENTS)/requirements.lock
$(CLIENTS)/.venv-v1/installed: $(CLIENTS)/requirements-v1.lock
$(VENVS): | python
	@echo "Installing the official Python MCP SDK and what $(<F:.lock=.in) names beside it: $$(sed -n 's/==.*//p' $(<:.lock=.in) | tr '\n' ' ')(PyPI) into $(@D)"
	@python3 -m venv --clear $(@D)
	@# The locks are whole; left to look for more, older pips take the extras of a package for packages that are not locked.
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

$(CARGO_DENY): | compiler
	@echo "Installing cargo-deny 0.20.2 (crates.io) into target/tools; this takes a few minutes"
	@cargo install --quiet --locked --root target/tools/cargo-deny-0.20.2 cargo-deny@0.20.2

$(PEERS)/cargo/bin/mcp-proxy: | compiler
	@echo "Building mcp-proxy 0.6.0 (crates.io) into $(PEERS)/cargo; this takes about twenty minutes"
	@CARGO_TARGET_DIR=$(PEERS)/build cargo install --quiet --locked --root $(PEERS)/cargo mcp-proxy@0.6.0
	@rm -rf $(PEERS)/build

$(PEERS)/npm/node_modules/.package-lock.json: benches/peers/npm/package.json benches/peers/npm/package-lock.json benches/peers/npm/over-http.mjs
	@echo "Installing mcp-proxy (npm) into $(PEERS)/npm"
	@mkdir -p $(PEERS)/npm && cp $^ $(PEERS)/npm
	@npm ci --prefix $(PEERS)/npm --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(PEERS)/contextforge/installed: benches/peers/contextforge.lock | python
	@echo "Installing mcp-contextforge-gateway (PyPI) into $(PEERS)/contextforge"
	@python3 -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
