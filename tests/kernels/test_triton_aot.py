"""Every Triton kernel compiles for every target and keeps its values in registers. No GPU is needed."""

import dataclasses
import os

import pytest
import torch

from ssdfast.kernels import ProbeSpec
from ssdfast.kernels.backends import implementation
from ssdfast.kernels.probe_stats import triton as backend

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter is on, and nothing can be compiled beside it", allow_module_level=True)

from . import resources

pytestmark = pytest.mark.aot
LAUNCHES = resources.shipped()


@pytest.mark.parametrize("target", resources.TARGETS)
@pytest.mark.parametrize("launch", LAUNCHES, ids=str)
def test_nothing_is_spilled(launch, target):
    assert resources.measure(launch, resources.TARGETS[target]).spilled == 0


def test_a_spill_would_be_seen():
    """Measured on a sweep that is given a quarter of its warps."""
    sweep = next(x for x in LAUNCHES if x.fn.__name__ == "first_sweep")
    for target in resources.TARGETS.values():
        assert resources.measure(dataclasses.replace(sweep, num_warps=1), target).spilled > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_says_why_it_cannot_run():
    with pytest.raises(RuntimeError, match="needs a CUDA or HIP device"):
        implementation("probe_stats", "triton", torch.float32)


def test_refuses_cpu_tensors():
    with pytest.raises(ValueError, match="takes GPU tensors, got cpu"):
        backend.probe_stats_packed(torch.zeros(1, 9), None, torch.zeros(1, dtype=torch.int64), ProbeSpec())


def test_all_kernels_are_measured():
    names = {launch.fn.__name__ for launch in LAUNCHES}
    assert names == {
        "first_sweep", "second_sweep", "merge_model", "top_tokens", "merge_one_sweep", "merge_two_sweeps",
        "compare_lists", "digit_masses", "choose_digit",
    }  # fmt: skip


def test_rows_are_read_128_bits_at_a_time():
    """Where the row stride allows it: 8 logits of 16 bits a load."""
    sweep = next(x for x in LAUNCHES if x.fn.__name__ == "first_sweep")
    assert "ld.global.v4.b32" in resources.compiled(sweep, resources.TARGETS["sm_90"]).asm["ptx"]
