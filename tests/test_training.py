"""The loss is that of the completion tokens and of nothing else; a finished training is not repeated."""

import json
from pathlib import Path

import pytest
import torch

from ssdfast import models
from ssdfast.config import TrainConfig
from ssdfast.traces import read
from ssdfast.training import loop
from ssdfast.training.batches import batches, collate, steps

from . import tiny


def three_traces(directory):
    path = tiny.save_traces(
        directory,
        count=3,
        prompt_ids=[[3, 9, 4], [5, 6], [7, 8, 9, 10]],
        completion_ids=[[8, 2, 1], [70, 71, 72, 73, 74], [11]],
    )
    return list(read(Path(path)))


def test_the_loss_is_that_of_each_trace_alone(tmp_path):
    traces = three_traces(tmp_path / "traces")
    model = models.load(tiny.save_model(tmp_path / "model"), "float32")
    total = torch.zeros((), dtype=torch.float64)
    for trace in traces:
        ids = torch.tensor([*trace.prompt_ids, *trace.completion_ids])
        logp_LV = model.model(input_ids=ids[None]).logits[0].double().log_softmax(1)
        for place in range(len(trace.prompt_ids), len(ids)):
            total -= logp_LV[place - 1, ids[place]]
    torch.testing.assert_close(loop._loss(model, collate(traces)).double(), total / 9, rtol=1e-5, atol=0)


def test_labels_are_the_sampled_tokens_and_no_end_is_added(tmp_path):
    batch = collate(three_traces(tmp_path))
    assert batch.label_S.tolist() == [8, 2, 1, 70, 71, 72, 73, 74, 11]


def test_every_trace_is_seen_once_an_epoch_in_a_seeded_order(tmp_path):
    traces = three_traces(tmp_path)

    def labels(seed):
        return [batch.label_S.tolist() for batch in batches(traces, batch_size=2, epochs=2, seed=seed)]

    assert len(labels(0)) == steps(3, batch_size=2, epochs=2) == 4
    for epoch in (labels(0)[:2], labels(0)[2:]):
        assert sorted(label for batch in epoch for label in batch) == [1, 2, 8, 11, 70, 71, 72, 73, 74]
    assert labels(0) == labels(0)
    assert any(labels(0) != labels(seed) for seed in range(1, 5))


def test_the_schedule_goes_from_peak_to_floor():
    config = TrainConfig(lr=5e-6, min_lr=1e-6)
    rates = [loop.learning_rate(step, 9, config) for step in range(9)]
    assert rates[0] == 5e-6
    assert rates[-1] == pytest.approx(1e-6)
    assert rates[4] == pytest.approx(3e-6)
    assert rates == sorted(rates, reverse=True)


def test_training_learns_what_it_is_shown_and_is_not_repeated(tmp_path):
    three_traces(tmp_path / "traces")
    baseline = tiny.save_model(tmp_path / "model")
    config = TrainConfig(lr=3e-3, min_lr=1e-3, batch_size=3, epochs=30)
    checkpoint = loop.train(baseline, tmp_path / "traces", config, seed=0, out=tmp_path / "train")
    metrics = [json.loads(line) for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in metrics] == list(range(30))
    assert metrics[-1]["loss"] < metrics[0]["loss"] / 2
    trained = models.load(str(checkpoint), "float32")
    models.check_same_vocabulary(models.load(baseline, "float32"), trained)
    assert trained.model.lm_head.weight.dtype == torch.float32
    stamp = (checkpoint / "model.safetensors").stat().st_mtime_ns
    loop.train(baseline, tmp_path / "traces", config, seed=0, out=tmp_path / "train")
    assert (checkpoint / "model.safetensors").stat().st_mtime_ns == stamp


def test_nothing_to_train_on(tmp_path):
    tiny.save_traces(tmp_path / "traces", count=1, completion_ids=[[]])
    with pytest.raises(ValueError, match="holds no completion tokens"):
        loop.train(tiny.save_model(tmp_path / "model"), tmp_path / "traces", TrainConfig(), 0, tmp_path / "train")
