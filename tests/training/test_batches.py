"""The loss is that of the completion tokens and of nothing else."""

from pathlib import Path

import torch

from ssdfast import models
from ssdfast.traces import read
from ssdfast.training.batches import collate
from ssdfast.training.examples import Example
from ssdfast.training.loss import Labels, make_trainable, padded

from .. import tiny


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
    inputs = padded([Example(trace, None, None, None) for trace in traces])
    ids_SK, probs_SK = Labels(None, tiny.VOCABULARY).of(inputs)
    loss = make_trainable(model.model)(
        inputs["input_ids"], None, inputs["row_S"], ids_SK, probs_SK, weight_S=torch.full((9,), 1 / 9)
    )["loss"]
    torch.testing.assert_close(loss.double(), total / 9, rtol=1e-5, atol=0)


def test_labels_are_the_sampled_tokens_and_no_end_is_added(tmp_path):
    batch = collate(three_traces(tmp_path))
    assert batch.label_S.tolist() == [8, 2, 1, 70, 71, 72, 73, 74, 11]
