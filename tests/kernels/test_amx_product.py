"""The product of the matrix unit, with a unit in plain C++ in its place, so that every x86-64 machine can test it.

What is compiled is csrc/linear_amx.cpp itself: its tiles, copies, parts and turned stores. On a processor with the
unit, the tests of ``linear_probe_stats`` run it too.
"""

import ctypes
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
WRAPPER = """
#include SSDFAST_TILES
#include "linear_logits.h"
#include <vector>
using namespace ssdfast;

extern "C" long product(const uint16_t* hidden, const uint16_t* weight, long n, long v, long h, long stride_hidden,
                        long stride_weight, float* out, long stride_out, long threads, const char* weight_end) {
  emulated::end = weight_end;
  emulated::loads_behind_end = 0;
  const LinearJob job{hidden, weight, n, v, h, stride_hidden, stride_weight, out, stride_out, true};
  std::vector<uint32_t> packed(amx::packed_size(job), 0x7fc07fc0);
  amx::pack_hidden(job, packed.data());
  const long panels = (v + amx::PANEL - 1) / amx::PANEL;
  for (long t = 0; t < threads; ++t) amx::panels(job, packed.data(), panels * t / threads, panels * (t + 1) / threads);
  return emulated::loads_behind_end;
}
"""


COMPILER = shutil.which(os.environ.get("CXX", "c++"))
CAPABILITY = torch.backends.cpu.get_cpu_capability()

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler"),
    pytest.mark.skipif(CAPABILITY not in ("AVX2", "AVX512"), reason="not on this processor"),
]


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    directory = tmp_path_factory.mktemp("amx")
    (directory / "wrapper.cpp").write_text(WRAPPER)
    library = directory / "product.so"
    unit = ROOT / "tests" / "kernels" / "emulated_tiles.h"
    subprocess.run(
        [COMPILER, "-O2", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-fsanitize=undefined",
         "-fno-sanitize-recover=undefined", f'-DSSDFAST_TILES="{unit}"', f"-I{ROOT / 'csrc'}",
         ROOT / "csrc" / "linear_amx.cpp", directory / "wrapper.cpp", "-o", library],
        check=True,
    )  # fmt: skip
    function = ctypes.CDLL(str(library)).product
    pointer, integer = ctypes.c_void_p, ctypes.c_long
    function.argtypes = [pointer, pointer, *[integer] * 5, pointer, integer, integer, pointer]
    function.restype = ctypes.c_long

    def multiply(hidden_NH, weight_VH, threads=1, weight_end=None):
        n, v = len(hidden_NH), len(weight_VH)
        out = torch.full((n + 1, v + 3), float("nan"))  # a guard row and three guard columns
        strides = hidden_NH.stride(0), weight_VH.stride(0)
        loads_behind_end = function(
            hidden_NH.data_ptr(), weight_VH.data_ptr(), n, v, hidden_NH.shape[1], *strides,
            out.data_ptr(), out.stride(0), threads, weight_end,
        )  # fmt: skip
        assert loads_behind_end == 0
        assert out[n:].isnan().all()
        assert out[:, v:].isnan().all()
        return out[:n, :v]

    return multiply


def operands(n, v, h, room=0):
    """Matrices whose rows are followed by `room` elements of NaN."""
    generator = torch.Generator().manual_seed(n + v + h)
    made = []
    for rows in (n, v):
        memory = torch.full((rows, h + room), float("nan"), dtype=torch.bfloat16)
        memory[:, :h] = torch.randn(rows, h, generator=generator)
        made.append(memory[:, :h])
    return made


# Rows: one, a whole tile, one more than a tile, two, more. Entries: less than a tile, one panel, a remainder in each
# tile. Elements: one, odd, a whole step, a remainder, more than one part.
@pytest.mark.parametrize("n", [1, 16, 17, 32, 50])
@pytest.mark.parametrize("v", [1, 15, 32, 33, 83])
@pytest.mark.parametrize("h", [1, 32, 63, 576, 1300])
def test_is_the_product(product, n, v, h):
    hidden, weight = operands(n, v, h, room=5)
    exact = hidden.double() @ weight.double().T
    bound = hidden.double().abs() @ weight.double().abs().T  # the rounding of a sum is relative to this
    assert ((product(hidden, weight) - exact).abs() <= 2e-6 * bound).all()


@pytest.mark.parametrize(("v", "h"), [(5, 64), (32, 64), (45, 70), (64, 33)])
def test_nothing_behind_the_head_is_read(product, v, h):
    hidden, weight = operands(3, v, h)
    size = 2 * v * h
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = torch.frombuffer(mmap.mmap(-1, pages + mmap.PAGESIZE), dtype=torch.bfloat16)  # the last page is the guard
    last = memory[(pages - size) // 2 : pages // 2].view(v, h)
    last.copy_(weight)
    end = memory.data_ptr() + pages
    assert torch.equal(product(hidden, last, weight_end=end), product(hidden, weight))


def test_threads_that_share_the_panels_give_the_same_bits(product):
    hidden, weight = operands(20, 200, 96)
    assert torch.equal(product(hidden, weight, 1), product(hidden, weight, 3))


def test_a_row_does_not_depend_on_the_others(product):
    hidden, weight = operands(40, 70, 130)
    together = product(hidden, weight)
    assert torch.equal(torch.cat([product(hidden[i : i + 1], weight) for i in range(40)]), together)


def test_what_is_not_finite_stays_in_its_row_and_entry(product):
    hidden, weight = operands(34, 66, 70)
    hidden[3, 69], weight[33, 0] = float("nan"), float("inf")
    out = product(hidden, weight)
    affected = torch.zeros(34, 66, dtype=torch.bool)
    affected[3], affected[:, 33] = True, True
    assert torch.equal(out.isfinite(), ~affected)


def test_rounding_does_not_grow_with_h(product):
    hidden, weight = operands(16, 32, 16_384)
    hidden, weight = hidden.abs(), weight.abs()
    exact = hidden.double() @ weight.double().T
    assert ((product(hidden, weight) - exact).abs() / exact).max() < 4e-6
