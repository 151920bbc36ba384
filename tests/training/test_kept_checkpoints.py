"""Checkpoints that stay are models: each is probed by its step, and a run that was killed has all of them."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

import ssdfast as ssd
from ssdfast import models
from ssdfast.config import TrainingRunConfig
from ssdfast.training import runner

from .test_train import config_of


def keeping(directory, **changes):
    return config_of(directory, keep_checkpoints=True, **changes)


def test_every_checkpoint_stays_as_a_model_of_its_step(inputs):
    trained = runner.train(keeping(inputs), inputs / "out")
    checkpoints = trained.parent / "checkpoints"
    steps = sorted(int(path.name.rpartition("-")[2]) for path in checkpoints.iterdir())
    assert steps == [2, 4, 6, 8, 10, 12]
    for path in checkpoints.iterdir():
        assert not {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} & set(os.listdir(path))
        models.shared_vocabulary(models.model_info(str(inputs / "model")), models.model_info(str(path)))
    last, result = (models.load(str(path), "float32") for path in (checkpoints / "checkpoint-12", trained))
    for a, b in zip(last.model.parameters(), result.model.parameters(), strict=True):
        assert torch.equal(a, b)


def _train(directory):
    runner.train(keeping(directory, num_train_epochs=6), directory / "killed")


def test_a_killed_run_has_all_checkpoints_too(inputs):
    runner.train(keeping(inputs, num_train_epochs=6), inputs / "whole")
    metrics = inputs / "killed" / "train" / "metrics.jsonl"
    run = multiprocessing.get_context("spawn").Process(target=_train, args=(inputs,))
    run.start()
    while run.is_alive() and not (metrics.exists() and metrics.read_text().count("\n") >= 7):
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    assert not (inputs / "killed" / "train" / "model").exists()
    _train(inputs)
    whole, killed = (inputs / name / "train" / "checkpoints" for name in ("whole", "killed"))
    assert sorted(os.listdir(whole)) == sorted(os.listdir(killed))
    for name in os.listdir(whole):
        file = f"{name}/model.safetensors"
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), name


def test_the_checkpoints_of_a_training_are_probed_as_a_trajectory(inputs):
    trained = runner.train(keeping(inputs, save_steps=4), inputs / "runs" / "x")
    several = {path.name: path for path in (trained.parent / "checkpoints").iterdir()} | {"model": trained}
    probes = ssd.probe(
        baseline=inputs / "model", trained=several, traces=inputs / "traces", out=inputs / "probes",
        on_sampling_mismatch="allow",
    )  # fmt: skip
    rows = probes.trajectory()
    assert set(rows["training"]) == {"x"}
    assert rows[rows["component"] == "residual"]["step"].tolist() == [4, 8, 12, 12]
    for _, row in rows.groupby("model")[["nats", "kl_trained_base"]]:
        assert row["nats"].sum() == pytest.approx(row["kl_trained_base"].iloc[0], abs=1e-9)
    origin = probes["checkpoint-8"].summary().train_sampling_origin
    assert origin == probes["model"].summary().train_sampling_origin
    assert "the training run" in origin
    for component, own in rows.groupby("component"):
        total = own["since_previous"].cumsum()
        assert total.tolist() == pytest.approx(own["nats"].tolist(), abs=1e-9), component


def test_adapters_are_no_models():
    with pytest.raises(ValueError, match="keep_checkpoints with lora_rank: its checkpoints are adapters"):
        TrainingRunConfig(model="m", traces="t", keep_checkpoints=True, lora_rank=4)
