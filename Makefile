# make check   style, types, import contracts, unit + property + simulation tests    under two minutes
# make test    all of it, with real daemons, ZODB's own suites, private MariaDB and PostgreSQL servers
# make soak    hours: simulation and nemesis with seeds that nobody has seen, ZODB's suites while storages are killed
# make demo    a cluster, and a real job on it (FS=path/to/Data.fs to bring your own data)
# make bench   figures, beside ZEO's; then bench-databases: MariaDB and PostgreSQL, beside RelStorage and NEO/py on them
# Each makes its own virtual environment in .venv and keeps it up to date.

PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
# Those that run daemons wait for them half of the time.
SLOW_JOBS ?= 3

CONFIGS := requirements-dev.txt $(wildcard packages/*/pyproject.toml) packages/neo-common/setup.py
COMPILED := $(wildcard packages/neo-common/src/neo_common/*/*.pyx packages/neo-common/src/neo_common/*/*.pxd) \
            packages/neo-common/src/neo_common/wire/schema.py
FAST := $(wildcard tests/unit tests/property tests/simulation tests/transcripts) packages

.PHONY: check test servers soak demo bench bench-databases venv lint fast clean

check: lint fast

test: check servers
	$(BIN)/pytest --no-skips -q -m slow -n $(SLOW_JOBS) --dist loadgroup

soak: servers
	$(BIN)/pytest -q -rA -m soak tests/nemesis tests/zodb
	$(BIN)/pytest -q -m soak tests/simulation

# MariaDB, PostgreSQL and their drivers: for `make test` only. Debian and Ubuntu packages, where the machine allows it.
# MySQL, where its packages can be had: unpacked into .venv, not installed.
servers: .venv/.drivers
	@tests/support/install_servers.sh
	@tests/support/install_mysql.sh .venv/servers

.venv/.drivers: .venv/.installed requirements-test.txt
	@tests/support/install_servers.sh
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: venv
	$(BIN)/pytest --no-skips -q -n $(JOBS) -m "not slow" $(FAST)

demo: venv
	$(BIN)/python -m demo $(if $(FS),--source "$(FS)")

bench: venv
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks
	$(MAKE) bench-databases

# Short: make bench-databases BENCH="--scale 0.2 --runs 1"
bench-databases: servers
	$(BIN)/python -m benchmarks.databases $(BENCH)

venv: .venv/.built

# Packages and tools: again when a list of them has changed.
.venv/.installed: $(CONFIGS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "NEO needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || \
	  { echo "The C headers of $(PYTHON) are missing. On Debian and Ubuntu: apt install python3-dev"; exit 1; }
	@command -v $${CC:-cc} >/dev/null || \
	  { echo "A C compiler is needed for the codec. On Debian and Ubuntu: apt install gcc"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip "setuptools>=77" "Cython>=3.1,<4"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -r requirements-dev.txt
	@touch $@

# The compiled extensions: again when their sources, or the schema that they are made from, have changed.
.venv/.built: .venv/.installed $(COMPILED)
	cd packages/neo-common && ../../$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

clean:
	rm -rf .venv build packages/*/build packages/*/src/*.egg-info packages/neo-common/src/neo_common/*/*.so
