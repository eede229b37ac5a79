# `make demo` and `make test` need nothing but Python >= 3.10; both create .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all lint format clean

$(VENV)/.demo: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing kshot into $(VENV) (about a minute)"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "Installing the tools of the tests"
	@$(INSTALL) --editable '.[test]'
	@touch $@

demo: $(VENV)/.demo  ## train three learners on glyphs, compare them on unseen scripts, write a picture
	@$(BIN)/kshot demo

test: $(VENV)/.test  ## the tests, in minutes
	@$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.test  ## the slow tests, too
	@$(BIN)/python -m pytest

lint: $(VENV)/.test  ## style, docstrings and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
