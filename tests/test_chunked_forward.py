"""Hidden states in chunks are those of one plain forward, and take the memory of a chunk."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast import chunked_attention, chunked_forward
from ssdfast.chunked_forward import ReadingStrategy
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
LAYERS = ReadingStrategy("layers")
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
    assert chunked_forward.prepare(model) == ReadingStrategy("layers", shares_prefix=True)
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
    strategy = chunked_forward.prepare(model)
    assert strategy == ReadingStrategy(way, shares_prefix=way != "whole")
    assert (model.model.config._attn_implementation == chunked_attention.NAME) == own_attention
    rows = np.array([0, 15, 16, 17, 40, 60])
    (got,) = chunked_forward.hidden_states(model, [ids], [rows], 16, strategy)
    torch.testing.assert_close(got, want[rows], rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), chunk=st.integers(1, 100), seed=st.integers(0, 99))
def test_sequences_together_are_those_alone(llama, lengths, chunk, seed):
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 96, n) for n in lengths]
    rows = [np.sort(rng.permutation(n)[: rng.integers(1, n + 1)]) for n in lengths]
    found = chunked_forward.hidden_states(llama, sequences, rows, chunk, LAYERS)
    for ids, mine, got in zip(sequences, rows, found, strict=True):
        torch.testing.assert_close(got, plain(llama, ids.tolist())[mine], rtol=1e-4, atol=1e-4)


def samples_of(prefix, lengths, seed=0):
    """Sequences with the same first tokens, and other ones after them."""
    rng = np.random.default_rng(seed)
    start, first = rng.integers(0, 96, prefix), rng.permutation(96)
    return [
        np.concatenate([start, first[i : i + 1], rng.integers(0, 96, n)])[: prefix + n] for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if ARCHITECTURES[name][1] != "whole"])
def test_a_prefix_that_is_read_once_changes_nothing(name):
    model = language_model(ARCHITECTURES[name][0])
    strategy = chunked_forward.prepare(model)
    sequences = samples_of(37, [9, 24, 1, 17])
    rows = [np.arange(len(ids)) for ids in sequences]
    with counted(model) as tokens:
        found = chunked_forward.hidden_states(model, sequences, rows, 1000, strategy)
    assert tokens == [(1, 37), (4, 24)]
    for ids, got in zip(sequences, found, strict=True):
        torch.testing.assert_close(got, plain(model, ids.tolist()), rtol=1e-4, atol=1e-4)


@contextmanager
def counted(model):
    """The shapes of the ids that the model reads."""
    shapes = []
    embedding = model.model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, args, output: shapes.append(tuple(args[0].shape)))
    try:
        yield shapes
    finally:
        hook.remove()


@settings(max_examples=40, deadline=None)
@given(
    prefix=st.integers(0, 40),
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=5),
    chunk=st.sampled_from([10, 60, 1000]),
    seed=st.integers(0, 99),
)
def test_sequences_with_a_common_prefix_are_those_alone(llama, prefix, lengths, chunk, seed):
    sequences = [ids for ids in samples_of(prefix, lengths, seed) if len(ids)] or [np.array([3])]
    rows = [np.arange(len(ids)) for ids in sequences]
    strategy = ReadingStrategy("layers", shares_prefix=True)
    for ids, got in zip(sequences, chunked_forward.hidden_states(llama, sequences, rows, chunk, strategy), strict=True):
        torch.testing.assert_close(got, plain(llama, ids.tolist()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sequences", "read"),
    [
        ([np.arange(20)] * 3, [(1, 19), (3, 1)]),  # equal ones
        ([np.arange(20), np.arange(20) + 20], [(2, 20)]),  # nothing in common
        ([np.arange(40), np.append(np.arange(3), 50)], [(2, 40)]),  # too little
        ([np.arange(40)], [(1, 40)]),
        ([np.arange(90), np.arange(40)], [(1, 40), (2, 50)]),  # one is the other's beginning
        ([np.arange(60), np.append(np.arange(20), 50)], [(2, 60)]),  # less than a pass costs
    ],
)
def test_a_prefix_is_read_once_where_that_saves_enough(llama, sequences, read):
    strategy = ReadingStrategy("layers", shares_prefix=True)
    rows = [np.arange(len(ids)) for ids in sequences]
    with counted(llama) as tokens:
        chunked_forward.hidden_states(llama, sequences, rows, 1000, strategy)
    assert tokens == read


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        {
            "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 32,
        },
    ],
)  # fmt: skip
def test_embeddings_that_depend_on_the_length_are_read_whole(rope):
    config = hf.LlamaConfig(**SMALL, rope_parameters=rope)
    model = language_model(lambda: hf.LlamaForCausalLM(config))
    strategy = chunked_forward.prepare(model)
    assert strategy == ReadingStrategy("whole")
    ids = np.arange(60)
    (got,) = chunked_forward.hidden_states(model, [ids], [np.arange(60)], 16, strategy)
    torch.testing.assert_close(got, plain(language_model(lambda: hf.LlamaForCausalLM(config)), ids.tolist()))


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
    chunked_forward.hidden_states(llama, [np.array(ids)], [np.arange(50)], 7, LAYERS)
    assert torch.equal(plain(llama, ids), before)
    assert not [layer for layer in llama.model.base_model.layers if "forward" in vars(layer)]


def test_layers_that_fail_leave_the_model_as_it_was(llama, monkeypatch):
    last = llama.model.base_model.layers[-1].mlp
    monkeypatch.setattr(last, "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        chunked_forward.hidden_states(llama, [np.arange(50)], [np.arange(50)], 7, LAYERS)
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
    chunked_forward.hidden_states(llama, [np.arange(50)], [np.arange(50)], 10, LAYERS)
    assert len(held) == 4 * 5
    assert set(held) == {1}
