"""Packing loses nothing, wastes little, and lets no trace read another."""

import json

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.config import FinetuneConfig
from ssdfast.kernels import LmHead
from ssdfast.models import LanguageModel
from ssdfast.training import runner
from ssdfast.training.examples import read_examples
from ssdfast.training.loss import Labels, make_trainable, packed, padded
from ssdfast.training.packing import first_fit_decreasing, packs_exactly

from .. import tiny

SMALL = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
}
APART = {
    "llama": transformers.LlamaConfig(**SMALL),
    "qwen3": transformers.Qwen3Config(**SMALL),
    "mistral": transformers.MistralConfig(**SMALL, sliding_window=6),
    "gemma3": transformers.Gemma3TextConfig(
        **SMALL, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
}
LEAKING = transformers.Qwen3_5TextConfig(
    **SMALL,
    layer_types=["linear_attention", "full_attention"],
    linear_num_value_heads=4,
    linear_num_key_heads=2,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
)


def network(config):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config)


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(1, 40))
@settings(deadline=None)
def test_every_length_is_in_one_bin_that_holds_it(lengths, budget):
    bins = first_fit_decreasing(lengths, budget)
    assert sorted(place for one in bins for place in one) == list(range(len(lengths)))
    for one in bins:
        assert sum(lengths[place] for place in one) <= budget or len(one) == 1


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=12))
@settings(deadline=None)
def test_bins_are_at_most_eleven_ninths_of_the_fewest_and_one(full):
    """Each list is filled up to the budget, so that as many bins as lists are the fewest there can be."""
    budget = 60
    lengths = [length for one in full for length in (*one, budget - sum(one))]
    assert len(first_fit_decreasing(lengths, budget)) <= 11 / 9 * len(full) + 6 / 9


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(30, 60))
@settings(deadline=None)
def test_each_goes_into_the_first_bin_that_has_room(lengths, budget):
    bins: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        fits = (one for one in bins if sum(lengths[other] for other in one) + lengths[place] <= budget)
        first = next(fits, None)
        if first is None:
            bins.append([place])
        else:
            first.append(place)
    assert first_fit_decreasing(lengths, budget) == bins


@pytest.mark.parametrize("name", APART)
def test_losses_and_gradients_are_those_of_each_trace_alone(tmp_path, name):
    tiny.save_traces(tmp_path, 6)
    examples = list(read_examples(tmp_path, tiny.VOCABULARY))
    plain = network(APART[name])
    assert packs_exactly(plain)
    assert plain.training
    model = make_trainable(plain)
    labels = Labels(None, tiny.VOCABULARY)

    def of(batches):
        plain.zero_grad()
        losses = []
        for batch in batches:
            ids_SK, probs_SK = labels.of(batch)
            for row in range(len(ids_SK)):
                weight_S = torch.zeros(len(ids_SK))
                weight_S[row] = 1.0
                with torch.no_grad():
                    losses.append(
                        model(batch["input_ids"], batch["position_ids"], batch["row_S"], ids_SK, probs_SK, weight_S)[
                            "loss"
                        ]
                    )
            ones_S = torch.ones(len(ids_SK))
            model(batch["input_ids"], batch["position_ids"], batch["row_S"], ids_SK, probs_SK, ones_S)[
                "loss"
            ].backward()
        return torch.stack(losses), [p.grad.clone() for p in plain.parameters()]

    one_by_one = of([padded([example]) for example in examples])
    together = of([packed([examples])])
    torch.testing.assert_close(together[0], one_by_one[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(together[1], one_by_one[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_a_state_along_the_row_is_found_out():
    assert not packs_exactly(network(LEAKING))


def test_a_model_that_ignores_positions_is_found_out():
    plain = network(APART["llama"])
    forward = plain.base_model.forward
    plain.base_model.forward = lambda position_ids=None, **rest: forward(**rest)
    assert not packs_exactly(plain)


def config_of(directory, **changes):
    given = {"batch_size": 6, "lr": 1e-3, "pack_tokens": 40}
    return FinetuneConfig(model=str(directory / "model"), traces=str(directory / "traces"), **(given | changes))


def test_a_packed_run_learns_every_trace_once_an_epoch(tmp_path):
    tiny.save_model(tmp_path / "model")
    tiny.save_traces(tmp_path / "traces", 24)
    runner.train(config_of(tmp_path), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "train" / "metrics.jsonl").read_text().splitlines()]
    tokens = sum(len(example.trace.completion_ids) for example in read_examples(tmp_path / "traces", tiny.VOCABULARY))
    assert sum(line["tokens"] for line in lines) == tokens
    assert len(lines) in (3, 4, 5)
    assert "gradient_noise" in lines[-1]


def test_a_model_that_cannot_is_trained_unpacked_and_said_to_be(tmp_path, monkeypatch, capsys):
    tiny.save_model(tmp_path / "model")
    tiny.save_traces(tmp_path / "traces", 6)
    monkeypatch.setattr(runner, "packs_exactly", lambda network: False)
    runner.train(config_of(tmp_path, micro_batch=3), tmp_path / "out")
    assert "traces are not packed: LlamaForCausalLM" in capsys.readouterr().err
