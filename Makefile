# Debian's python3.11 can come without ensurepip, so the first one that can make a venv is taken.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& command -v $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VENV_NEWEST := .venv-newest
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: install demo test test-fast test-newest soak bench constraints clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) "pip>=25.1"
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable ".[aws]" --group dev
	touch $@

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" cloudops run examples/release.yaml
	@echo "The Prefect server keeps running, so that you can look at the run; to stop it: $(BIN)/cloudops server stop"

# `ARGS='tests/test_cli.py -k resume'` runs a part of the tests, here and below.
test: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(ARGS)

# The tests that need no Prefect server and no processor for long, in less than a minute.
test-fast: install
	$(BIN)/python -m pytest -m "not server and not slow" $(ARGS)

# The same tests with the newest release of everything that pyproject.toml allows, as users get it:
# no constraints, in an environment that is made anew each time.
test-newest:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed" >&2; exit 1; }
	rm -rf $(VENV_NEWEST)
	$(PYTHON) -m venv $(VENV_NEWEST)
	$(VENV_NEWEST)/bin/python $(PIP_INSTALL) --upgrade pip
	$(VENV_NEWEST)/bin/python $(PIP_INSTALL) --editable ".[aws]" --group dev
	$(VENV_NEWEST)/bin/python -m pytest $(ARGS)

# What make test prints 200 MB for, with a gigabyte, its 12 runs on two workers as 200, and an API that
# is away for half a minute, not for a moment.
soak: install
	CLOUDOPS_SOAK=1 CLOUDOPS_TEST_OUTAGE=30 $(BIN)/python -m pytest tests/test_memory.py tests/test_two_workers.py tests/test_api_away.py

# Beside plain Prefect and prefect-shell; `ARGS='--only stops'` measures a part, `--quick` tries it.
bench: install
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --group bench
	$(BIN)/python -m benchmarks $(ARGS)

# Plain name==version lines and no lock file: where a package comes from is each machine's own setting.
constraints:
	set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(PYTHON) -m venv "$$fresh"; \
	"$$fresh"/bin/python $(PIP_INSTALL) "pip>=25.1"; \
	"$$fresh"/bin/python $(PIP_INSTALL) ".[aws]" --group dev --group bench; \
	"$$fresh"/bin/python -m pip freeze --exclude cloudops-prefect > "$$fresh"/all; \
	grep -E '^[A-Za-z0-9._-]+==[^ ]+$$' "$$fresh"/all > constraints.txt

clean:
	rm -rf $(VENV) $(VENV_NEWEST) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
