"""Training examples: what is read, and where it is kept."""

import numpy as np
import pytest
import torch

from ssdfast.config import TrainingRunConfig
from ssdfast.models import model_info
from ssdfast.training.examples import map_top_logprobs, read_examples
from ssdfast.training.filters import read_training_examples

from .. import tiny


@pytest.fixture
def inputs(tmp_path):
    """A model, and traces with their top log-probabilities: of several lengths, one with a longer list."""
    tiny.save_model(tmp_path / "model")
    ids = [[3 + i] * (1 + 5 * i) for i in range(6)]
    rng = np.random.default_rng(0)
    shapes = [(len(one), 3 if i == 4 else 2) for i, one in enumerate(ids)]
    tiny.save_traces(
        tmp_path / "traces",
        6,
        completion_ids=ids,
        top_ids=[rng.integers(0, tiny.VOCABULARY, shape).tolist() for shape in shapes],
        top_logprobs=[(-rng.random(shape)).tolist() for shape in shapes],
    )
    return tmp_path


def test_mapped_lists_are_those_that_were_stored(inputs):
    stored = list(read_examples(inputs / "traces", tiny.VOCABULARY))
    mapped = map_top_logprobs(iter(stored))
    assert len(mapped) == len(stored) > 0
    for one, other in zip(stored, mapped, strict=True):
        assert other.trace is one.trace
        assert other.top_ids_LK.dtype == np.int32
        np.testing.assert_array_equal(one.top_ids_LK, other.top_ids_LK)
        np.testing.assert_array_equal(one.top_logprobs_LK, other.top_logprobs_LK)
        torch.from_numpy(other.top_ids_LK).add_(1)  # torch may write to them
    np.testing.assert_array_equal(stored[0].top_ids_LK + 1, mapped[0].top_ids_LK)


def test_examples_without_lists_stay_as_they_are(inputs):
    examples = list(read_examples(inputs / "traces", tiny.VOCABULARY, with_top=False))
    assert all(example.top_ids_LK is None for example in examples)
    assert [one.trace for one in map_top_logprobs(examples)] == [one.trace for one in examples]
    assert map_top_logprobs([]) == []


def test_lists_are_read_only_where_the_loss_needs_them(inputs):
    info = model_info(str(inputs / "model"))
    for settings, needed in (
        ({"loss": "sampled"}, False),
        ({"loss": "soft", "soft_labels": "recompute"}, False),
        ({"loss": "soft"}, True),
    ):
        config = TrainingRunConfig(model=str(inputs / "model"), traces=str(inputs / "traces"), **settings)
        examples, _ = read_training_examples(config, info)
        assert {example.top_ids_LK is not None for example in examples} == {needed}
