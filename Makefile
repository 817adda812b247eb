# Each target does its own set-up, in a virtual environment of its own.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SETUP = $(VENV)/.installed
PLAIN = $(VENV)/.installed-plain

.PHONY: demo test test-all lint docs clean

demo: $(PLAIN)  ## watch a TimeSformer learn to tell motions apart, on generated videos
	$(BIN)/timesformer demo

test: lint  ## lint, types and the default tests
	$(BIN)/pytest -n 2 --dist worksteal -q

test-all: lint  ## the slow tests too
	$(BIN)/pytest -n 2 --dist worksteal -q -m ""

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(SETUP)  ## the documentation as a site, in site/
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(PLAIN): pyproject.toml constraints.txt  # what the package itself needs
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(SETUP): $(PLAIN)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) site
