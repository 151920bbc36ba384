"""Every Triton kernel compiles for every target and keeps its values in registers. No GPU is needed."""

import dataclasses
import os

import pytest
import torch
import triton

from ssdfast.kernels import ProbeSpec
from ssdfast.kernels.backends import implementation
from ssdfast.kernels.probe_stats import triton as backend

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter is on, and nothing can be compiled beside it", allow_module_level=True)

from . import resources

pytestmark = pytest.mark.aot
LAUNCHES = {target: resources.shipped(target) for target in resources.TARGETS}
SHARED_BYTES = {
    "sm_80": 99 << 10,
    "sm_90": 227 << 10,
    "sm_100": 227 << 10,
    "gfx942": 64 << 10,
}  # sm_80 also serves sm_89

ALLOWED_BYTES = 0 if triton.__version__.startswith("3.7.") else 16
"""A thread's. Other versions than that of constraints.txt allocate registers a little otherwise, and some kernels then
keep two values of a row on the stack."""


def by_name(launches):
    """The launches of each name: which of them differ only in alignment depends on where the tensors lie."""
    names = {}
    for launch in launches:
        names.setdefault(str(launch), []).append(launch)
    return names


@pytest.mark.parametrize(
    ("target", "launches"),
    [
        pytest.param(target, launches, id=f"{target} {name}")
        for target, every in LAUNCHES.items()
        for name, launches in by_name(every).items()
    ],
)
def test_nothing_is_spilled(target, launches):
    for launch in launches:
        resources_used = resources.measure(launch, resources.TARGETS[target])
        assert resources_used.spilled <= ALLOWED_BYTES
        assert resources_used.shared_bytes <= SHARED_BYTES[target]


def test_a_spill_would_be_seen():
    """Measured on tiles that are given a quarter of their warps."""
    for name, target in resources.TARGETS.items():
        tiles = next(x for x in LAUNCHES[name] if x.fn.__name__ == "tile_states")
        few_warps = dataclasses.replace(tiles, num_warps=tiles.num_warps // 4)
        assert resources.measure(few_warps, target).spilled > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_says_why_it_cannot_run():
    with pytest.raises(RuntimeError, match="needs a CUDA or HIP device"):
        implementation("probe_stats", "triton", torch.float32)


def test_refuses_cpu_tensors():
    with pytest.raises(ValueError, match="takes GPU tensors, got cpu"):
        backend.probe_stats_packed(torch.zeros(1, 9), None, torch.zeros(1, dtype=torch.int64), ProbeSpec())


def test_all_kernels_are_measured():
    names = {launch.fn.__name__ for launch in LAUNCHES["sm_90"]}
    assert names == {
        "token_logits", "first_sweep", "first_sweep_exact", "class_masses", "choose_pivot", "second_sweep",
        "second_sweep_exact", "merge_model", "top_tokens", "merge_one_sweep", "merge_two_sweeps", "compare_lists",
        "nucleus_sizes", "tile_states", "merge_tiles", "products_at", "soft_label_rows",
    }  # fmt: skip


def test_rows_are_read_128_bits_at_a_time():
    """Where the row stride allows it: 8 logits of 16 bits a load."""
    sweep = next(x for x in LAUNCHES["sm_90"] if x.fn.__name__ == "first_sweep")
    assert "ld.global.v4.b32" in resources.compiled(sweep, resources.TARGETS["sm_90"]).asm["ptx"]


def test_tiles_are_multiplied_by_tensor_cores():
    """wgmma on Hopper, fed by asynchronous copies of 16 bytes."""
    tiles = next(x for x in LAUNCHES["sm_90"] if x.fn.__name__ == "tile_states")
    ptx = resources.compiled(tiles, resources.TARGETS["sm_90"]).asm["ptx"]
    assert "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16" in ptx
    assert "cp.async.cg.shared.global" in ptx
