"""The figures' data against the whole vocabulary, position by position."""

import json

import numpy as np
import pytest
import torch

from ssdfast.attribution.decoding_curves import TEMPERATURES, TOP_MASS_EDGES, decoding_curves
from ssdfast.kernels import SamplingParams
from ssdfast.kernels.probe_stats.reference import _Row, _support_size, decoded_logprobs

from .synthetic import Planted, baseline, write


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    base = baseline(traces=20)
    trained_NV = Planted(strength=0.5).logits(base)
    found = decoding_curves(write(tmp_path_factory.mktemp("pair"), base, trained_NV))
    json.dumps(found, allow_nan=False)
    return {"baseline": base.logits_NV, "trained": trained_NV}, found


@pytest.mark.parametrize("name", ["baseline", "trained"])
def test_curves_are_means_over_the_positions(pair, name):
    logits, found = pair
    row = _Row.from_logits(logits[name].double())
    sorted_z_NV = row.z_NV.gather(1, row.order_NV)
    mass_K = sorted_z_NV.softmax(1).cumsum(1)[:, :20].mean(0)
    assert means(found[name]["cumulative_mass"]) == pytest.approx(mass_K.tolist(), abs=1e-5)
    for i, temperature in enumerate(TEMPERATURES):
        size_N = _support_size(row, SamplingParams(temperature, 20, 0.95))
        log_q_NV = decoded_logprobs(sorted_z_NV, size_N, temperature)
        entropy_N = -torch.where(log_q_NV > -torch.inf, log_q_NV.exp() * log_q_NV, 0.0).sum(1)
        tokens = found[name]["surviving_tokens"][i]
        assert tokens["value"] == pytest.approx(size_N.double().mean().item(), abs=0.02)
        assert found[name]["entropy"][i]["value"] == pytest.approx(entropy_N.mean().item(), abs=1e-3)
        assert tokens["ci_low"] <= tokens["value"] <= tokens["ci_high"]
    top_N = sorted_z_NV.softmax(1)[:, :20].sum(1).numpy()
    size_N = _support_size(row, SamplingParams(1.0, 20, 0.95))
    log_q_NV = decoded_logprobs(sorted_z_NV, size_N, 1.0)
    entropy_N = -torch.where(log_q_NV > -torch.inf, log_q_NV.exp() * log_q_NV, 0.0).sum(1).numpy()
    for low, high, entry in zip(TOP_MASS_EDGES, TOP_MASS_EDGES[1:], found[name]["entropy_by_top_mass"], strict=False):
        inside_N = (top_N >= low) & (top_N < high)
        assert entry["position_fraction"] == pytest.approx(inside_N.mean(), abs=0.01)
        if inside_N.sum() > 20:
            assert entry["value"] == pytest.approx(entropy_N[inside_N].mean(), abs=0.02)
        elif not inside_N.any():
            assert entry["value"] is None


def test_training_on_a_truncated_model_leaves_more_mass_in_its_head(pair):
    found = pair[1]
    assert found["trained"]["cumulative_mass"][-1]["ci_low"] > found["baseline"]["cumulative_mass"][-1]["ci_high"]


def means(entries) -> list[float]:
    assert np.isfinite([entry["value"] for entry in entries]).all()
    return [entry["value"] for entry in entries]
