"""Traces of the transformers engine: their distribution, their ends, and that nothing but their seed decides them."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ssdfast import models
from ssdfast.config import EngineSamplingParams
from ssdfast.kernels import lm_head_logits
from ssdfast.loop_detection import LoopRule
from ssdfast.sampling import transformers as engine_module
from ssdfast.sampling.engine import Request, Rules, trace_seed
from ssdfast.sampling.token_sampling import Noise, SampledTokens, draw
from ssdfast.sampling.transformers import TransformersEngine

from .. import tiny
from .oracle import chi_squared_p, distribution

SAMPLING = EngineSamplingParams(temperature=1.1)
PROMPTS = [[3, 9, 4, 11], [3, 9, 4, 12, 5], [3, 9, 6], [3, 9, 4, 11, 7, 8]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.load(tiny.save_model(tmp_path_factory.mktemp("model")), "float32")


def requests(count, tokens=12, prompts=PROMPTS):
    return [Request(f"p{i}", prompts[i % len(prompts)], trace_seed(0, f"p{i}"), tokens) for i in range(count)]


def sampled(model, asked, batch=64, **rules):
    """Completions in the order of the requests."""
    rules = Rules(**({"sampling": SAMPLING, "end_ids": frozenset({1})} | rules))
    found = list(TransformersEngine(model, rules, batch).complete(asked, lambda tokens: None))
    assert len(found) == len(asked)
    by_request = {completion.request: completion for completion in map(_hashable, found)}
    return [by_request[_hashable_request(request)] for request in asked]


def _hashable(completion):
    return dataclasses.replace(completion, request=_hashable_request(completion.request))


def _hashable_request(request):
    return dataclasses.replace(request, prompt_ids=tuple(request.prompt_ids))


def logits_after(model, ids):
    with torch.inference_mode():
        return model.model(input_ids=torch.tensor([ids])).logits[0, -1].float()


@pytest.mark.parametrize(
    "sampling",
    [
        EngineSamplingParams(temperature=1.3, top_k=20, top_p=0.9),
        EngineSamplingParams(temperature=0.8, top_k=0, top_p=1.0, min_p=0.03),
        EngineSamplingParams(temperature=1.0, top_k=0, top_p=1.0),
    ],
    ids=str,
)
def test_the_next_token_follows_the_definition(model, sampling):
    n = 20_000
    found = sampled(model, requests(n, tokens=1, prompts=PROMPTS[:1]), batch=2_000, sampling=sampling)
    counts = np.bincount([completion.ids[0] for completion in found], minlength=96)
    want_V = distribution(logits_after(model, PROMPTS[0]), sampling)
    assert chi_squared_p(counts.tolist(), want_V.tolist()) > 1e-4


def test_the_presence_penalty_is_on_what_the_completion_holds(model):
    sampling = EngineSamplingParams(temperature=1.2, top_k=30, top_p=1.0, presence_penalty=1.5)
    n = 24_000
    found = sampled(model, requests(n, tokens=2, prompts=PROMPTS[:1]), batch=2_000, sampling=sampling)
    pairs = np.array([completion.ids for completion in found if len(completion.ids) == 2])
    # Of the tokens that are likely to be drawn again, the most frequent.
    again = [distribution(logits_after(model, [*PROMPTS[0], v]), sampling)[v].item() for v in range(96)]
    first = int((np.bincount(pairs[:, 0], minlength=96) * np.array(again)).argmax())
    counts = np.bincount(pairs[pairs[:, 0] == first, 1], minlength=96)
    logits_V = logits_after(model, [*PROMPTS[0], first])
    assert chi_squared_p(counts.tolist(), distribution(logits_V, sampling, [first]).tolist()) > 1e-4
    assert chi_squared_p(counts.tolist(), distribution(logits_V, sampling).tolist()) < 1e-4


@pytest.mark.parametrize(
    "sampling", [SAMPLING, EngineSamplingParams(top_k=0, top_p=1.0, presence_penalty=0.5)], ids=str
)
def test_a_trace_does_not_depend_on_the_batch(model, sampling):
    asked = requests(40)
    together = sampled(model, asked, batch=40, sampling=sampling)
    alone = sampled(model, asked, batch=1, sampling=sampling)
    few = sampled(model, asked[::-1], batch=7, sampling=sampling)[::-1]
    assert [c.ids for c in together] == [c.ids for c in alone] == [c.ids for c in few]
    assert len({len(c.ids) for c in together}) > 3  # some ended before others


@pytest.mark.parametrize("tokens", [1, 8, 20])
def test_prompts_that_are_read_in_parts_give_the_same_traces(model, tokens, monkeypatch):
    """Parts of one prompt, of several, and one part; with a common prefix and without."""
    for prompts in (PROMPTS, [*PROMPTS, [7, 7]]):
        together = sampled(model, requests(40, prompts=prompts), batch=16)
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "_READ_TOKENS", tokens)
            in_parts = sampled(model, requests(40, prompts=prompts), batch=16)
        assert [trace.ids for trace in in_parts] == [trace.ids for trace in together]


def test_prompts_of_similar_length_are_read_together(model, monkeypatch):
    monkeypatch.setattr(engine_module, "_READ_TOKENS", 12)
    shapes = []
    forward = engine_module._Batch._forward
    monkeypatch.setattr(
        engine_module._Batch,
        "_forward",
        lambda self, cache, ids_BL, *rest: shapes.append(tuple(ids_BL.shape)) or forward(self, cache, ids_BL, *rest),
    )
    sampled(model, requests(8, tokens=1), batch=8)
    assert shapes == [(1, 2), (4, 2), (3, 4), (1, 4)]  # the prefix, then the rests: 1 1 2 2, 3 3 4, 4 tokens


def test_a_trace_takes_the_place_of_one_that_ended(model):
    """Lengths and prompts of all sizes: rows leave and join, and every trace is what it is alone."""
    rng = np.random.default_rng(0)
    asked = [
        Request(f"p{i}", rng.integers(3, 90, int(rng.integers(1, 30))).tolist(), trace_seed(0, f"p{i}"), int(tokens))
        for i, tokens in enumerate(rng.integers(1, 40, 60))
    ]
    rows = []
    step = engine_module._Batch._step

    def counted(self):
        rows.append((len(self.active), len(self.traces)))
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module._Batch, "_step", counted)
        together = sampled(model, asked, batch=16, end_ids=frozenset({1}))
    alone = sampled(model, asked, batch=1, end_ids=frozenset({1}))
    assert [c.ids for c in together] == [c.ids for c in alone]
    tokens = sum(len(c.ids) for c in alone)
    # With batches that run down, as many steps as the longest trace of each; here most rows have a trace at most steps.
    assert sum(active for active, _ in rows) > 0.75 * sum(all_rows for _, all_rows in rows)
    assert len(rows) < 1.6 * tokens / 16


def test_padding_that_no_trace_needs_is_dropped(model):
    """Two long traces leave; the cache of those that stay is as long as the longest of them."""
    long = [Request(f"long{i}", [5] * 60, i, 3) for i in range(2)]
    asked = [*long, *(Request(f"p{i}", [4, 9], i, 30) for i in range(14))]
    lengths = []
    step = engine_module._Batch._step

    def measured(self):
        lengths.append(self.cache.get_seq_length())
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module._Batch, "_step", measured)
        sampled(model, asked, batch=16, end_ids=frozenset())
    assert max(lengths) >= 61
    assert lengths[-1] <= 32


def test_close_draws_are_made_from_the_trace_alone(model, monkeypatch):
    """With every draw called close, and the batch's logits worthless, the traces are still the same."""
    asked = requests(6)
    want = [c.ids for c in sampled(model, asked)]
    alone = engine_module._Batch._logits_alone

    def worthless(logits_BV, sampling, noise):
        found = draw(logits_BV, sampling, noise)
        if calls:
            return found
        return SampledTokens(torch.zeros_like(found.ids_B), torch.ones_like(found.close_B))

    calls = []

    def from_alone(self, trace):
        calls.append(trace)
        return alone(self, trace)

    def one_draw(logits_BV, sampling, noise):
        found = worthless(logits_BV, sampling, noise)
        calls.clear()
        return found

    monkeypatch.setattr(engine_module._Batch, "_logits_alone", from_alone)
    monkeypatch.setattr(engine_module, "draw", one_draw)
    assert [c.ids for c in sampled(model, asked)] == want


