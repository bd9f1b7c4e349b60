# `make run`: the whole pipeline on the bundled data. `make test`: every test. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
# The suites of one test process must not fight over cores with those of the next.
WORKERS ?= auto

.PHONY: run test lint setup clean

run: $(READY)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash phases/run_all.sh

test: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) --dist worksteal

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

setup: $(READY)

$(READY): requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .ruff_cache
