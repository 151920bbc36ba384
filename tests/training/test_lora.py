"""Only adapters are trained, the model without them is the baseline, and the saved model is a whole one."""

import pytest
import torch

from ssdfast import models
from ssdfast.training import runner
from ssdfast.training.collate import collate_packed
from ssdfast.training.examples import read_examples
from ssdfast.training.label_source import LabelSource, from_disabled_adapters, from_frozen_copy
from ssdfast.training.prepare_model import add_lora, prepare

from .. import tiny
from .test_optimizers import _stop_after
from .test_train import SAMPLING, config_of, losses


def test_the_result_is_a_whole_model_that_differs_by_the_rank_of_the_adapters(inputs):
    trained = runner.train(config_of(inputs, num_train_epochs=1, lora_rank=2), inputs / "out")
    a, b = (dict(models.load(str(path), "float32").model.named_parameters()) for path in (inputs / "model", trained))
    assert a.keys() == b.keys()
    changed = {name for name in a if not torch.equal(a[name], b[name])}
    assert changed == {name for name in a if "proj" in name}
    for name in changed:
        assert torch.linalg.matrix_rank(b[name] - a[name], rtol=1e-3) <= 2


def test_the_model_with_its_adapters_disabled_is_the_baseline(inputs):
    config = config_of(inputs, lora_rank=2)
    model = models.load(config.model, "float32")
    network = add_lora(prepare(model.model, config, on_gpu=False), 2)
    with torch.no_grad():
        for p in network.parameters():
            if p.requires_grad:
                p += torch.randn(p.shape)
    micro_batch = collate_packed(list(read_examples(inputs / "traces", tiny.VOCABULARY))[:3])
    baseline = models.load(config.model, "float32")
    got, want = (
        LabelSource(SAMPLING, tiny.VOCABULARY, top_logprobs).labels(micro_batch)
        for top_logprobs in (from_disabled_adapters(network, model.head), from_frozen_copy(baseline))
    )
    assert torch.equal(got[0], want[0])
    torch.testing.assert_close(got[1], want[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"activation_checkpointing": "full_offload", "sequence_tile_size": 4}])
def test_soft_labels_from_disabled_adapters_train(inputs, settings):
    given = {
        "lora_rank": 4,
        "loss": "soft",
        "soft_labels": "recompute",
        "sampling_from": "config",
        "num_train_epochs": 3,
        "learning_rate": 1e-2,
    }
    runner.train(config_of(inputs, **given, **settings), inputs / "out")
    curve = losses(inputs / "out")
    assert sum(curve[-6:]) < sum(curve[:6])


def test_a_run_that_was_stopped_makes_the_same_losses(inputs, monkeypatch):
    config = config_of(inputs, num_train_epochs=1, lora_rank=2)
    runner.train(config, inputs / "whole")
    _stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        runner.train(config, inputs / "out")
    monkeypatch.undo()
    runner.train(config, inputs / "out")
    assert losses(inputs / "out") == losses(inputs / "whole")


def test_adapters_are_kept_where_that_is_asked_for(inputs):
    peft = pytest.importorskip("peft")
    trained = runner.train(config_of(inputs, num_train_epochs=1, lora_rank=2, keep_adapters=True), inputs / "out")
    base = models.load(str(inputs / "model"), "float32").model
    adapted = peft.PeftModel.from_pretrained(base, trained.parent / "adapters").merge_and_unload()
    merged = dict(models.load(str(trained), "float32").model.named_parameters())
    for name, weight in adapted.named_parameters():
        torch.testing.assert_close(weight, merged[name])
    with pytest.raises(ValueError, match="keep_adapters without lora_rank"):
        config_of(inputs, keep_adapters=True)