def test_tokens_are_drawn_from_the_logits_of_a_plain_forward(model):
    (completion,) = sampled(model, requests(1))
    ids = list(PROMPTS[0])
    for step, token in enumerate(completion.ids):
        noise = Noise(np.array([completion.request.seed], np.uint64), np.array([step], np.uint64))
        assert draw(logits_after(model, ids)[None], SAMPLING, noise).ids_B.item() == token
        ids.append(token)


def test_a_trace_ends_at_an_end_of_text_or_at_its_own_limit(model):
    asked = [dataclasses.replace(request, max_new_tokens=5 + i % 9) for i, request in enumerate(requests(30))]
    found = sampled(model, asked, end_ids=frozenset({1, 40}))
    for request, completion in zip(asked, found, strict=True):
        assert not {1, 40} & set(completion.ids[:-1])
        ended = completion.ids[-1] in (1, 40)
        assert completion.finish_reason == ("stop" if ended else "length")
        assert len(completion.ids) <= request.max_new_tokens
        assert ended or len(completion.ids) == request.max_new_tokens
    assert {completion.finish_reason for completion in found} == {"stop", "length"}


def test_top_logprobs_are_the_models_own(model):
    sampling = EngineSamplingParams(temperature=2.0, top_k=3, presence_penalty=1.0)
    found = sampled(model, requests(5), top_logprobs=7, sampling=sampling)
    for completion in found:
        assert completion.top_ids.shape == completion.top_logprobs.shape == (len(completion.ids), 7)
        assert completion.top_ids.dtype == np.int32
        assert completion.top_logprobs.dtype == np.float32
        for place in range(len(completion.ids)):
            logits_V = logits_after(model, [*completion.request.prompt_ids, *completion.ids[:place]])
            want_7, ids_7 = logits_V.double().log_softmax(0).topk(7)
            assert completion.top_ids[place].tolist() == ids_7.tolist()
            np.testing.assert_allclose(completion.top_logprobs[place], want_7.float().numpy(), atol=2e-4)


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    """One with room for loops, that sees only the last token: greedily it goes round and round."""
    directory = tmp_path_factory.mktemp("long")
    torch.manual_seed(3)
    config = tiny.config()
    config.max_position_embeddings = 400
    network = AutoModelForCausalLM.from_config(config)
    for layer in network.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
    network.save_pretrained(directory)
    tiny.tokenizer().save_pretrained(directory)
    return models.load(str(directory), "float32")


