"""The loss is that of the completion tokens and of nothing else."""

from pathlib import Path

import torch

from ssdfast import models
from ssdfast.traces import read
from ssdfast.training.collate import collate_packed, collate_padded
from ssdfast.training.examples import Example
from ssdfast.training.label_source import LabelSource
from ssdfast.training.loss import make_trainable

from .. import tiny


def three_examples(directory):
    path = tiny.save_traces(
        directory,
        count=3,
        prompt_ids=[[3, 9, 4], [5, 6], [7, 8, 9, 10]],
        completion_ids=[[8, 2, 1], [70, 71, 72, 73, 74], [11]],
    )
    return [Example(trace, None, None, None) for trace in read(Path(path))]


def test_the_loss_is_that_of_each_trace_alone(tmp_path):
    examples = three_examples(tmp_path / "traces")
    model = models.load(tiny.save_model(tmp_path / "model"), "float32")
    total = torch.zeros((), dtype=torch.float64)
    for trace in (example.trace for example in examples):
        ids = torch.tensor([*trace.prompt_ids, *trace.completion_ids])
        logp_LV = model.model(input_ids=ids[None]).logits[0].double().log_softmax(1)
        for place in range(len(trace.prompt_ids), len(ids)):
            total -= logp_LV[place - 1, ids[place]]
    inputs = collate_padded(examples)
    loss = make_trainable(model.model)(
        inputs, *LabelSource(None, tiny.VOCABULARY).labels(inputs), torch.full((9,), 1 / 9)
    )
    torch.testing.assert_close(loss["loss"].double(), total / 9, rtol=1e-5, atol=0)


def test_labels_are_the_sampled_tokens_and_no_end_is_added(tmp_path):
    examples = three_examples(tmp_path)
    for inputs in (collate_padded(examples), collate_packed(examples)):
        assert inputs["labels"].tolist() == [8, 2, 1, 70, 71, 72, 73, 74, 11]


def test_each_label_is_predicted_where_the_token_before_it_stands(tmp_path):
    examples = three_examples(tmp_path)
    before = [4, 8, 2, 6, 70, 71, 72, 73, 10]
    for inputs in (collate_padded(examples), collate_packed(examples)):
        assert inputs["input_ids"].flatten()[inputs["row_S"]].tolist() == before


def test_a_packed_row_holds_the_traces_without_their_last_tokens_and_begins_positions_again(tmp_path):
    inputs = collate_packed(three_examples(tmp_path))
    assert inputs["input_ids"].tolist() == [[3, 9, 4, 8, 2, 5, 6, 70, 71, 72, 73, 7, 8, 9, 10]]
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3]]
    assert inputs["trace_lengths"] == (5, 6, 4)
