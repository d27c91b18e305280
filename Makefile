# `make` alone lists what can be done. Everything runs in .venv, made from requirements.lock with nothing but a Python.

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# The first Python that runs and is new enough (a name that exists may be a shim of a version that does not).
FIND_PYTHON = for p in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && exit; done; \
	echo "hdi needs Python 3.11 or newer: none was found (make PYTHON=/path/to/python names one)" >&2; exit 1

.DEFAULT_GOAL := help
.PHONY: help install demo test torture laws fuzz audit check bench docs docs-check docs-validate site lock clean timescaledb timescaledb-stop

help:
	@echo "make demo        the whole job on synthetic data, in a fresh local lake"
	@echo "make test        the test suite"
	@echo "make torture     1,000 kills at random moments, and faults, into docs/torture.md; an hour: KILLS=100 for fewer"
	@echo "make laws        1,000 histories of orders bought for real, bytes and all, into each store; an hour"
	@echo "make fuzz        hostile bytes, settings, rules, statements and command lines: SECONDS=60 each, ONLY=dbn,yaml"
	@echo "make audit       known vulnerabilities of the locked packages; fails where that cannot be found out"
	@echo "make timescaledb a real TimescaleDB on this machine, without Docker (make timescaledb-stop stops it)"
	@echo "make check       format, lint, types, layers"
	@echo "make docs        write the generated documentation and configs/ again (make docs-check: is it current?)"
	@echo "make site        the guide as a site, in site/ (make docs-validate: links, commands and names in it)"
	@echo "make bench       benchmarks, side by side with peers"
	@echo "make lock        write requirements.lock again (UPGRADE=1: with the newest versions)"
	@echo "make clean       remove .venv and caches; never data"

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml scripts/bootstrap.py
	@python=$$($(FIND_PYTHON)) && echo "Making $(VENV) with $$python (a minute or two)" >&2 && \
		$$python scripts/bootstrap.py $(VENV)
	@touch $@

demo: $(STAMP)
	@$(VENV)/bin/hdi demo

# What is compiled is kept, whatever the environment says: tests start hundreds of processes.
test: $(STAMP)
	@PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

# As `make test` has them, but many more. ANYWAY=1 replaces a page that tells of more kills; with PART=1, what it says of
# tests that do not run (ARGS="-k replay") stays.
torture: $(STAMP)
	@$(PY) -m pytest -n 2 --dist worksteal -m "kill or fault" --kills $(or $(KILLS),1000) --torture-page docs \
		$(if $(ANYWAY),--torture-anyway) $(if $(PART),--torture-part) $(ARGS)

# As `make test` has them, but many more.
laws: $(STAMP)
	@HDI_TEST_LAWS=$${HDI_TEST_LAWS:-1000} $(PY) -m pytest tests/laws/test_buying_laws.py -k real $(ARGS)

fuzz: $(STAMP)
	@$(PY) -m fuzz --seconds $(or $(SECONDS),60) --only "$(ONLY)"

audit: $(STAMP)
	@$(PY) scripts/audit.py $(LOCK)

# Tests need no such call: the first that asks for a server starts it, the last stops it (tests/conftest.py).
timescaledb:
	@python=$$($(FIND_PYTHON)) && $$python scripts/timescaledb.py start $(ARGS)

timescaledb-stop:
	@python=$$($(FIND_PYTHON)) && $$python scripts/timescaledb.py stop $(ARGS)

check: $(STAMP)
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

docs: $(STAMP)
	@$(PY) -m hdi.docs_pages
	@$(PY) -m hdi.settings.written

docs-check: $(STAMP)
	@$(PY) -m hdi.docs_pages --check

docs-validate: $(STAMP)
	@$(PY) scripts/validate_docs.py

# Strict: a page that is missing, or an anchor, is an error. Nothing is fetched, then or when somebody reads it.
site: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --site-dir site $(ARGS)

bench: $(STAMP)
	@$(PY) -m benchmarks $(ARGS)

# Not uv.lock: that file writes the address of the registry beside every package, so it ties the repository to one
# registry. This one holds names, versions and digests, installs from any mirror, and needs only pip. Python 3.11 and
# newer, all platforms; with the development tools and the build backend.
lock:
	@test -x $(VENV)/bin/uv || $(MAKE) --no-print-directory install
	@$(VENV)/bin/uv pip compile pyproject.toml --group dev --group build --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --custom-compile-command "make lock" --quiet $(if $(UPGRADE),--upgrade) \
		--output-file requirements.lock
	@! grep -nE '://|^-' requirements.lock

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
