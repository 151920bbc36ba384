"""Draws follow the decoding distribution; a trace depends on its own seed, not on its neighbours."""

import pyarrow.parquet as pq
import pytest
import torch

from ssdfast import models
from ssdfast.config import DecodingConfig
from ssdfast.sampling.transformers import Request, draw, is_complete, sample_traces, trace_seed
from ssdfast.traces import read

from . import tiny

DECODING = DecodingConfig(temperature=1.1, top_k=20, top_p=0.95)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.load(tiny.save_model(tmp_path_factory.mktemp("model")), "float32")


def requests(count):
    prompts = [[3, 9, 4, 11], [3, 9, 4, 12, 5], [3, 9, 6], [3, 9, 4, 11, 7, 8]]
    return [Request(f"p{i}", prompts[i % 4], trace_seed(0, f"p{i}")) for i in range(count)]


def completions(directory):
    return [trace.completion_ids.tolist() for trace in read(directory)]


@pytest.mark.parametrize(
    ("decoding", "want"),
    [
        (DecodingConfig(temperature=1.0, top_k=0, top_p=1.0), [0.1, 0.4, 0.2, 0.3]),
        (DecodingConfig(temperature=1.0, top_k=3, top_p=1.0), [0, 4 / 9, 2 / 9, 3 / 9]),
        (DecodingConfig(temperature=1.0, top_k=0, top_p=0.65), [0, 4 / 7, 0, 3 / 7]),
        # top-p is taken of what top-k left: 4/7 alone falls short of 0.6
        (DecodingConfig(temperature=1.0, top_k=2, top_p=0.6), [0, 4 / 7, 0, 3 / 7]),
        (DecodingConfig(temperature=0.5, top_k=0, top_p=1.0), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        (DecodingConfig(temperature=1.0, top_k=1, top_p=1.0), [0, 1, 0, 0]),
    ],
)
def test_draws_follow_the_decoding_distribution(decoding, want):
    n = 10_000
    uniform_N = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    logits_NV = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(n, 4)
    got_V = torch.bincount(draw(logits_NV, decoding, uniform_N), minlength=4) / n
    torch.testing.assert_close(got_V, torch.tensor(want, dtype=torch.float32), rtol=0, atol=2e-4)


def test_a_draw_at_the_edge_stays_in_the_support():
    logits_NV = torch.tensor([[0.0, -1.0, -torch.inf]] * 2)
    edge_N = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits_NV, DecodingConfig(top_k=0, top_p=1.0), edge_N).tolist() == [0, 1]


def test_a_trace_does_not_depend_on_the_batch(model, tmp_path):
    sample_traces(model, requests(8), DECODING, 12, tmp_path / "together", traces_per_part=8)
    sample_traces(model, requests(8), DECODING, 12, tmp_path / "alone", traces_per_part=1)
    assert completions(tmp_path / "together") == completions(tmp_path / "alone")
    assert len({len(ids) for ids in completions(tmp_path / "together")}) > 1  # some ended before others


def test_sampled_tokens_follow_a_plain_forward(model, tmp_path):
    request = requests(1)[0]
    sample_traces(model, [request], DECODING, 12, tmp_path)
    (ids,) = completions(tmp_path)
    generator = torch.Generator().manual_seed(request.seed)
    sequence = list(request.prompt_ids)
    for token in ids:
        with torch.inference_mode():
            logits_V = model.model(input_ids=torch.tensor([sequence])).logits[0, -1].float()
        uniform = torch.rand((), dtype=torch.float64, generator=generator)
        assert draw(logits_V[None], DECODING, uniform[None]).item() == token
        sequence.append(token)


def test_a_trace_ends_at_its_end_of_text_or_at_the_limit(model, tmp_path):
    sample_traces(model, requests(12), DECODING, 12, tmp_path)
    reasons = pq.read_table(tmp_path)["finish_reason"].to_pylist()
    for ids, reason in zip(completions(tmp_path), reasons, strict=True):
        assert 1 not in ids[:-1]
        assert (ids[-1] == 1, len(ids) == 12) == ((True, len(ids) == 12) if reason == "stop" else (False, True))
    assert set(reasons) == {"stop", "length"}


def test_a_missing_part_is_made_again_and_the_others_are_left(model, tmp_path):
    sample_traces(model, requests(6), DECODING, 6, tmp_path, traces_per_part=2)
    parts = sorted(tmp_path.iterdir())
    before = [part.read_bytes() for part in parts]
    stamp = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    assert not is_complete(tmp_path, 6, traces_per_part=2)
    sample_traces(model, requests(6), DECODING, 6, tmp_path, traces_per_part=2)
    assert [part.read_bytes() for part in parts] == before
    assert parts[0].stat().st_mtime_ns == stamp
    assert is_complete(tmp_path, 6, traces_per_part=2)


def test_what_would_outgrow_the_context_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="p0: a prompt of 4 tokens and 60 new ones outgrow the context of 48"):
        sample_traces(model, requests(1), DECODING, 60, tmp_path)


def test_seeds_differ_by_problem_and_sample():
    assert len({trace_seed(s, p, n) for s in (0, 1) for p in ("a", "b") for n in (0, 1)}) == 8
