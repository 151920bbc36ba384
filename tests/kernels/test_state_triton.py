"""Partial states of the Triton kernels, on a GPU or with TRITON_INTERPRET=1 in Triton's interpreter."""

import pytest
import torch

from .cases import CASES, assert_matches_oracle, make, on_cpu
from .gpu import DEVICE, pytestmark, quick_interpreter  # noqa: F401
from .state_cases import statistics

NAMES = (
    "plain",
    "one sweep",
    "bad rows",
    "some -inf",
    "some -inf, one sweep",
    "ties",
    "top 64",
    "no head: long nucleus",
    "empty blocks far below zero",
    "tied at the largest logits",
    "tied at the largest logits, one sweep",
    "support far from the trained model",
    "the same model",
)
RUNS = [(name, torch.bfloat16) for name in NAMES] + [("plain", torch.float32), ("some -inf", torch.float32)]


@pytest.mark.parametrize(("name", "dtype"), RUNS, ids=str)
def test_any_split_matches_the_oracle(name, dtype):
    case = next(c for c in CASES if c.name == name)
    a, b, token = make(case, dtype)
    for cuts in ([0.4], [0.01, 0.01, 0.9]):
        got = statistics(a.to(DEVICE), b.to(DEVICE), token.to(DEVICE), case.spec, cuts, "triton")
        assert_matches_oracle(on_cpu(got), a, b, token, case.spec)
