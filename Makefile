# Each target sets up what it needs in .venv; nothing has to be typed first.
#
#   make run      the whole system, with demonstration accounts; Ctrl-C stops it
#   make test     all tests; prints what was skipped and why
#   make check    format, lint, types, import directions
#   make torture  faults against a system of its own: ten minutes of all kinds, then each planted
#                 bug, which must be caught (about five minutes more); MINUTES=1 for a taste
#   make setup    only the environment, with everything that the tests need
#   make bench    measures the promises about speed; ARGS="--only batches"

# Override on the command line: make run STORE=hazelcast ARGS="--http 127.0.0.1:8000"
STORE ?= sqlite
ARGS ?=
# One more than there are cores, up to four: many tests wait for processes.
JOBS ?= $(shell [ "$$(nproc 2>/dev/null || echo 2)" -gt 2 ] && echo 4 || echo 3)
SEED ?= 1
MINUTES ?= 8
PYTHON ?= $(shell command -v python3.11 || command -v python3)

VENV := .venv
BIN := $(VENV)/bin
# pip reads these; a stamp older than them means that the environment is out of date.
DECLARED := setup.cfg pyproject.toml
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := run
.PHONY: run test torture setup check bench clean

ifeq ($(STORE),hazelcast)
run: $(VENV)/.stamp-hazelcast
endif
run: $(VENV)/.stamp-run
	@$(BIN)/rmi up --demo --store $(STORE) $(ARGS)

# In parallel, a file at a time, in order: the longest files are those that come first. JOBS=0 runs
# them one after the other. Hundreds of processes are started, so what they load is compiled once.
test: $(VENV)/.stamp-test
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest \
		-n $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# Each step of a commit first; then the mix, of so many minutes' work; then the planted bugs. Each
# says beforehand how long it will take, and Ctrl-C ends it with a verdict on what ran.
torture: $(VENV)/.stamp-hazelcast
	$(BIN)/rmi torture --steps --seed $(SEED)
	$(BIN)/rmi torture --mix --minutes $(MINUTES) --seed $(SEED)
	$(BIN)/rmi torture --bug all --seed $(SEED)

setup: $(VENV)/.stamp-test

check: $(VENV)/.stamp-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.stamp-bench
	$(BIN)/rmi bench $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=/path/to/python3.11"; \
		exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.stamp-run: $(DECLARED) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.stamp-hazelcast: $(DECLARED) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[hazelcast]'
	@touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-bench: $(DECLARED) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[bench,hazelcast]'
	@touch $@ $(VENV)/.stamp-run $(VENV)/.stamp-hazelcast

$(VENV)/.stamp-test: $(DECLARED) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,hazelcast]'
	@touch $@ $(VENV)/.stamp-run $(VENV)/.stamp-hazelcast
