"""Summaries of stages in experiment trackers."""

from __future__ import annotations

import logging
import os
import sys
import types

import pytest

from ssdfast.config import ExecutionConfig, NamedPath, ProbeConfig, TrainConfig, TrainExecution
from ssdfast.probing.runner import probe
from ssdfast.schemas import ProbeSummary
from ssdfast.trackers import check_summary_trackers, report_summary
from ssdfast.training.trainer import training_arguments

from . import tiny

VALUES = {"schema_version": 1, "settings": {"seed": 7}, "all": {"kl": {"value": 0.5, "ci_low": None}}, "ok": True,
          "runs": [{"name": "base", "accuracy": 0.25}, {"name": "ssd", "accuracy": 0.5}]}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    baseline, trained = tiny.save_pair(tmp_path)
    traces = NamedPath(name="own", path=tiny.save_traces(tmp_path / "traces", 3))
    return ProbeConfig(baseline=baseline, trained=trained, traces=(traces,))


def test_a_probe_reports_its_summary_to_tensorboard(config, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "out"
    probe(config, out, ExecutionConfig(report_to=("tensorboard",)))
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    want = ProbeSummary.read(out / "summary.json")
    (found,) = events.Scalars("probe/all/kl_trained_base/value")
    assert found.value == pytest.approx(want.all.kl_trained_base.value)
    assert events.Scalars("probe/positions")[0].value == want.positions


def test_a_training_has_the_project_and_the_name_of_its_run(tmp_path, monkeypatch):
    """transformers takes them from its arguments, and wandb's project from the environment."""
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    args = training_arguments(TrainConfig(), tmp_path / "ssd-0" / "train", 0, 10, TrainExecution())
    assert (args.project, args.run_name, os.environ["WANDB_PROJECT"]) == ("ssdfast", "ssd-0", "ssdfast")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    training_arguments(TrainConfig(), tmp_path / "ssd-0" / "train", 0, 10, TrainExecution())
    assert os.environ["WANDB_PROJECT"] == "mine"


def test_wandb_takes_the_numbers_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    seen, real = [], wandb.Run.log
    monkeypatch.setattr(wandb.Run, "log", lambda run, values: seen.append(values) or real(run, values))
    report_summary(["wandb"], "eval", tmp_path, VALUES)
    assert seen[0]["eval/runs/ssd/accuracy"] == 0.5
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_trackio_takes_the_numbers(tmp_path, monkeypatch):
    """By the three functions of its interface, which a stand-in records."""
    calls = []
    names = ("init", "log", "finish")
    module = types.SimpleNamespace(
        **{name: lambda *args, _name=name, **values: calls.append((_name, args, values)) for name in names}
    )
    monkeypatch.setitem(sys.modules, "trackio", module)
    report_summary(["trackio"], "eval", tmp_path / "run", VALUES)
    assert [name for name, *_ in calls] == list(names)
    assert calls[1][1][0] == {
        "eval/all/kl/value": 0.5, "eval/runs/base/accuracy": 0.25, "eval/runs/ssd/accuracy": 0.5
    }  # fmt: skip


def test_a_tracker_that_fails_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "trackio", types.SimpleNamespace())
    with caplog.at_level(logging.WARNING, "ssdfast.trackers"):
        report_summary(["trackio"], "eval", tmp_path, VALUES)
    assert "trackio did not take the summary" in caplog.text


def test_trackers_are_checked_before_any_work(config, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'mlfow' is unknown here: choose from tensorboard, wandb, trackio"):
        probe(config, tmp_path / "out", ExecutionConfig(report_to=("mlfow",)))
    monkeypatch.setattr("ssdfast.trackers.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="wandb is not installed: pip install wandb"):
        check_summary_trackers(["wandb"])
    assert not (tmp_path / "out").exists()
