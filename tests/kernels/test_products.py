"""The products of csrc/ on every instruction set that runs here, and that of the matrix unit wherever x86-64 runs.

For the latter csrc/linear_amx.cpp itself is compiled, its tiles, copies, parts and turned stores, with a unit in plain
C++ in place of the processor's. On a processor with the unit, the tests of ``linear_probe_stats`` run it too.
"""

import ctypes
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from ssdfast.kernels import LmHead, lm_head_logits
from ssdfast.kernels.linear_probe_stats.logits import multiplies_in

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
  const Product& amx = amx::PRODUCT;
  std::vector<uint32_t> packed(amx.packed_size(job), 0x7fc07fc0);
  amx.pack_hidden(job, packed.data());
  const long panels = (v + amx.panel - 1) / amx.panel;
  for (long t = 0; t < threads; ++t) amx.panels(job, packed.data(), panels * t / threads, panels * (t + 1) / threads);
  return emulated::loads_behind_end;
}
"""


COMPILER = shutil.which(os.environ.get("CXX", "c++"))
CAPABILITY = torch.backends.cpu.get_cpu_capability()
LIBC = ctypes.CDLL(None, use_errno=True)
PRODUCTS = [("amx", torch.bfloat16)] + [(isa, t) for isa in ("avx512", "avx2") for t in (torch.bfloat16, torch.float32)]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The product of csrc/linear_amx.cpp, checked by the compiler for undefined behaviour."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
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

    def multiply(hidden_NH, weight_VH, out_NV, threads, weight_end):
        strides = hidden_NH.stride(0), weight_VH.stride(0)
        loads_behind_end = function(
            hidden_NH.data_ptr(), weight_VH.data_ptr(), *out_NV.shape, hidden_NH.shape[1], *strides,
            out_NV.data_ptr(), out_NV.stride(0), threads, weight_end,
        )  # fmt: skip
        assert loads_behind_end == 0

    return multiply


@pytest.fixture(params=PRODUCTS, ids=lambda p: f"{p[0]}-{str(p[1])[6:]}")
def dtype_and_product(request, monkeypatch):
    """A dtype and ``product(hidden_NH, weight_VH, threads, weight_end)`` of one instruction set."""
    isa, dtype = request.param
    if CAPABILITY not in ("AVX2", "AVX512"):
        pytest.skip("not on this processor")
    if isa == "amx":
        into = request.getfixturevalue("emulated")
    else:
        pytest.importorskip("ssdfast.kernels._C")
        monkeypatch.setenv("SSDFAST_CPU", isa)
        if multiplies_in(dtype) != isa:
            pytest.skip("not on this processor")

        def into(hidden_NH, weight_VH, out_NV, threads, weight_end):
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                lm_head_logits(hidden_NH, LmHead(weight_VH), out_NV)
            finally:
                torch.set_num_threads(before)

    def product(hidden_NH, weight_VH, threads=1, weight_end=None):
        n, v = len(hidden_NH), len(weight_VH)
        out = torch.full((n + 1, v + 3), float("nan"))  # a guard row and three guard columns
        into(hidden_NH, weight_VH, out[:n, :v], threads, weight_end)
        assert out[n:].isnan().all()
        assert out[:, v:].isnan().all()
        return out[:n, :v]

    return dtype, product


def operands(n, v, h, dtype, room=0):
    """Matrices whose rows are followed by `room` elements of NaN."""
    generator = torch.Generator().manual_seed(n + v + h)
    made = []
    for rows in (n, v):
        memory = torch.full((rows, h + room), float("nan"), dtype=dtype)
        memory[:, :h] = torch.randn(rows, h, generator=generator)
        made.append(memory[:, :h])
    return made


# Rows: one, less than a tile, a whole one, one more than a tile, two, more. Entries: less than a tile, a panel of each
# instruction set (24, 32, 48), a remainder in each tile. Elements: one, odd, a whole step, a remainder, several parts.
@pytest.mark.parametrize("v", [1, 15, 24, 32, 33, 48, 83])
@pytest.mark.parametrize("h", [1, 7, 32, 63, 576, 1300])
def test_is_the_product(dtype_and_product, v, h):
    dtype, product = dtype_and_product
    for n in (1, 3, 4, 16, 17, 32, 50):
        hidden, weight = operands(n, v, h, dtype, room=5)
        exact = hidden.double() @ weight.double().T
        bound = hidden.double().abs() @ weight.double().abs().T  # the rounding of a sum is relative to this
        assert ((product(hidden, weight) - exact).abs() <= 2e-6 * bound).all(), n


@pytest.mark.parametrize(("v", "h"), [(5, 64), (24, 64), (32, 64), (45, 70), (64, 33)])
def test_nothing_behind_the_head_is_read(dtype_and_product, v, h):
    dtype, product = dtype_and_product
    hidden, weight = operands(3, v, h, dtype)
    size = dtype.itemsize * v * h
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = mmap.mmap(-1, pages + mmap.PAGESIZE)
    memory = torch.frombuffer(whole, dtype=torch.uint8)
    end = memory.data_ptr() + pages
    assert LIBC.mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, 0) == 0  # a read of the last page ends the process
    last = memory[pages - size : pages].view(dtype).view(v, h)
    last.copy_(weight)
    assert torch.equal(product(hidden, last, weight_end=end), product(hidden, weight))


def test_threads_that_share_the_panels_give_the_same_bits(dtype_and_product):
    dtype, product = dtype_and_product
    hidden, weight = operands(20, 200, 96, dtype)
    assert torch.equal(product(hidden, weight, 1), product(hidden, weight, 3))


def test_a_row_does_not_depend_on_the_others(dtype_and_product):
    dtype, product = dtype_and_product
    hidden, weight = operands(40, 70, 450, dtype)
    together = product(hidden, weight)
    assert torch.equal(torch.cat([product(hidden[i : i + 1], weight) for i in range(40)]), together)


def test_what_is_not_finite_stays_in_its_row_and_entry(dtype_and_product):
    dtype, product = dtype_and_product
    hidden, weight = operands(34, 66, 70, dtype)
    hidden[3, 69], weight[33, 0] = float("nan"), float("inf")
    out = product(hidden, weight)
    affected = torch.zeros(34, 66, dtype=torch.bool)
    affected[3], affected[:, 33] = True, True
    assert torch.equal(out.isfinite(), ~affected)


def test_rounding_does_not_grow_with_h(dtype_and_product):
    dtype, product = dtype_and_product
    hidden, weight = operands(16, 32, 16_384, dtype)
    hidden, weight = hidden.abs(), weight.abs()
    exact = hidden.double() @ weight.double().T
    assert ((product(hidden, weight) - exact).abs() / exact).max() < 4e-6
