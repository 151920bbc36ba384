"""The rules of the position classes, on the published cases and at their edges."""

import math

import numpy as np
import pytest
import torch

from ssdfast.config import PositionClassConfig
from ssdfast.kernels import ProbeSpec, probe_stats
from ssdfast.probing.position_classes import POSITION_CLASSES, classify, self_corrections, top1_changes

V = 1000


def logits(head: list[float]) -> torch.Tensor:
    """A row whose likeliest tokens have these probabilities, the rest of the mass spread within the top 20."""
    p = torch.zeros(V, dtype=torch.float64)
    p[: len(head)] = torch.tensor(head, dtype=torch.float64)
    p[len(head) : 20] = (1 - sum(head)) / (20 - len(head))
    return p.log()


def class_of(head: list[float]) -> str:
    a = probe_stats(logits(head)[None], None, torch.tensor([0]), ProbeSpec(), backend="reference").base
    top = a.top_logprobs.exp().numpy()
    return POSITION_CLASSES[
        classify(top[:, 0], top[:, 1], a.nucleus_size.numpy(), a.tail_mass.numpy(), PositionClassConfig())[0]
    ]


@pytest.mark.parametrize(
    ("head", "want"),
    [
        pytest.param([0.5268, 0.4649, 0.0075, 0.0004, 0.0001], "lock", id="{"),
        pytest.param([0.6280, 0.1588, 0.0750, 0.0455, 0.0455], "lock", id="Wait"),
        pytest.param([0.2174, 0.1919, 0.1319, 0.1319, 0.0706], "fork", id="</think>"),
        pytest.param([0.2288, 0.1225, 0.0954, 0.0842, 0.0842], "fork", id=" Let"),
    ],
)
def test_published_cases(head, want):
    assert class_of(head) == want


def test_the_published_lock_on_wait_changes_the_top1_and_is_a_self_correction():
    wait, close = 0, 1
    in_class_V = np.arange(V) == wait
    a_top, b_top = np.array([wait]), np.array([close])  # the trained model puts </think> .4392 over Wait .3876
    assert top1_changes(a_top, b_top).tolist() == [True]
    assert self_corrections(a_top, np.array([close]), in_class_V).tolist() == [True]


def one(top1, top2, nucleus, tail, rules=None):
    return POSITION_CLASSES[
        classify(*(np.array([x]) for x in (top1, top2, nucleus, tail)), rules or PositionClassConfig())[0]
    ]


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ((0.5, 0.4, 5, 0.01), "lock"),
        ((0.5, 0.4, 6, 0.01), "mixed"),
        ((0.5, 0.4, 5, 0.011), "mixed"),
        ((0.499, 0.2, 5, 0.01), "fork"),
        ((0.4, 0.1, 30, 0.10), "fork"),
        ((0.4, 0.099, 30, 0.10), "mixed"),
        ((0.4, 0.3, 30, 0.101), "diffuse"),
        ((0.4, 0.01, 30, 0.101), "diffuse"),
        ((math.nan, math.nan, -1, math.nan), "mixed"),
    ],
)
def test_edges(values, want):
    assert one(*values) == want


def test_thresholds_are_settings():
    assert one(0.45, 0.3, 5, 0.0, PositionClassConfig(lock_min_top1=0.45)) == "lock"
    assert one(0.6, 0.3, 6, 0.0, PositionClassConfig(lock_max_nucleus=6)) == "lock"
    assert one(0.6, 0.3, 2, 0.02, PositionClassConfig(lock_max_tail=0.02)) == "lock"
    assert one(0.4, 0.05, 2, 0.0, PositionClassConfig(fork_min_ratio=0.1)) == "fork"
    assert one(0.4, 0.3, 2, 0.15, PositionClassConfig(fork_max_tail=0.2)) == "fork"


def test_self_correction_by_the_top_token_or_the_sampled_one():
    in_class_V = np.array([False, True, False])
    top_N, token_N = np.array([1, 0, 0, -1]), np.array([0, 1, 2, 0])
    assert self_corrections(top_N, token_N, in_class_V).tolist() == [True, True, False, False]
    for in_class_V in ([True, False, False], [False, False, True]):  # -1 is no token: neither the first nor the last
        assert self_corrections(np.array([-1]), np.array([1]), np.array(in_class_V)).tolist() == [False]
