"""Verdicts about recipes whose trainings differ; bench/attribution.py has the rates."""

import pytest

from tests.as_json import attribute

from .recipes import ALL, STRENGTH, WRONG_SAMPLING, Setup, distilled, simulate
from .synthetic import Planted, baseline, write


@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (1, 3)])
def test_two_arms_of_one_recipe_do_not_differ(seeds, tmp_path):
    for jitter in (ALL, STRENGTH):
        found = simulate(Setup(Planted(), jitter=jitter, seeds=seeds), tmp_path / str(jitter.temperature), 0)
        assert found["arms"]["arm"]["verdict"]["category"] == "none"
        assert found["arms"]["arm"]["verdict"]["scope"] == "recipes"


@pytest.mark.parametrize(("where", "classes"), [("lock", {"clear_lock", "close_lock"}), ("fork", {"fork"})])
@pytest.mark.parametrize("strength", [0.15, 0.5])
def test_self_distillation_at_some_classes_is_named_and_located(where, classes, strength, tmp_path):
    found = simulate(Setup(Planted(strength=strength, where=where)), tmp_path, 1)["arms"]["arm"]
    assert found["verdict"]["category"] == "ssd"
    assert set(found["verdict"]["position_classes"]["ssd"]) == classes
    for entry in found["shift"]["by_position_class"]:
        expected = strength if entry["position_class"] in classes else 0.0
        assert entry["ssd_strength"]["value"] == pytest.approx(expected, abs=0.03), entry["position_class"]


def test_a_temperature_of_some_classes_is_not_self_distillation(tmp_path):
    """The temperature of a recipe may act at locks alone, as its self-distillation does."""
    base = baseline(120, 20, vocabulary=512)
    lock_N1 = base.positions("lock")[:, None]

    def model(seed):
        plain, cold = (Planted(temperature=t, seed=seed).logits(base) for t in (1.0, 0.8))
        return write(tmp_path / f"cold{seed}", base, cold.where(lock_N1, plain))

    control = [write(tmp_path / f"c{seed}", base, Planted(seed=seed).logits(base)) for seed in (4, 5, 6)]
    found = attribute({"cold": [model(seed) for seed in (1, 2, 3)], "control": control}, "control")["arms"]["cold"]
    assert found["verdict"]["category"] == "temperature"
    assert set(found["verdict"]["position_classes"]["temperature"]) == {"clear_lock", "close_lock"}
    by_class = {entry["position_class"]: entry["temperature"]["value"] for entry in found["shift"]["by_position_class"]}
    assert by_class["clear_lock"] == pytest.approx(0.8, abs=0.02)
    assert by_class["fork"] == pytest.approx(1.0, abs=0.02)


def test_one_seed_of_each_is_about_two_models(tmp_path):
    found = simulate(Setup(Planted(strength=0.4), jitter=ALL, seeds=(1, 1)), tmp_path, 2)["arms"]["arm"]["verdict"]
    assert found["scope"] == "models"
    assert found["headline"].startswith("its one model differs from that of control by")
    assert "not about the recipes" in found["text"]
    assert "at least 3 seeds of each" in found["text"]


def test_one_seed_of_one_arm_is_said(tmp_path):
    found = simulate(Setup(Planted(strength=0.6), jitter=STRENGTH, seeds=(1, 3)), tmp_path, 3)["arms"]["arm"]["verdict"]
    assert found["scope"] == "recipes"
    assert "There is one seed of this arm" in found["text"]


def test_few_problems_are_refused_with_the_number_that_would_do(tmp_path):
    found = simulate(Setup(Planted(strength=0.6), seeds=(2, 2), problems=7, positions=40), tmp_path, 4)
    said = found["arms"]["arm"]["verdict"]
    assert (said["category"], said["components"]) == ("undecided", [])
    assert said["headline"] == "undecided: 7 problems are too few for a test, at least 8 are needed"
    enough = simulate(Setup(Planted(strength=0.6), seeds=(2, 2), problems=8, positions=40), tmp_path / "8", 4)
    assert enough["arms"]["arm"]["verdict"]["category"] == "ssd"


@pytest.mark.parametrize("sampling", WRONG_SAMPLING)
def test_a_setting_that_the_data_contradict_is_said(sampling, tmp_path):
    base = baseline(120, 10, vocabulary=512)
    arm = [write(tmp_path / "arm", base, distilled(base, 0.5, *sampling, seed=1))]
    control = [write(tmp_path / "control", base, Planted(seed=2).logits(base))]
    said = attribute({"arm": arm, "control": control}, "control")["arms"]["arm"]["verdict"]
    assert said["headline"].endswith("; the data contradict train_sampling")
    assert said["contradicted_by"]["temperature"] == pytest.approx(sampling[0], rel=0.15)
    assert "probe again with these" in said["text"]


@pytest.mark.parametrize(
    "planted",
    [
        Planted(strength=0.5), Planted(strength=0.15), Planted(strength=0.5, tilted=True), Planted(temperature=0.9),
        Planted(temperature=1.1), Planted(eos_bias=1.0), Planted(residual=0.1), Planted(),
        Planted(strength=0.5, where="lock"), Planted(strength=0.3, temperature=0.9),
        Planted(strength=0.5, temperature=1.1),
    ],
)  # fmt: skip
def test_the_right_setting_is_not_contradicted(planted, tmp_path):
    base = baseline(120, 10, vocabulary=512)
    arm = [write(tmp_path / "arm", base, planted.logits(base))]
    control = [write(tmp_path / "control", base, Planted(seed=2).logits(base))]
    assert attribute({"arm": arm, "control": control}, "control")["arms"]["arm"]["verdict"]["contradicted_by"] is None


def test_observed_seeds_say_how_many_are_needed(tmp_path):
    found = simulate(Setup(Planted(strength=0.03), jitter=ALL, seeds=(2, 2)), tmp_path, 6)["arms"]["arm"]
    assert found["verdict"]["category"] == "none"
    strength = found["vs_control"]["parameters"]["ssd_strength"]
    assert strength["seed_sd"] == pytest.approx(0.04, abs=0.03)
    assert strength["mde"] > 0.1
    assert "seeds per arm" in found["verdict"]["text"]
