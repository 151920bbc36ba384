"""The probe's table against plain forwards and the reference kernel, however it is made and whatever goes wrong."""

import itertools
import json
import os
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ssdfast import models, run_dir
from ssdfast.config import ExecutionConfig, NamedPath, PositionConfig, ProbeConfig
from ssdfast.kernels import ProbeSpec, SamplingParams, probe_stats
from ssdfast.probing import baseline_states, model_loading, position_stats, token_classes
from ssdfast.probing.runner import probe
from ssdfast.probing.table import gather
from ssdfast.traces import read

from .. import tiny
from .runs import contents, parts


def config_of(directory, **settings) -> ProbeConfig:
    baseline, trained = tiny.save_pair(directory)
    sources = (
        NamedPath(name="baseline", path=tiny.save_traces(directory / "traces-a", 7, seed=1)),
        NamedPath(name="trained", path=tiny.save_traces(directory / "traces-b", 5, seed=2)),
    )
    return ProbeConfig(
        **{
            "baseline": baseline,
            "trained": trained,
            "traces": sources,
            "max_batch_tokens": 32,
            "positions_per_shard": 40,
        }
        | settings
    )


def table_of(out):
    return pq.ParquetDataset(parts(out)).read()


def by_trace(table):
    """The rows in the order of the sources: within parts the longest traces come first."""
    keys = list(zip(*(table[name].to_pylist() for name in ("trace_source", "trace_id", "position")), strict=True))
    return table.take(sorted(range(len(keys)), key=keys.__getitem__))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    config = config_of(directory)
    probe(config, directory / "out")
    return config, directory / "out"


def test_every_position_is_there_once_in_order(finished):
    config, out = finished
    want = sorted(
        (source.name, trace.trace_id, place, token)
        for source in config.traces
        for trace in read(Path(source.path))
        for place, token in enumerate(trace.completion_ids.tolist())
    )
    table = table_of(out)
    columns = [table[name].to_pylist() for name in ("trace_source", "trace_id", "position", "token_id")]
    rows = list(zip(*columns, strict=True))
    assert sorted(rows) == want
    changes = sum(one[:2] != other[:2] for one, other in itertools.pairwise(rows))
    assert changes + 1 == len({row[:2] for row in rows}), "the rows of a trace stand together"
    for part in parts(out):
        positions = pq.read_table(part, columns=["position"])["position"].to_pylist()
        assert all(place in (0, before + 1) for before, place in itertools.pairwise(positions))
    assert len(parts(out)) > 3


def test_every_column_is_that_of_a_plain_forward(finished):
    config, out = finished
    a, b = models.load(config.baseline, "float32"), models.load(config.trained, "float32")
    rows_a, rows_b, tokens = [], [], []
    for _, trace in sorted(
        ((source.name, trace) for source in config.traces for trace in read(Path(source.path))),
        key=lambda found: (found[0], found[1].trace_id),
    ):
        ids = torch.tensor([*trace.prompt_ids, *trace.completion_ids])
        scored = slice(len(trace.prompt_ids) - 1, len(ids) - 1)
        with torch.inference_mode():
            rows_a.append(a.model(input_ids=ids[None]).logits[0, scored])
            rows_b.append(b.model(input_ids=ids[None]).logits[0, scored])
        tokens.append(ids[len(trace.prompt_ids) :])
    classes = token_classes.classify(a.tokenizer, token_classes.token_texts(a.tokenizer, a.vocabulary), {})
    spec = ProbeSpec(
        train_sampling=SamplingParams(1.1, 20, 0.95), token_class=classes.of_token, n_classes=len(classes.names)
    )
    want = probe_stats(torch.cat(rows_a), torch.cat(rows_b), torch.cat(tokens), spec, backend="reference")
    table = by_trace(table_of(out))
    for name, expected in gather([want]).items():
        got = np.array(table[name].to_pylist())
        assert got.shape == expected.shape, name
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=name)
    for name, whole in (
        ("base_top1_logprob", "base_top_logprobs"),
        ("trained_logprob_at_base_top1", "trained_logprobs_at_base_top"),
    ):
        assert table[name].to_pylist() == [row[0] for row in table[whole].to_pylist()]


