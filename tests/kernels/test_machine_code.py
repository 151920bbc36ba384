"""Bars on the instructions of the compiled kernels, so that no change loses their speed unseen. No GPU is needed."""

import os
import sys
from pathlib import Path

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter is on, and nothing can be compiled beside it", allow_module_level=True)

from ssdfast.kernels import ProbeSpec

from . import resources

pytestmark = pytest.mark.aot
BENCH = Path(__file__).resolve().parent.parent.parent / "bench"
V = 151_936


@pytest.fixture
def machine_code(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    known = set(sys.modules)
    import machine_code

    yield machine_code
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCH:
            del sys.modules[name]


# Instructions per logit on sm_90 in bf16. The memory of an H100 delivers a logit in the time of 17.7.
MOST_PER_LOGIT = {
    "first sweep, one model, no temperatures": 8,
    "first sweep, one model, five default temperatures": 17,
    "first sweep, two models and pair sums, no temperatures": 11,
    "first sweep, two models and pair sums, five default temperatures": 21,
    "second sweep, models alike (exact)": 20,
    "second sweep, models apart (direct)": 11,
    "masses of 12 classes": 20,
    "one of the reads for a long nucleus": 18,
}


def test_streaming_loops_stay_short(machine_code):
    """Nothing crosses threads within a loop but where tensor cores are fed."""
    streams = dict(machine_code.all_streams("sm_90"))
    assert streams.keys() == MOST_PER_LOGIT.keys()
    for name, most in MOST_PER_LOGIT.items():
        assert 4 < streams[name].per_logit <= most, f"{name}: {streams[name].per_logit}"
        assert streams[name].exchanges == 0 or "classes" in name, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_top_list_costs_little_beside_its_row(machine_code, dtype):
    kernel = machine_code.kernel_of("top_tokens", "sm_90", ProbeSpec(), False, dtype)
    assert kernel.launch.num_warps == 1
    assert 1 < 32 * len(machine_code.top_list(kernel)) / V <= 2.5


@pytest.mark.parametrize(("spec", "most"), [(resources.ONE_SWEEP, 20), (resources.TEMPERED, 30)])
def test_an_entry_of_a_tile_costs_few_instructions(machine_code, spec, most):
    kernel, entries = machine_code.tiles(spec)
    assert 10 < len(machine_code.tile_epilogue(kernel)) / entries <= most


def test_no_logit_leaves_the_registers(machine_code):
    """Neither a scratch tile nor a change of layout: what is written are a few numbers per row and group."""
    kernel, entries = machine_code.tiles(resources.ONE_SWEEP)
    names = [i.name for i in machine_code.tile_epilogue(kernel)]
    for name in ("STG", "STS", "STSM", "LDS", "STL", "LDL"):
        assert names.count(name) <= entries // 4, name
    assert names.count("MUFU") >= entries


def test_loops_run_as_often_as_they_are_told(machine_code):
    """A kernel's list loop costs as much again for every token of the list."""
    kernel = machine_code.kernel_of("top_tokens", "sm_90", ProbeSpec(), False)
    loop = kernel.loops[0]
    once, twice = (len(kernel.issued({loop: n})) for n in (1, 2))
    assert twice - once == len(kernel.inside(loop))
    assert len(kernel.issued({})) == once - len(kernel.inside(loop))
    assert not any(i.name == "EXIT" for i in kernel.issued({})[:-1] if not i.predicated)
