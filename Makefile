# One venv for everything; each target sets up what it needs, and is fast the second time.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# uv resolves and installs in a minute what takes pip four; --no-cache-dir would double the downloads of make clean && make test
$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "dlzoo needs Python 3.11 to 3.13: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --editable ".[dev]"
	touch $@

.PHONY: setup
setup: $(STAMP) ## make the virtual environment

.PHONY: train
train: $(STAMP) ## the main job: handwritten digits, no download (make train ARGS="experiment=cifar10_resnet")
	$(BIN)/python train.py $(ARGS)

.PHONY: test
test: $(STAMP) ## the tests, offline, in minutes (make test ARGS="-k resnet")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not gpu" $(ARGS)

# apart from the rest: it is built here, against the torch that is installed, and most machines have no use for it
$(STAMP)-deepspeed: $(STAMP)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --editable ".[deepspeed]"
	touch $@

.PHONY: test-slow
test-slow: $(STAMP)-deepspeed ## the slow tests: real data, every size, all commands, several processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "slow and not long and not gpu" $(ARGS)

.PHONY: test-long
test-long: $(STAMP)-deepspeed ## the longest tests, further cases of what is tested otherwise; before a release
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "long and not gpu" $(ARGS)

# the only test that needs a package index: the wheel with all that it asks for, and nothing else
.PHONY: test-wheel
test-wheel: $(STAMP) ## the wheel in an empty environment, run from an empty folder
	rm -rf build/wheel && mkdir -p build/wheel/folder
	$(BIN)/python -m hatchling build -t wheel -d build/wheel
	$(PYTHON) -m venv build/wheel/venv
	VIRTUAL_ENV=$(abspath build/wheel/venv) $(BIN)/uv pip install --quiet build/wheel/dlzoo-*.whl
	cd build/wheel/folder && ../venv/bin/dlzoo list models && ../venv/bin/dlzoo train debug=smoke trainer=cpu

.PHONY: lint
lint: $(STAMP) ## what CI says of the form
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

.PHONY: format
format: $(STAMP) ## put the form right
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

.PHONY: bench
bench: $(STAMP) ## speed beside what one would run instead
	OMP_NUM_THREADS=1 $(BIN)/python scripts/bench.py $(ARGS)

.PHONY: test-kill
test-kill: $(STAMP) ## trainings killed at random and gone on with (make test-kill ARGS="--kills 20"; CIFAR-10 in DLZOO_DATA)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/kill_test.py $(ARGS)

.PHONY: docs
docs: $(STAMP) ## the generated parts of README.md, RESULTS.md and docs/reliability.md
	$(BIN)/python scripts/results.py render
	$(BIN)/python scripts/readme.py
	$(BIN)/python scripts/reliability.py render

.PHONY: clean
clean: ## remove the environment and what was built; runs stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
