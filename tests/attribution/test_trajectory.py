"""A training whose self-distillation comes first and whose residual comes later is described as that."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ssdfast.attribution.trajectory import Checkpoint, checkpoint, trajectory
from ssdfast.schemas import StepMetrics

from .synthetic import Planted, baseline, write

# Strength of self-distillation and size of a residual, by step; a seed is a training, so the noise is the same.
PLANTED = {10: (0.15, 0.0), 20: (0.3, 0.0), 30: (0.3, 0.3), 40: (0.3, 0.6)}


def path_of(step: int) -> str:
    return f"runs/x/train/checkpoints/checkpoint-{step}"


def named(directory, trained):
    """The probe says which model it is of."""
    file = directory / "summary.json"
    values = json.loads(file.read_text())
    values["settings"]["trained"] = trained
    file.write_text(json.dumps(values))
    return directory


@pytest.fixture(scope="module")
def probes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trajectory")
    base = baseline(traces=80)
    planted = {step: Planted(strength=s, residual=r, seed=1) for step, (s, r) in PLANTED.items()}
    return {
        f"checkpoint-{step}": named(write(directory / str(step), base, one.logits(base)), path_of(step))
        for step, one in planted.items()
    }


@pytest.fixture(scope="module")
def points(probes):
    shuffled = dict(sorted(probes.items(), reverse=True))
    return trajectory(shuffled).points


def test_steps_are_in_order_and_strengths_are_those_that_were_planted(points):
    assert [(point.training, point.step) for point in points] == [("x", step) for step in PLANTED]
    for point, (strength, _) in zip(points, PLANTED.values(), strict=True):
        assert point.ssd_strength.value == pytest.approx(strength, abs=0.05)


def test_self_distillation_came_first_and_the_residual_later(points):
    first, second, third, fourth = (point.since_previous for point in points)
    for change in (first, second):
        assert change["ssd"].ci_low > 0
    for change in (third, fourth):
        assert change["ssd"].ci_high < first["ssd"].value / 2
        assert change["residual"].ci_low > second["residual"].ci_high
    assert fourth["residual"].ci_low > 0


def test_components_add_up_and_so_do_their_changes(points):
    for point in points:
        assert sum(part.value for part in point.components.values()) == pytest.approx(point.kl_trained_base.value)
    for name in points[0].components:
        total = np.cumsum([point.since_previous[name].value for point in points])
        assert total == pytest.approx([point.components[name].value for point in points])


def test_a_change_is_known_better_than_the_checkpoints(points):
    """The problems are the same, so most of what differs between them cancels."""
    for before, after in itertools.pairwise(points[1:]):
        change, ends = after.since_previous["ssd"], (before.components["ssd"], after.components["ssd"])
        width = sum((end.ci_high - end.ci_low) ** 2 for end in ends) ** 0.5
        assert change.ci_high - change.ci_low < width


def test_other_models_are_no_points(probes, tmp_path):
    base = baseline(traces=12)
    other = write(tmp_path / "other", base, Planted(seed=3).logits(base))
    assert trajectory({"one": probes["checkpoint-10"], "other": named(other, "models/other")}) is None


def test_a_training_has_two_checkpoints_and_its_own_name(probes, tmp_path):
    """Of four models of a training one is alone in another of the same name, and two are in a third."""
    moved = {}
    for (name, directory), run in zip(probes.items(), ("here", "here", "there", "elsewhere"), strict=True):
        copy = shutil.copytree(directory, tmp_path / name)
        moved[name] = named(copy, f"{run}/x/train/checkpoints/{name}")
    first, second, *_ = moved
    assert {point.model: point.training for point in trajectory(moved).points} == {first: "x", second: "x"}
    for name in list(moved)[2:]:
        named(moved[name], f"there/x/train/checkpoints/{name}")
    trainings = [point.training for point in trajectory(moved).points]
    assert trainings == [str(Path(run, "x").resolve()) for run in ("here", "here", "there", "there")]


def test_a_path_says_run_and_step(tmp_path):
    run = tmp_path / "runs" / "y"
    (run / "train" / "model").mkdir(parents=True)
    assert checkpoint(str(run / "train" / "checkpoints" / "checkpoint-7")) == Checkpoint(run, 7)
    assert checkpoint(str(tmp_path / "hub" / "checkpoint-7")) == Checkpoint(tmp_path / "hub", 7)
    assert checkpoint(str(run / "train" / "model")) is None, "no metrics, no step"
    metrics = dict.fromkeys(StepMetrics.model_fields, 1)
    lines = [json.dumps(metrics | {"step": step}) for step in (1, 2)]
    (run / "train" / "metrics.jsonl").write_text("\n".join(lines))
    assert checkpoint(str(run / "train" / "model")) == Checkpoint(run, 2)
    assert checkpoint("models/checkpoint-final") is None
