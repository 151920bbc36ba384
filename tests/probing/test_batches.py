"""Which traces the models read together, and that samples of one prompt read it once."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdfast.config import NamedPath, ProbeConfig
from ssdfast.probing import model_loading
from ssdfast.probing.plan import TraceItem, _batches
from ssdfast.probing.runner import probe
from ssdfast.sharded_table import ShardedTable

from .. import tiny


def item(problem, sample, prompt, completion):
    name, read = f"p{problem}", prompt + completion - 1
    return TraceItem("own", f"{name}#{sample}", name, 0, prompt, problem, completion, completion, read, None)


def names(batches):
    return [[trace.trace_id for trace in batch] for batch in batches]


def test_samples_of_a_long_prompt_have_a_batch_of_their_own():
    items = [item(problem, sample, 50, 10 + problem) for sample in range(3) for problem in range(2)]
    assert names(_batches(400, items)) == [["p1#0", "p1#1", "p1#2"], ["p0#0", "p0#1", "p0#2"]]
    assert names(_batches(410, items)) == [["p1#0", "p1#1", "p1#2", "p0#0", "p0#1", "p0#2"]], "it would save too little"


def test_samples_of_a_short_prompt_go_by_length():
    items = [item(problem, sample, 5, 100 + problem) for sample in range(3) for problem in range(2)]
    assert names(_batches(320, items)) == [["p1#0", "p1#1", "p1#2"], ["p0#0", "p0#1", "p0#2"]]
    assert names(_batches(10_000, items)) == [["p1#0", "p1#1", "p1#2", "p0#0", "p0#1", "p0#2"]]


def test_a_long_sample_does_not_pad_the_short_ones():
    short = [item(0, sample, 500, 10) for sample in range(1, 4)]
    items = [item(0, 0, 500, 1500), *short, item(1, 0, 500, 1480)]
    assert names(_batches(4000, items)) == [["p0#0", "p1#0"], ["p0#1", "p0#2", "p0#3"]]


@given(
    shapes=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=30),
    max_batch_tokens=st.integers(1, 400),
)
def test_every_trace_has_one_batch_within_the_limit_and_the_longest_come_first(shapes, max_batch_tokens):
    items = [item(problem, i, prompt, completion) for i, (problem, prompt, completion) in enumerate(shapes)]
    batches = list(_batches(max_batch_tokens, items))
    assert sorted(trace for batch in batches for trace in batch) == sorted(items)
    for batch in batches:
        lengths = [trace.read_tokens for trace in batch]
        assert lengths == sorted(lengths, reverse=True)
        assert len(batch) == 1 or len(batch) * lengths[0] <= max_batch_tokens
    firsts = [batch[0].read_tokens for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


@pytest.fixture
def read(monkeypatch):
    """The shapes of the ids that each model reads, by its path."""
    shapes = {}
    load = model_loading.load

    def watched(outline, dtype):
        reader = load(outline, dtype)
        embedding = reader.model.model.get_input_embeddings()
        mine = shapes.setdefault(outline.path, [])
        assert reader.way.shares_prefix  # after the trial, which reads too
        embedding.register_forward_hook(lambda module, args, output: mine.append(tuple(args[0].shape)))
        return reader

    monkeypatch.setattr(model_loading, "load", watched)
    return shapes


def test_samples_of_one_prompt_read_it_once_and_get_the_numbers_of_separate_probes(tmp_path, read):
    baseline, trained = tiny.save_pair(tmp_path)
    rng = np.random.default_rng(0)
    problems = ["p0"] * 4 + ["p1"] * 4
    prompts = np.repeat(rng.integers(3, 60, (2, 20)), 4, 0).tolist()
    completions = [rng.integers(3, 60, length).tolist() for length in (3, 8, 5, 8, 6, 4, 4, 2)]
    columns = {"problem_id": problems, "sample": [0, 1, 2, 3] * 2, "prompt_ids": prompts, "completion_ids": completions}

    def run(name, columns):
        path = tiny.save_traces(tmp_path / f"{name}-traces", len(columns["sample"]), **columns)
        source = NamedPath(name="own", path=path)
        config = ProbeConfig(baseline=baseline, trained=trained, traces=(source,), max_batch_tokens=120)
        probe(config, tmp_path / name)
        shards = ShardedTable.from_run(tmp_path / name, None).shards()
        return pa.concat_tables(shard.read() for shard in shards).to_pandas().set_index(["trace_id", "position"])

    together = run("together", columns)
    assert read[baseline] == read[trained] == [(1, 20), (4, 7), (1, 20), (4, 5)]
    for i in range(8):
        alone = run(f"alone-{i}", {name: values[i : i + 1] for name, values in columns.items()})
        mine = together.loc[alone.index]
        for column in ("base_entropy", "trained_entropy", "kl_trained_base", "base_token_logprob"):
            np.testing.assert_allclose(mine[column], alone[column], rtol=1e-4, atol=1e-5)
        assert mine["token_id"].tolist() == alone["token_id"].tolist() == completions[i]
