"""Each optimizer computes AdamW in its own memory."""

import pytest
import torch

from ssdfast import models
from ssdfast.config import TrainConfig, TrainingRunConfig
from ssdfast.training import runner
from ssdfast.training.diagnostics import WeightWatch
from ssdfast.training.optimizers import HostAdamW, optimizer_cls_and_kwargs

from .test_train import config_of, losses


def steps_of(make, steps=4, dtype=torch.float32, saved_after=None):
    """Weights after some steps on drawn gradients; saved_after: hand the state to a new optimizer on the way."""
    chance = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=chance).to(dtype)) for shape in ((64, 80), (7,))]
    groups = [{"params": weights[:1], "weight_decay": 0.1}, {"params": weights[1:], "weight_decay": 0.0}]
    optimizer = make(groups)
    for step in range(steps):
        for p in weights:
            p.grad = torch.randn(p.shape, generator=chance).to(dtype)
        if step == 2:
            weights[1].grad = None
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        optimizer.step()
        if step == saved_after:
            fresh = make([{**group, "params": list(group["params"])} for group in groups])
            fresh.load_state_dict(optimizer.state_dict())
            optimizer = fresh
    return [p.detach() for p in weights]


@pytest.mark.parametrize("saved_after", [None, 1])
def test_moments_on_the_host_change_no_bit(saved_after):
    settings = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8}
    want = steps_of(lambda groups: torch.optim.AdamW(groups, fused=True, **settings))
    got = steps_of(lambda groups: HostAdamW(groups, **settings), saved_after=saved_after)
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_the_default_is_torch_s_own_in_float32():
    cls, settings = optimizer_cls_and_kwargs(TrainConfig(learning_rate=3e-6))
    assert cls is torch.optim.AdamW
    assert settings == {"lr": 3e-6, "betas": (0.9, 0.95), "eps": 1e-8, "fused": True}


@pytest.mark.parametrize(
    ("settings", "near"),
    [({"offload_optimizer": True}, 0), ({"optimizer": "adamw_8bit"}, 2e-2), ({"optimizer": "adamw_bf16"}, 5e-2)],
)
def test_a_run_learns_with_each_as_with_the_default(inputs, settings, near):
    runner.train(config_of(inputs, num_train_epochs=1), inputs / "plain")
    runner.train(config_of(inputs, num_train_epochs=1, **settings), inputs / "out")
    assert losses(inputs / "out") == pytest.approx(losses(inputs / "plain"), rel=near)
    saved = models.model_info(str(inputs / "out" / "train" / "model"))
    assert saved.config.dtype == (torch.bfloat16 if settings.get("optimizer") == "adamw_bf16" else torch.float32)


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "adamw_bf16"])
def test_a_run_that_was_stopped_makes_the_same_losses(inputs, optimizer, monkeypatch):
    runner.train(config_of(inputs, num_train_epochs=1, optimizer=optimizer), inputs / "whole")
    _stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        runner.train(config_of(inputs, num_train_epochs=1, optimizer=optimizer), inputs / "out")
    monkeypatch.undo()
    runner.train(config_of(inputs, num_train_epochs=1, optimizer=optimizer), inputs / "out")
    assert losses(inputs / "out") == losses(inputs / "whole")


def _stop_after(monkeypatch, steps):
    training_step = runner.SsdTrainer.training_step

    def stopping(self, *given):
        if self.state.global_step == steps:
            raise KeyboardInterrupt
        return training_step(self, *given)

    monkeypatch.setattr(runner.SsdTrainer, "training_step", stopping)


def test_small_steps_in_bfloat16_are_kept_by_chance_and_lost_without():
    """The mean of many weights moves as in float32, though few of them do at a time."""

    def moved(make):
        weight = torch.nn.Parameter(torch.ones(400, 256, dtype=torch.bfloat16))
        optimizer, watch = make([weight]), WeightWatch([weight])
        for _ in range(5):
            weight.grad = torch.ones_like(weight)
            watch.record()
            optimizer.step()
        return watch.compare().frac_changed, float(weight.float().mean()) - 1

    cls, settings = optimizer_cls_and_kwargs(TrainConfig(optimizer="adamw_bf16", learning_rate=1e-4))
    share, mean = moved(lambda weights: cls(weights, weight_decay=0.0, **settings))
    assert 0 < share < 0.2
    assert mean == pytest.approx(-5e-4, rel=0.1)
    assert moved(lambda weights: torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0)) == (0, 0)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="offload_optimizer moves adamw's moments, not those of adamw_8bit"):
        TrainingRunConfig(model="m", traces="t", optimizer="adamw_8bit", offload_optimizer=True)