@pytest.mark.parametrize("model_loading", ["both", "sequential"])
@pytest.mark.parametrize("padded", ["baseline", "trained"])
def test_rows_that_pad_a_head_do_not_count(finished, padded, model_loading, tmp_path, caplog):
    """The padding would win every argmax."""
    config, out = finished
    model = AutoModelForCausalLM.from_pretrained(getattr(config, padded))
    model.resize_token_embeddings(tiny.VOCABULARY + 32, mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight[tiny.VOCABULARY :] = 100 * model.lm_head.weight[3]
    model.save_pretrained(tmp_path / "padded")
    AutoTokenizer.from_pretrained(getattr(config, padded)).save_pretrained(tmp_path / "padded")
    caplog.set_level("INFO")
    changed = config.model_copy(update={padded: str(tmp_path / "padded")})
    probe(changed, tmp_path / "out", ExecutionConfig(model_loading=model_loading))
    assert table_of(tmp_path / "out").equals(table_of(out))
    counts = {name: 96 + 32 * (name == padded) for name in ("baseline", "trained")}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["vocabulary"] == {"compared": 96} | counts
    assert "they are compared over the first 96" in caplog.text


def test_classes_and_flags(finished):
    _, out = finished
    rows = table_of(out).to_pylist()
    assert len({row["position_class"] for row in rows}) > 1
    correcting = {tiny.WORDS.index("Wait"), tiny.WORDS.index("But")}
    for row in rows:
        assert row["top1_changed"] == (row["base_top_ids"][0] != row["trained_top_ids"][0])
        assert row["self_correction"] == (row["base_top_ids"][0] in correcting or row["token_id"] in correcting)
        if row["position_class"] == "lock":
            assert np.exp(row["base_top_logprobs"][0]) >= 0.5
    assert any(row["self_correction"] for row in rows)
    assert any(row["top1_changed"] for row in rows)


def test_where_a_position_stands_and_whether_its_trace_was_right(finished, tmp_path):
    config, _ = finished
    close, end = tiny.WORDS.index("</think>"), tiny.WORDS.index("</s>")
    thinking = [[20, close, 21, close, 7], [22, 23, end]]
    path = tiny.save_traces(tmp_path / "traces", 2, completion_ids=thinking, correct=[True, None])
    settings = {"traces": (NamedPath(name="own", path=path),), "positions": PositionConfig(select="stride", stride=2)}
    probe(config.model_copy(update=settings), tmp_path / "out")
    rows = by_trace(table_of(tmp_path / "out")).to_pylist()
    assert [row["position"] for row in rows] == [0, 2, 4, 0, 2]
    assert [row["tokens_to_think_end"] for row in rows] == [3, 1, -1, 3, 1]
    assert [row["correct"] for row in rows] == [True] * 3 + [None] * 2
    assert [row["token_class"] for row in rows] == ["other", "other", "operators", "other", "end_of_text"]
    assert run_dir.read_json(tmp_path / "out" / "summary.json")["eos_ids"] == [end, close]


def test_column_types_are_the_contract(finished):
    _, out = finished
    types = {field.name: str(field.type) for field in table_of(out).schema}
    assert types["token_id"] == types["position"] == types["base_token_rank"] == "int32"
    assert types["kl_base_trained"] == types["trained_entropy"] == "float"
    assert types["base_top_ids"].startswith("fixed_size_list<")
    assert types["base_top_ids"].endswith("int32>[20]")
    assert types["base_ce_compression"] == types["trained_kept_mass"] == "float"
    assert types["top1_changed"] == types["self_correction"] == "bool"
    assert types["position_class"].startswith("dictionary<values=string")


def test_the_directory_is_read_as_one_table_that_describes_itself(finished):
    """Nothing but Parquet is in it, and the schema metadata holds what the columns need."""
    config, out = finished
    assert pq.read_table(out / "positions").num_rows == len(table_of(out))
    assert {file.suffix for file in (out / "positions").glob("[!.]*")} == {".parquet"}
    described = json.loads(pq.read_schema(parts(out)[0]).metadata[b"ssdfast"])
    assert described["schema_version"] == 1
    assert described["token_classes"][:2] == list(token_classes.BUILT_IN[:2])
    assert described["lse_temperatures"] == list(config.lse_temperatures)
    assert described["train_sampling"] == config.train_sampling.model_dump()
    assert described["eval_sampling"] == config.eval_sampling.model_dump()


def test_texts_of_the_vocabulary(finished):
    _, out = finished
    texts = json.loads((out / "vocabulary.json").read_text())
    assert {texts[str(i)].strip() for i in range(len(tiny.WORDS))} == set(tiny.WORDS)


def test_batches_and_shards_do_not_change_the_numbers(finished, tmp_path):
    config, out = finished
    probe(config.model_copy(update={"max_batch_tokens": 7, "positions_per_shard": 1000}), tmp_path)
    assert len(parts(tmp_path)) == 1
    one, other = by_trace(table_of(out)), by_trace(table_of(tmp_path))
    for name in one.column_names:
        values, others = np.array(one[name].to_pylist()), np.array(other[name].to_pylist())
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, others, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            assert (values == others).all(), name


@pytest.mark.parametrize("max_spill_gb", [32.0, 1e-5, 1e-9])
def test_one_model_after_the_other_writes_the_same_bytes(finished, tmp_path, max_spill_gb):
    config, out = finished
    probe(config, tmp_path, ExecutionConfig(model_loading="sequential", max_spill_gb=max_spill_gb))
    assert contents(tmp_path) == contents(out)
    assert list((tmp_path / "spill").iterdir()) == []


def keeping(directory, **more):
    return ExecutionConfig(baseline_states=str(directory), **more)


def test_kept_states_of_the_baseline_serve_the_next_model(finished, tmp_path, forwards):
    config, out = finished
    probe(config, tmp_path / "first", keeping(tmp_path / "kept"))
    assert contents(tmp_path / "first") == contents(out)
    assert len(list((tmp_path / "kept").iterdir())) == len(parts(out))
    other = config.model_copy(update={"trained": tiny.save_model(tmp_path / "other", moved=0.05)})
    forwards.clear()
    probe(other, tmp_path / "second", keeping(tmp_path / "kept"))
    assert set(forwards) == {other.trained}
    probe(other, tmp_path / "alone")
    assert contents(tmp_path / "second") == contents(tmp_path / "alone")


@pytest.mark.parametrize("change", ["weights", "traces", "batches", "damage"])
def test_kept_states_serve_only_what_they_were_made_of(change, tmp_path, forwards):
    config = config_of(tmp_path)
    probe(config, tmp_path / "first", keeping(tmp_path / "kept"))
    if change == "weights":  # under the same path
        tiny.save_model(tmp_path / "baseline", moved=0.01)
    elif change == "traces":
        tiny.save_traces(tmp_path / "traces-a", 7, seed=9)
        tiny.save_traces(tmp_path / "traces-b", 5, seed=8)
    elif change == "batches":
        config = config.model_copy(update={"max_batch_tokens": 16})
    else:
        for file in (tmp_path / "kept").iterdir():
            file.write_bytes(file.read_bytes()[:-1])
    forwards.clear()
    probe(config, tmp_path / "second", keeping(tmp_path / "kept"))
    assert config.baseline in forwards
    probe(config, tmp_path / "alone")
    assert contents(tmp_path / "second") == contents(tmp_path / "alone")


def test_states_that_would_take_too_much_are_not_kept(finished, tmp_path, caplog):
    config, out = finished
    probe(config, tmp_path / "out", keeping(tmp_path / "kept", max_spill_gb=1e-5))
    assert contents(tmp_path / "out") == contents(out)
    assert not (tmp_path / "kept").exists()
    assert "more than max_spill_gb = 1e-05: they are not kept" in caplog.text


@pytest.mark.parametrize("more", [{"engine": "ray"}, {"model_loading": "both"}])
def test_states_are_kept_by_one_model_after_the_other(more, tmp_path):
    with pytest.raises(ValueError, match="leave out engine: ray and model_loading: both"):
        keeping(tmp_path, **more)


IN_TURN = ExecutionConfig(model_loading="sequential")


def dies_between_the_models(config, out, monkeypatch):
    """The hidden states of the baseline are on the disk, and nothing has come of them."""

    def dies(self, scored):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(position_stats.TableBuilder, "build", dies)
        with pytest.raises(KeyboardInterrupt):
            probe(config, out, IN_TURN)
    return sorted((out / "spill").iterdir())


def test_hidden_states_of_a_killed_run_are_used_again(finished, tmp_path, monkeypatch):
    config, out = finished
    spilled = dies_between_the_models(config, tmp_path, monkeypatch)
    assert len(spilled) == len(parts(out))
    (tmp_path / "spill" / ".shard-00000.safetensors.x.ssdfast.tmp").write_bytes(b"half")
    assert dies_between_the_models(config, tmp_path, monkeypatch) == spilled, "what was half written is gone"
    asked = []
    run = model_loading.forward
    for module in (model_loading, baseline_states):
        monkeypatch.setattr(module, "forward", lambda model, *args: asked.append(model.path) or run(model, *args))
    probe(config, tmp_path, IN_TURN)
    assert set(asked) == {config.trained}
    assert contents(tmp_path) == contents(out)


def test_hidden_states_of_other_work_are_not_used(finished, tmp_path, monkeypatch):
    config, out = finished
    file = dies_between_the_models(config, tmp_path, monkeypatch)[0]
    wrong = {name: torch.zeros_like(states) for name, states in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(wrong, file, {"fingerprint": "another", "failed": "{}"})
    probe(config, tmp_path, IN_TURN)
    assert contents(tmp_path) == contents(out)


def test_the_table_may_be_behind_a_url(finished, tmp_path):
    config, out = finished
    url = f"memory://{tmp_path}"
    probe(config.model_copy(update={"table_dir": url}), tmp_path / "out")
    files = fsspec.filesystem("memory").glob(f"{tmp_path}/shard-*.parquet")
    assert [fsspec.filesystem("memory").cat_file(file) for file in files] == [f.read_bytes() for f in parts(out)]
    assert parts(tmp_path / "out") == []
    mine, theirs = (json.loads((path / "summary.json").read_text()) for path in (tmp_path / "out", out))
    assert mine["all"] == theirs["all"]
    with pytest.raises(ValueError, match=r"memory://.* holds shard 0 of a probe with other settings"):
        probe(config.model_copy(update={"table_dir": url, "seed": 5}), tmp_path / "other")
    probe(config.model_copy(update={"table_dir": url, "seed": 5}), tmp_path / "other", overwrite=True)


def test_only_the_positions_asked_for(finished, tmp_path):
    config, out = finished
    probe(config.model_copy(update={"positions": PositionConfig(select="stride", stride=3)}), tmp_path)
    some, every = by_trace(table_of(tmp_path)), by_trace(table_of(out))
    assert set(some["position"].to_pylist()) > {0, 3, 6}
    want = every.filter([place % 3 == 0 for place in every["position"].to_pylist()])
    assert some["trace_id"].to_pylist() == want["trace_id"].to_pylist()
    np.testing.assert_allclose(
        some["kl_base_trained"].to_numpy(), want["kl_base_trained"].to_numpy(), rtol=1e-4, atol=1e-6
    )
    assert json.loads((tmp_path / "summary.json").read_text())["selected"]["positions"] == len(some)


def test_sampled_traces_are_whole(finished, tmp_path):
    config, out = finished
    probe(config.model_copy(update={"positions": PositionConfig(max_traces=4)}), tmp_path)
    some, every = by_trace(table_of(tmp_path)), by_trace(table_of(out))
    drawn = set(zip(some["trace_source"].to_pylist(), some["trace_id"].to_pylist(), strict=True))
    assert len(drawn) == 4
    assert {label for label, _ in drawn} == {"baseline", "trained"}
    keys = zip(every["trace_source"].to_pylist(), every["trace_id"].to_pylist(), strict=True)
    assert len(some) == sum(key in drawn for key in keys)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["left_out"]["not_selected"] == 8
    assert summary["selected"]["strata"]


def test_a_finished_probe_is_left_alone(finished):
    config, out = finished
    before = {file: file.stat().st_mtime_ns for file in out.rglob("[!.]*")}
    probe(config, out)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("[!.]*")} == before


def test_only_what_is_missing_is_made_again(finished, tmp_path):
    config, out = finished
    probe(config, tmp_path)
    (tmp_path / "summary.json").unlink()
    parts(tmp_path)[1].unlink()
    kept = parts(tmp_path)[0].stat().st_mtime_ns
    probe(config, tmp_path)
    assert contents(tmp_path) == contents(out)
    assert parts(tmp_path)[0].stat().st_mtime_ns == kept


def test_a_truncated_shard_is_named_and_made_again(finished, tmp_path, caplog):
    config, out = finished
    probe(config, tmp_path)
    (tmp_path / "summary.json").unlink()
    cut = parts(tmp_path)[1]
    cut.write_bytes(cut.read_bytes()[:-10])
    probe(config, tmp_path)
    assert "shard-00001.parquet is not a whole shard of a probe" in caplog.text
    assert contents(tmp_path) == contents(out)


def test_a_second_run_on_the_same_directory_is_refused(finished, tmp_path):
    config, _ = finished
    with run_dir.lock(tmp_path), pytest.raises(ValueError, match=rf"{tmp_path} is in use by process {os.getpid()} on"):
        probe(config, tmp_path)
    probe(config, tmp_path)


FAILING = tiny.VOCABULARY - 1


def fail_on(monkeypatch, path, token=FAILING):
    """A model that runs out of memory wherever it reads one token."""
    load = model_loading.load

    def loaded(outline, dtype):
        found = load(outline, dtype)
        if outline.path == path:
            base = found.model.model.base_model
            run = base.forward

            def picky(*args, input_ids, **kwargs):
                if (input_ids == token).any():
                    raise RuntimeError("out of\n memory")
                return run(*args, input_ids=input_ids, **kwargs)

            base.forward = picky
        return found

    monkeypatch.setattr(model_loading, "load", loaded)


@pytest.mark.parametrize("mode", ["both", "sequential"])
@pytest.mark.parametrize("which", ["baseline", "trained"])
def test_a_trace_that_a_model_fails_on_is_recorded_and_the_run_goes_on(tmp_path, monkeypatch, mode, which):
    config = config_of(tmp_path)
    ids = [[4, 5, 6], [4, FAILING, 6], [7, 8], [FAILING, 3, 4]]
    some = NamedPath(name="some", path=tiny.save_traces(tmp_path / "some", 4, completion_ids=ids))
    config = config.model_copy(update={"traces": (some,)})
    probe(config, tmp_path / "whole")
    with monkeypatch.context() as broken:
        fail_on(broken, getattr(config, which))
        failed = probe(config, tmp_path / "out", ExecutionConfig(model_loading=mode))
    assert {one.trace_id for one in failed} == {"problem1#0", "problem3#0"}
    assert failed[0].reason == f"{getattr(config, which)}: RuntimeError: out of memory"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["failed"] == [one.to_json() for one in failed]
    assert summary["positions"] == 5
    assert sorted(set(table_of(tmp_path / "out")["trace_id"].to_pylist())) == ["problem0#0", "problem2#0"]
    assert probe(config, tmp_path / "out") == [], "what failed is tried again"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_shard_of_failures_alone_has_the_columns(tmp_path, monkeypatch):
    config = config_of(tmp_path, positions_per_shard=1, max_batch_tokens=1)
    ids = [[4, FAILING, 6, 7], [7, 8]]
    some = NamedPath(name="some", path=tiny.save_traces(tmp_path / "some", 2, completion_ids=ids))
    fail_on(monkeypatch, config.trained)
    probe(config.model_copy(update={"traces": (some,)}), tmp_path / "out")
    empty, full = (pq.read_table(part) for part in parts(tmp_path / "out"))
    assert len(empty) == 0
    assert empty.schema.equals(full.schema)


@pytest.mark.parametrize(("which", "mode"), [("trained", "both"), ("baseline", "sequential")])
def test_models_that_fail_on_everything_stop_the_run_and_are_tried_again(tmp_path, monkeypatch, which, mode):
    config = config_of(tmp_path)
    ids = [[FAILING, 3]] * 9
    some = NamedPath(name="some", path=tiny.save_traces(tmp_path / "some", 9, completion_ids=ids))
    config = config.model_copy(update={"traces": (some,)})
    with monkeypatch.context() as broken:
        fail_on(broken, getattr(config, which))
        with pytest.raises(RuntimeError, match=r"failed on all of the first \d+ traces: .*out of memory"):
            probe(config, tmp_path / "out", ExecutionConfig(model_loading=mode))
    assert probe(config, tmp_path / "out", ExecutionConfig(model_loading=mode)) == []


def test_traces_that_are_too_long_are_named_or_counted(tmp_path, caplog):
    caplog.set_level("INFO", "ssdfast")
    config = config_of(tmp_path)
    long = NamedPath(
        name="long",
        path=tiny.save_traces(tmp_path / "long", 2, completion_ids=[[4] * tiny.CONTEXT, [4, 4]]),
    )
    config = config.model_copy(update={"traces": (*config.traces, long)})
    with pytest.raises(
        ValueError, match=r"long/\w+-00000.parquet, trace problem0#0 has 5\d tokens, .* 48: .*--on-too-long"
    ):
        probe(config, tmp_path / "out")
    assert parts(tmp_path / "out") == []
    probe(config.model_copy(update={"on_too_long": "skip"}), tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["left_out"]["too_long"] == 1
    assert summary["trace_sources"]["long"] == 2
    assert "1 traces do not fit" in caplog.text


def test_a_trace_that_fills_the_context_is_probed(tmp_path):
    full = tiny.save_traces(tmp_path / "full", 1, prompt_ids=[[3, 4]], completion_ids=[[4] * (tiny.CONTEXT - 2)])
    config = config_of(tmp_path).model_copy(update={"traces": (NamedPath(name="full", path=full),)})
    probe(config, tmp_path / "out")
    assert len(table_of(tmp_path / "out")) == tiny.CONTEXT - 2


def test_a_trace_without_a_completion_has_no_positions(tmp_path):
    path = tiny.save_traces(tmp_path / "some", 2, completion_ids=[[], [4, 4]])
    config = config_of(tmp_path).model_copy(update={"traces": (NamedPath(name="some", path=path),)})
    probe(config, tmp_path / "out")
    assert table_of(tmp_path / "out")["trace_id"].to_pylist() == ["problem1#0"] * 2
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["left_out"]["empty"] == 1


def test_the_same_trace_twice_under_a_name_is_refused(tmp_path):
    config = config_of(tmp_path)
    twice = NamedPath(name="baseline", path=config.traces[1].path)
    with pytest.raises(ValueError, match=r"trace problem0#0 occurs twice under the name 'baseline'"):
        probe(config.model_copy(update={"traces": (config.traces[0], twice)}), tmp_path / "out")


def test_nothing_to_probe(tmp_path):
    path = tiny.save_traces(tmp_path / "none", 1, completion_ids=[[]])
    config = config_of(tmp_path).model_copy(update={"traces": (NamedPath(name="none", path=path),)})
    with pytest.raises(ValueError, match=r"there is nothing to probe: .*none holds no completion tokens"):
        probe(config, tmp_path / "out")


def test_models_that_do_not_fit_together_are_refused(tmp_path):
    config = config_of(tmp_path)
    other = tiny.save_model(tmp_path / "other", words=[*tiny.WORDS[:-1], "a"])
    with pytest.raises(ValueError, match=r"tokenizers .* differ"):
        probe(config.model_copy(update={"trained": other}), tmp_path / "out")
