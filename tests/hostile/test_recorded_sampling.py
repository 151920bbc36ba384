"""The headline of a probe does not depend on sampling parameters that are repeated by hand, or left out."""

import json
import shutil

import pytest
import yaml

from ssdfast import cli
from ssdfast.config import ExecutionConfig, ProbeConfig, SamplingParams, TrainingRunConfig
from ssdfast.probing.recorded_sampling import resolve_train_sampling
from ssdfast.probing.runner import probe
from ssdfast.training.runner import train

from .. import tiny

HOT = SamplingParams(temperature=1.6, top_k=10, top_p=0.8)
COUNT = 6


def columns(params, count=COUNT):
    return {name: [value] * count for name, value in params.model_dump().items()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save_model(tmp_path / "model")
    tiny.save_traces(tmp_path / "samples" / "traces", COUNT, **columns(HOT))
    tiny.save_traces(tmp_path / "other", COUNT, seed=1)
    return tmp_path


@pytest.fixture
def trained(here):
    config = TrainingRunConfig(model="model", traces="samples", batch_size=2, learning_rate=1e-3)
    return str(train(config, here / "run"))


def probe_config(trained, traces="other", **values):
    return ProbeConfig(baseline="model", trained=trained, traces=(traces,), **values)


def summary(out):
    return json.loads((out / "summary.json").read_text())


def test_the_training_run_decides(here, trained):
    probe(probe_config(trained), here / "out")
    left_out = summary(here / "out")
    assert left_out["settings"]["train_sampling"] == HOT.model_dump()
    assert left_out["train_sampling_origin"].startswith("The sampling parameters of training are T=1.6 k=10 p=0.8, as ")
    probe(probe_config(trained, train_sampling=HOT), here / "given")
    assert summary(here / "given")["all"] == left_out["all"]


def test_traces_that_are_gone_are_recorded_all_the_same(here, trained):
    shutil.rmtree(here / "samples")
    assert resolve_train_sampling(probe_config(trained), "error").config.train_sampling == HOT


def test_a_contradiction_is_rejected_unless_it_is_allowed(here, trained):
    config = probe_config(trained, train_sampling=SamplingParams(temperature=1.1))
    with pytest.raises(
        ValueError, match=r"T=1.1 k=20 p=0.95, but the training run .* records T=1.6 k=10 p=0.8: leave it out"
    ):
        probe(config, here / "out")
    assert not (here / "out" / "config.yaml").exists()
    probe(config, here / "out", ExecutionConfig(on_sampling_mismatch="allow"))
    assert summary(here / "out")["settings"]["train_sampling"]["temperature"] == 1.1
    assert "Check the sampling parameters of training" in summary(here / "out")["train_sampling_origin"]


def test_traces_with_several_sampling_parameters_are_ambiguous(here):
    mixed = columns(HOT) | {"temperature": [1.6, 1.0, 1.6, 1.0, 1.6, 1.0]}
    tiny.save_traces(here / "mixed", COUNT, **mixed)
    model = train(TrainingRunConfig(model="model", traces="mixed", batch_size=2, learning_rate=1e-3), here / "run")
    with pytest.raises(ValueError, match=r"several sampling parameters \(T=1 k=10 .* and T=1.6 .*set train_sampling"):
        resolve_train_sampling(probe_config(str(model)), "error")


def sampled_by_a_run(here, **settings):
    (here / "samples" / "config.yaml").write_text(yaml.safe_dump({"model": "model", "purpose": "training"} | settings))


def test_samples_for_training_are_an_indirect_record(here):
    sampled_by_a_run(here)
    resolved, origin, warning = resolve_train_sampling(probe_config("model", "samples"), "error")
    assert resolved.train_sampling == HOT
    assert "the run of the traces samples records" in origin
    given = probe_config("model", "samples", train_sampling=SamplingParams())
    resolved, origin, warning = resolve_train_sampling(given, "error")
    assert resolved.train_sampling == SamplingParams()
    assert origin.startswith(
        "Check the sampling parameters of training: train_sampling is T=1 k=20 p=0.95, but the run"
    )
    assert "but the run of the traces samples records T=1.6" in warning


@pytest.mark.parametrize("settings", [{"purpose": "evaluation"}, {"model": "another"}])
def test_other_samples_are_no_record(here, settings):
    sampled_by_a_run(here, **settings)
    resolved, origin, warning = resolve_train_sampling(probe_config("model", "samples"), "error")
    assert resolved.train_sampling == ProbeConfig.model_fields["train_sampling"].default
    assert "the default, for no record of the training samples was found" in origin
    assert warning.endswith("set it")


def test_flags_file_and_preset_are_given_and_nothing_else_is(here, trained, capsys):
    base = ["probe", "--baseline", "model", "--trained", trained, "--traces", "other"]
    assert cli.run([*base, "--out", "out"]) == 0
    assert "as the training run" in capsys.readouterr().out
    assert "as the training run" in (here / "out" / "report.html").read_text()
    (here / "file.yaml").write_text("train_sampling: {temperature: 1.2}\n")
    for more in (["--train-sampling.temperature", "1.2"], ["--preset", "math"], ["--config", "file.yaml"]):
        assert cli.run([*base, "--out", "new", *more]) == 2
        assert "leave it out, or keep it with --on-sampling-mismatch allow" in capsys.readouterr().err
