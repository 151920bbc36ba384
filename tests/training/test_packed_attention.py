"""Traces of a row do not attend to one another, and a model that lets them is detected."""

import copy

import pytest
import torch
import transformers

from ssdfast.training.collate import collate_packed, collate_padded
from ssdfast.training.examples import read_examples
from ssdfast.training.label_source import LabelSource
from ssdfast.training.loss import make_trainable
from ssdfast.training.packed_attention import is_packing_exact, isolate_traces
from ssdfast.training.tiled_layers import tile_linear_attention

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
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
KNOWN = {
    "llama": transformers.LlamaConfig(**SMALL),
    "qwen3": transformers.Qwen3Config(**SMALL),
    "qwen3.5": transformers.Qwen3_5TextConfig(**SMALL, **LINEAR, layer_types=["linear_attention", "full_attention"]),
    "mistral": transformers.MistralConfig(**SMALL, sliding_window=6),
    "gemma3": transformers.Gemma3TextConfig(
        **SMALL, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
}


def network(name):
    torch.manual_seed(0)
    config = copy.deepcopy(KNOWN[name])  # a model changes its own, and another's that shares it
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def losses_and_gradients(plain, micro_batches):
    """(nats of every completion token in the order of the traces, gradients of their sum)."""
    forward, label_source = make_trainable(plain), LabelSource(None, tiny.VOCABULARY)
    plain.zero_grad()
    losses = []
    for micro_batch in micro_batches:
        ids_SK, probs_SK = label_source.labels(micro_batch)
        for row in range(len(ids_SK)):
            with torch.no_grad():
                losses.append(forward(micro_batch, ids_SK, probs_SK, torch.eye(len(ids_SK))[row])["loss"])
        forward(micro_batch, ids_SK, probs_SK, torch.ones(len(ids_SK)))["loss"].backward()
    return torch.stack(losses), [p.grad.clone() for p in plain.parameters()]


@pytest.fixture
def examples(tmp_path):
    tiny.save_traces(tmp_path, 6)
    return list(read_examples(tmp_path, tiny.VOCABULARY))


@pytest.mark.parametrize("name", KNOWN)
def test_losses_and_gradients_are_those_of_each_trace_alone(examples, name):
    """Alone, the model is transformers' own, untouched; its attention masks are another implementation of the same."""
    plain, apart = network(name), network(name)
    isolate_traces(apart)
    assert is_packing_exact(apart)
    assert apart.training
    assert plain.config._attn_implementation == "sdpa"
    alone = losses_and_gradients(plain, [collate_padded([example]) for example in examples])
    in_two = [collate_packed(examples[:2]), collate_packed(examples[2:])]
    for micro_batches in ([collate_packed(examples)], in_two, [collate_padded(examples)]):
        together = losses_and_gradients(apart, micro_batches)
        torch.testing.assert_close(together[0], alone[0], rtol=1e-5, atol=1e-5)
        for a, b in zip(together[1], alone[1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5 * float(b.abs().max()))


def test_tiles_of_linear_attention_end_with_their_trace(examples):
    plain, tiled = network("qwen3.5"), network("qwen3.5")
    tile_linear_attention(tiled, 64)
    isolate_traces(tiled)
    assert is_packing_exact(tiled)
    lone = losses_and_gradients(plain, [collate_padded([example]) for example in examples])[0]
    torch.testing.assert_close(losses_and_gradients(tiled, [collate_packed(examples)])[0], lone, rtol=1e-5, atol=1e-5)


def test_a_state_along_the_row_is_detected():
    assert not is_packing_exact(network("qwen3.5"))


def test_a_leak_too_small_for_any_tolerance_is_detected():
    model = network("llama").to(torch.bfloat16)
    isolate_traces(model)
    assert is_packing_exact(model)
    mlp = model.model.layers[0].mlp
    forward = mlp.forward
    # A token gets a hundredth of the mean of the tokens before it, and rounding alone makes a difference of that size.
    mlp.forward = lambda hidden: forward(hidden + 1e-2 * hidden.cumsum(1) / hidden.shape[1])
    assert not is_packing_exact(model)


def test_a_model_that_ignores_positions_is_detected():
    model = network("llama")  # its mask comes from the positions
    forward = model.base_model.forward
    model.base_model.forward = lambda position_ids=None, **rest: forward(**rest)
    assert not is_packing_exact(model)


def test_layers_of_an_unknown_kind_keep_their_own_attention():
    model = network("llama")
    model.config.layer_types = ["chunked_attention"] * 2
    isolate_traces(model)
    assert model.config._attn_implementation == "sdpa"
    assert is_packing_exact(model)  # by the mask that transformers makes of the positions
