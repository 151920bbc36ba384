"""A step has the traces it asked for, whatever their lengths and on however many devices."""

from collections import Counter

import pytest

from ssdfast.config import TrainConfig
from ssdfast.training.examples import read_examples
from ssdfast.training.step_dataset import Steps

from .. import tiny


@pytest.fixture
def examples(tmp_path):
    tiny.save_traces(tmp_path, 23)
    return list(read_examples(tmp_path, tiny.VOCABULARY))


def traces_of(steps, step):
    """Names of the traces that count, of all ranks."""
    passes = [one for rank in range(steps.ranks) for one in steps[step * steps.ranks + rank]["passes"]]
    return sorted(name for one in passes if one.get("counts", True) for name in one["traces"])


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3, 40])
def test_every_trace_is_learnt_once_an_epoch_in_steps_of_the_batch_size(examples, pack, ranks):
    steps = Steps(examples, TrainConfig(batch_size=5, num_train_epochs=2, micro_batch_tokens=50), 0, ranks, pack)
    assert len(steps) == 10 * ranks
    found = [traces_of(steps, step) for step in range(10)]
    assert [len(names) for names in found] == [5, 5, 5, 5, 3] * 2
    for epoch in (found[:5], found[5:]):
        assert set(Counter(name for names in epoch for name in names).values()) == {1}
    assert found[:5] != found[5:]


def test_neither_packing_nor_devices_change_which_traces_meet(examples):
    config = TrainConfig(batch_size=5, micro_batch_tokens=50)
    ways = [Steps(examples, config, 3, ranks, pack) for ranks in (1, 4) for pack in (True, False)]
    assert len({str([traces_of(steps, step) for step in range(5)]) for steps in ways}) == 1
    assert traces_of(Steps(examples, config, 4, 1, True), 0) != traces_of(ways[0], 0)


@pytest.mark.parametrize("pack", [True, False])
def test_a_pass_has_at_most_its_tokens_and_a_step_says_how_many_it_learns(examples, pack):
    steps = Steps(examples, TrainConfig(batch_size=8, micro_batch_tokens=60), 0, 2, pack)
    for step in range(3):
        ranks = [steps[2 * step], steps[2 * step + 1]]
        passes = [one for rank in ranks for one in rank["passes"]]
        assert all(one["input_ids"].numel() <= 60 for one in passes)
        assert {rank["tokens"] for rank in ranks} == {sum(len(one["labels"]) for one in passes)}
        assert len(ranks[0]["passes"]) == len(ranks[1]["passes"])


def test_a_device_without_a_trace_takes_a_pass_that_counts_for_nothing(examples):
    steps = Steps(examples[:1], TrainConfig(batch_size=1), 0, 2, True)
    (first,), (second,) = steps[0]["passes"], steps[1]["passes"]
    assert [one.get("counts", True) for one in (first, second)] == [True, False]
