# personae: `make demo` shows it, `make test` tests it; both set up what they need.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test lint fuzz setup toon tiny clean
.DEFAULT_GOAL := demo

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: setup  ## Train the shipped character, draw it, write a contact sheet and a page
	$(BIN)/personae demo --out demo

test: setup lint $(VENV)/quantised/torchao  ## Run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
	PYTHONPATH=$(VENV)/quantised $(BIN)/python -m pytest -n auto --maxprocesses 2 tests/models/weights/test_quantised.py

# In a folder of its own: where torchao is there, every start of the other libraries takes longer.
$(VENV)/quantised/torchao: | setup
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/quantised torchao==0.18.0

lint: setup
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

FUZZ_SECONDS ?= 3600
fuzz: setup  ## Feed damaged files to every reader, as a nightly job does
	$(BIN)/pip install --quiet --disable-pip-version-check atheris==3.0.0
	$(BIN)/python benchmarks/fuzz_readers.py -max_total_time=$(FUZZ_SECONDS)

toon: setup  ## Render the data and train the embedded base anew (hours)
	$(MAKE) -C recipes/toon toon PYTHON=$(abspath $(BIN)/python)

tiny: setup  ## Run every step of the embedded base's recipe in minutes, as CI does
	$(MAKE) -C recipes/toon tiny PYTHON=$(abspath $(BIN)/python)

clean:
	rm -rf demo runs build dist
