"""Models that were made and not trained are told apart, at two hundred traces; bench/attribution.py has two hundred."""

import json

import pytest

from tests.as_json import attribute

from .cases import Case, classify, confusion, groups, null_pair
from .synthetic import Planted, baseline, write

CASES = [
    Case("ssd", Planted(strength=0.3, spread=0.2, seed=1)),
    Case("ssd", Planted(strength=1.0, seed=2)),
    Case("temperature", Planted(temperature=0.9, seed=3)),
    Case("eos_bias", Planted(eos_bias=1.0, seed=4)),
    Case("residual", Planted(residual=0.1, seed=5)),
    Case("mixture", Planted(strength=0.3, temperature=0.9, seed=6)),
    Case("mixture", Planted(strength=0.5, residual=0.1, shared=0.0, seed=7)),
    Case("mixture", Planted(strength=0.5, temperature=1.1, seed=8)),
    Case("none", Planted(seed=9)),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return classify(CASES, tmp_path_factory.mktemp("cases"), baseline(), 0)


def test_each_is_named(outcomes):
    assert [one.category for one in outcomes] == [case.kind for case in CASES], confusion(outcomes)


def test_the_fraction_of_self_distillation_is_the_planted_one(outcomes):
    for one in outcomes:
        if one.case.kind == "mixture":
            assert one.ssd == pytest.approx(one.planted_ssd, abs=0.05), one.case


def test_a_verdict_says_what_would_change_it(outcomes):
    for one in outcomes:
        assert "would change if" in one.text
        assert "With one seed" in one.text
    assert "against the others" in outcomes[7].text


def test_the_groups_hold_two_hundred_cases_of_every_kind():
    cases = [case for group in groups() for case in group]
    assert len(cases) == 200
    assert len({case.planted.seed for case in cases}) == 200
    assert all(len({case.kind for case in group}) >= 5 for group in groups())


def test_noise_alone_is_no_effect(tmp_path):
    found = [null_pair(tmp_path / str(seed), seed) for seed in range(3)]
    assert [one["verdict"]["category"] for one in found] == ["none"] * 3
    p_values = [test["p_value"] for one in found for test in one["vs_control"]["metrics"]]
    assert 0.15 < sum(p_values) / len(p_values) < 0.85


def test_seeds_widen_the_intervals_and_show_whether_a_residual_is_chance(tmp_path):
    """The shared noise of a residual differs in each training; a shared seed makes it the same."""
    base = baseline(traces=60)

    def arm(name, *planted):
        return [write(tmp_path / f"{name}{i}", base, one.logits(base, 0.03)) for i, one in enumerate(planted)]

    arms = {
        "one": arm("one", Planted(strength=0.3, seed=1)),
        "two": arm("two", Planted(strength=0.3, seed=1), Planted(strength=0.5, seed=2)),
        "chance": arm("chance", Planted(residual=0.2, seed=3), Planted(residual=0.2, seed=4)),
        "again": [*(path := arm("again", Planted(residual=0.2, seed=5))), *path],
        "control": arm("control", Planted(seed=6), Planted(seed=7)),
    }
    found = attribute(arms, "control")["arms"]
    json.dumps(found, allow_nan=False)

    def width(name):
        ends = found[name]["shift"]["ssd_strength"]
        return ends["ci_high"] - ends["ci_low"]

    assert width("two") > 5 * width("one")
    assert found["two"]["shift"]["ssd_strength"]["value"] == pytest.approx(0.4, abs=0.01)
    assert found["one"]["shift"]["residual_seed_correlation"] is None
    assert abs(found["chance"]["shift"]["residual_seed_correlation"]) < 0.3
    assert found["again"]["shift"]["residual_seed_correlation"] == pytest.approx(1)
