"""A step has the same traces whatever their lengths and on however many devices."""

from collections import Counter

import pytest

from ssdfast.config import TrainConfig
from ssdfast.training.examples import read_examples
from ssdfast.training.step_dataset import StepDataset

from .. import tiny


@pytest.fixture
def examples(tmp_path):
    tiny.save_traces(tmp_path, 23)
    return list(read_examples(tmp_path, tiny.VOCABULARY))


def traces_of(steps, step):
    """Names of the traces that are trained on, of all ranks."""
    micro_batches = [
        micro_batch
        for rank in range(steps.ranks)
        for micro_batch in steps[step * steps.ranks + rank]["micro_batches"]
        if not micro_batch.get("dummy")
    ]
    return sorted(name for micro_batch in micro_batches for name in micro_batch["traces"])


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3, 40])
def test_every_trace_is_in_one_step_per_epoch_and_steps_have_the_batch_size(examples, pack, ranks):
    steps = StepDataset(examples, TrainConfig(batch_size=5, num_train_epochs=2, micro_batch_tokens=50), 0, ranks, pack)
    assert len(steps) == 10 * ranks
    names_per_step = [traces_of(steps, step) for step in range(10)]
    assert [len(names) for names in names_per_step] == [5, 5, 5, 5, 3] * 2
    for epoch in (names_per_step[:5], names_per_step[5:]):
        assert set(Counter(name for names in epoch for name in names).values()) == {1}
    assert names_per_step[:5] != names_per_step[5:]


def test_neither_packing_nor_devices_change_which_traces_meet(examples):
    config = TrainConfig(batch_size=5, micro_batch_tokens=50)
    ways = [StepDataset(examples, config, 3, ranks, pack) for ranks in (1, 4) for pack in (True, False)]
    assert len({str([traces_of(steps, step) for step in range(5)]) for steps in ways}) == 1
    assert traces_of(StepDataset(examples, config, 4, 1, True), 0) != traces_of(ways[0], 0)


@pytest.mark.parametrize("pack", [True, False])
def test_a_micro_batch_has_at_most_its_tokens_and_a_step_has_the_number_of_its_labels(examples, pack):
    steps = StepDataset(examples, TrainConfig(batch_size=8, micro_batch_tokens=60), 0, 2, pack)
    for step in range(3):
        ranks = [steps[2 * step], steps[2 * step + 1]]
        micro_batches = [micro_batch for rank in ranks for micro_batch in rank["micro_batches"]]
        assert all(micro_batch["input_ids"].numel() <= 60 for micro_batch in micro_batches)
        assert {rank["tokens"] for rank in ranks} == {sum(len(micro_batch["labels"]) for micro_batch in micro_batches)}
        assert len(ranks[0]["micro_batches"]) == len(ranks[1]["micro_batches"])


def test_a_device_without_a_trace_gets_a_dummy_micro_batch(examples):
    steps = StepDataset(examples[:1], TrainConfig(batch_size=1), 0, 2, True)
    (first,), (second,) = steps[0]["micro_batches"], steps[1]["micro_batches"]
    assert [bool(micro_batch.get("dummy")) for micro_batch in (first, second)] == [False, True]
