"""The row kernel of ``soft_label_ce`` through the table of hard cases."""

import pytest
import torch

from ssdfast.kernels import soft_label_ce
from ssdfast.kernels.soft_label_ce import gradients, triton, triton_rows

from .gpu import DEVICE, INTERPRETED, pytestmark, quick_interpreter  # noqa: F401
from .soft_label_cases import CASES, ask, assert_matches

# The interpreter cuts bits off where a GPU rounds to bf16: one bit less, which plain torch's error still covers.
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RUNS = [
    (case, dtype, reduction)
    for case in CASES
    for dtype in DTYPES
    for reduction in (("sum", "none") if dtype == torch.float32 else ("sum",))
    if not (dtype == torch.float16 and case.size > 1000)
]


@pytest.mark.parametrize(("case", "dtype", "reduction"), RUNS, ids=lambda x: getattr(x, "name", str(x)))
def test_matches_the_oracle(case, dtype, reduction, monkeypatch):
    if INTERPRETED and not case.large:
        monkeypatch.setattr(triton, "BLOCK", 512)  # more than one block per row
    p = case.make().to(dtype)
    assert_matches(ask(p.on(DEVICE), "triton", reduction), p)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chunks_of_rows_give_the_same(dtype, monkeypatch):
    p = next(case for case in CASES if case.name == "K = 20").make().to(dtype)
    monkeypatch.setattr(triton, "CHUNK_BYTES", 6 * 1003 * 16)
    monkeypatch.setattr(gradients, "SLICE_BYTES", 4 * 64 * 100)
    assert_matches(ask(p.on(DEVICE), "triton"), p)


def test_nan_of_a_labelled_row_is_not_hidden():
    p = CASES[2].make().on(DEVICE)
    p.hidden[2, 9] = torch.nan
    got = ask(p, "triton", "none")
    assert got.loss.isnan().nonzero().tolist() == [[2]]
    assert got.hidden.isnan().any(1).nonzero().tolist() == [[2]]


def test_without_a_gradient_the_second_walk_is_left_out(monkeypatch):
    p = CASES[2].make().on(DEVICE)
    launched = []
    run = type(triton_rows.soft_label_rows).__getitem__

    def recorded(kernel, grid):
        return lambda *args, **kwargs: (launched.append(kwargs["GRADIENT"]), run(kernel, grid)(*args, **kwargs))

    monkeypatch.setattr(type(triton_rows.soft_label_rows), "__getitem__", recorded)
    soft_label_ce(p.hidden, p.weight, p.ids, p.probs, reduction="sum", backend="triton")
    assert launched == [False]
