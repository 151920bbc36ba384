"""Hidden states in chunks are those of one plain forward, and take the memory of a chunk."""

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast import chunked_attention, chunked_forward
from ssdfast.kernels import LmHead
from ssdfast.models import LanguageModel

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
SLIDING = {"sliding_window": 5, "head_dim": 8}
ALTERNATING = ["sliding_attention", "full_attention"] * 2
MIXED = ["linear_attention", "linear_attention", "full_attention", "linear_attention"]
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}

# How each takes a long sequence: the way, and whether with the attention that needs no mask.
ARCHITECTURES = {
    "llama": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL)), "layers", True),
    "qwen3": (lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SMALL, head_dim=8)), "layers", True),
    "sliding window": (lambda: hf.MistralForCausalLM(hf.MistralConfig(**SMALL, **SLIDING)), "layers", True),
    "windows in turn": (
        lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**SMALL, **SLIDING, layer_types=ALTERNATING)),
        "layers",
        True,
    ),
    "softcap": (lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**SMALL, **SLIDING)), "layers", False),
    "recurrent": (
        lambda: hf.Qwen3_5ForCausalLM(hf.Qwen3_5TextConfig(**SMALL, **LINEAR, head_dim=8, layer_types=MIXED)),
        "layers",
        True,
    ),
    "other names": (
        lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=96, n_embd=32, n_layer=3, n_head=4)),
        "cache",
        True,
    ),
    "other cache": (
        lambda: hf.MambaForCausalLM(hf.MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2)),
        "whole",
        False,
    ),
}


def language_model(make, seed=0):
    torch.manual_seed(seed)
    model = make().eval()
    with torch.no_grad():
        for weight in model.parameters():  # away from the initial values, at which attention hardly looks anywhere
            weight.add_(0.2 * torch.randn_like(weight))
    return LanguageModel("small", model, None, LmHead(model.get_output_embeddings().weight.detach()))


@pytest.fixture(scope="module")
def llama():
    model = language_model(ARCHITECTURES["llama"][0])
    assert chunked_forward.prepare(model) == "layers"
    return model


def plain(model, ids):
    with torch.inference_mode():
        return model.model.base_model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_long_sequence_in_chunks_is_that_of_one_forward(name):
    make, way, own_attention = ARCHITECTURES[name]
    model = language_model(make)
    ids = np.random.default_rng(0).integers(0, 96, 61)
    want = plain(model, ids.tolist())
    assert chunked_forward.prepare(model) == way
    assert (model.model.config._attn_implementation == chunked_attention.NAME) == own_attention
    rows = np.array([0, 15, 16, 17, 40, 60])
    (got,) = chunked_forward.hidden_states(model, [ids], [rows], 16, way)
    torch.testing.assert_close(got, want[rows], rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), chunk=st.integers(1, 100), seed=st.integers(0, 99))
def test_sequences_together_are_those_alone(llama, lengths, chunk, seed):
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 96, n) for n in lengths]
    rows = [np.sort(rng.permutation(n)[: rng.integers(1, n + 1)]) for n in lengths]
    found = chunked_forward.hidden_states(llama, sequences, rows, chunk, "layers")
    for ids, mine, got in zip(sequences, rows, found, strict=True):
        torch.testing.assert_close(got, plain(llama, ids.tolist())[mine], rtol=1e-4, atol=1e-4)


def test_recurrent_layers_do_not_see_the_padding():
    model = language_model(ARCHITECTURES["recurrent"][0])
    way = chunked_forward.prepare(model)
    sequences = [np.arange(9), np.arange(40) * 7 % 96]
    for got, ids in zip(
        chunked_forward.hidden_states(model, sequences, [np.arange(9), np.arange(40)], 20, way), sequences, strict=True
    ):
        torch.testing.assert_close(got, plain(model, ids.tolist()), rtol=1e-4, atol=1e-4)


def test_the_model_is_left_as_it_was(llama):
    ids = list(range(50))
    before = plain(llama, ids)
    chunked_forward.hidden_states(llama, [np.array(ids)], [np.arange(50)], 7, "layers")
    assert torch.equal(plain(llama, ids), before)
    assert not [layer for layer in llama.model.base_model.layers if "forward" in vars(layer)]


def test_layers_that_fail_leave_the_model_as_it_was(llama, monkeypatch):
    last = llama.model.base_model.layers[-1].mlp
    monkeypatch.setattr(last, "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        chunked_forward.hidden_states(llama, [np.arange(50)], [np.arange(50)], 7, "layers")
    monkeypatch.undo()
    assert not [layer for layer in llama.model.base_model.layers if "forward" in vars(layer)]


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize(("queries", "past"), [(1, 1), (7, 1), (5, 64), (33, 100)])
def test_attention_to_a_past_is_attention_with_a_mask(heads, groups, queries, past):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, h, n, 8) * 3 for h, n in ((heads, queries), *2 * ((groups, past + queries),)))
    mask = torch.arange(past + queries) <= torch.arange(past, past + queries)[:, None]
    every_head = [x.double().repeat_interleave(heads // groups, 1) for x in (key, value)]
    scores = (query.double() @ every_head[0].mT * 0.3).masked_fill(~mask, -torch.inf)
    want = scores.softmax(-1) @ every_head[1]
    got = chunked_attention.attend_to_past(query, key, value, 0.3)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def test_only_one_layers_past_is_kept(llama, monkeypatch):
    """The keys that exist while a layer works are those of that layer alone."""
    held = []
    update = hf.cache_utils.Cache.update

    def counted(self, *args, **kwargs):
        answer = update(self, *args, **kwargs)
        filled = {id(layer) for layer in self.layers if layer.is_initialized}
        held.append(len(filled))
        return answer

    monkeypatch.setattr(hf.cache_utils.Cache, "update", counted)
    chunked_forward.hidden_states(llama, [np.arange(50)], [np.arange(50)], 10, "layers")
    assert len(held) == 4 * 5
    assert set(held) == {1}