def test_a_loop_ends_the_trace_where_the_rule_first_holds_and_an_audited_one_runs_on(long_model):
    rules = {"sampling": EngineSamplingParams(temperature=0.01, top_k=1), "end_ids": frozenset({1})}
    asked = requests(4, tokens=300)
    free = sampled(long_model, asked, **rules)
    loops = LoopRule(min_repeats=3, min_tokens=64, max_period=50)
    audited = [dataclasses.replace(request, audited=i % 2 == 1) for i, request in enumerate(asked)]
    found = sampled(long_model, audited, loops=loops, **rules)
    assert any(completion.finish_reason == "loop" for completion in found), "no trace went round"
    for request, plain, completion in zip(audited, free, found, strict=True):
        assert plain.loop_at is None
        if completion.loop_at is None:
            assert completion.ids == plain.ids
        elif request.audited:
            assert completion.ids == plain.ids
            assert completion.finish_reason == plain.finish_reason
        else:
            assert completion.finish_reason == "loop"
            assert completion.ids == plain.ids[: completion.loop_at]


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_5_text", "gemma2", "mistral"])
def test_other_architectures_do_not_depend_on_the_batch_either(kind, tmp_path):
    """Left padding, a shared prefix and leaving rows must suit sliding windows and recurrent layers too."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "vocab_size": 96, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256}
    config = AutoConfig.for_model(kind, **small, **heads, sliding_window=6, initializer_range=0.2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = models.load(str(tmp_path), "float32")
    asked = requests(9, tokens=16)
    together, alone = sampled(model, asked, batch=9), sampled(model, asked, batch=1)
    assert [c.ids for c in together] == [c.ids for c in alone]
    (first, *_) = alone
    ids = list(first.request.prompt_ids)
    for step, token in enumerate(first.ids):
        noise = Noise(np.array([first.request.seed], np.uint64), np.array([step], np.uint64))
        hidden_1LH = model.model.base_model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state
        assert draw(lm_head_logits(hidden_1LH[:, -1], model.head).detach(), SAMPLING, noise).ids_B.item() == token
        ids.append(token)


def test_tokens_are_reported_as_they_come(model):
    told = []
    engine = TransformersEngine(model, Rules(SAMPLING, frozenset({1})), 4)
    found = list(engine.complete(requests(10), told.append))
    assert sum(told) == sum(len(completion.ids) for completion in found)


def test_seeds_differ_by_problem_and_sample():
    assert len({trace_seed(s, p, n) for s in (0, 1) for p in ("a", "b") for n in (0, 1)}) == 8
