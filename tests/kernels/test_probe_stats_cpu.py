"""The C++ backend against the oracle: every dtype, every instruction set of this machine."""

import pytest
import torch

from ssdfast.kernels import probe_stats

from .cases import CASES, assert_matches_oracle, make

pytest.importorskip("ssdfast.kernels._C")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def _can_run(isa: str) -> bool:
    flags = torch.backends.cpu.get_cpu_capability()
    return isa == "portable" or flags == "AVX512" or (isa == "avx2" and flags == "AVX2")


ISAS = [pytest.param(isa, marks=pytest.mark.skipif(not _can_run(isa), reason="not on this processor"))
        for isa in ("avx512", "avx2", "portable")]  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_matches_the_oracle(case, dtype, isa, monkeypatch):
    if case.large and isa != "avx512" and dtype != torch.bfloat16:
        pytest.skip("large rows: one dtype is enough off the main path")
    monkeypatch.setenv("SSDFAST_CPU", isa)
    a, b, token = make(case, dtype)
    assert_matches_oracle(probe_stats(a, b, token, case.spec, backend="cpu"), a, b, token, case.spec)
