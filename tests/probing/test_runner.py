"""The probe's table against plain forwards and the reference kernel; stopping it costs nothing but time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ssdfast import models
from ssdfast.config import ProbeConfig, TraceSource, dump
from ssdfast.kernels import Decoding, ProbeSpec, probe_stats
from ssdfast.probing import token_classes
from ssdfast.probing.runner import probe
from ssdfast.traces import read

from .. import tiny


def config_of(directory, **settings) -> ProbeConfig:
    baseline, trained = tiny.save_pair(directory)
    sources = (
        TraceSource(label="baseline", path=tiny.save_traces(directory / "traces-a", 7, seed=1)),
        TraceSource(label="trained", path=tiny.save_traces(directory / "traces-b", 5, seed=2)),
    )
    return ProbeConfig(
        **{"baseline": baseline, "trained": trained, "traces": sources, "max_rows": 16, "traces_per_part": 4} | settings
    )


def parts(out):
    return sorted((out / "probe").glob("part-*.parquet"))


def table_of(out):
    return pq.ParquetDataset(parts(out)).read()


def contents(out):
    return {file.name: file.read_bytes() for file in [*sorted((out / "probe").iterdir()), out / "summary.json"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    config = config_of(directory)
    probe(config, directory / "out")
    return config, directory / "out"


def test_every_position_is_there_once_in_order(finished):
    config, out = finished
    want = [
        (trace.trace_id, source.label, place, token)
        for source in config.traces
        for trace in read(Path(source.path))
        for place, token in enumerate(trace.completion_ids.tolist())
    ]
    columns = [table_of(out)[name].to_pylist() for name in ("trace_id", "label", "position", "token_id")]
    assert list(zip(*columns, strict=True)) == want
    assert len(parts(out)) == 3


def test_every_column_is_that_of_a_plain_forward(finished):
    config, out = finished
    a, b = models.load(config.baseline, "float32"), models.load(config.trained, "float32")
    rows_a, rows_b, tokens = [], [], []
    for source in config.traces:
        for trace in read(Path(source.path)):
            ids = torch.tensor([*trace.prompt_ids, *trace.completion_ids])
            scored = slice(len(trace.prompt_ids) - 1, len(ids) - 1)
            with torch.inference_mode():
                rows_a.append(a.model(input_ids=ids[None]).logits[0, scored])
                rows_b.append(b.model(input_ids=ids[None]).logits[0, scored])
            tokens.append(ids[len(trace.prompt_ids) :])
    classes = token_classes.classify(a.tokenizer, a.vocabulary)
    spec = ProbeSpec(train=Decoding(1.1, 20, 0.95), token_class=classes, n_classes=len(token_classes.CLASS_NAMES))
    want = probe_stats(torch.cat(rows_a), torch.cat(rows_b), torch.cat(tokens), spec, backend="reference")
    table = table_of(out)
    for prefix, group in (("a_", want.a), ("b_", want.b), ("", want.pair)):
        for name, column in vars(group).items():
            got = np.array(table[prefix + name].to_pylist())
            expected = column.flatten(1).numpy() if column.dim() > 1 else column.numpy()
            assert got.shape == expected.shape, name
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=prefix + name)


def test_classes_and_flags(finished):
    _, out = finished
    rows = table_of(out).to_pylist()
    assert len({row["position_class"] for row in rows}) > 1
    correcting = {tiny.WORDS.index("Wait"), tiny.WORDS.index("But")}
    for row in rows:
        assert row["swap"] == (row["a_top_ids"][0] != row["b_top_ids"][0])
        assert row["self_correction"] == (row["a_top_ids"][0] in correcting or row["token_id"] in correcting)
        if row["position_class"] == "lock":
            assert np.exp(row["a_top_logprobs"][0]) >= 0.5
    assert any(row["self_correction"] for row in rows)
    assert any(row["swap"] for row in rows)


def test_column_types_are_the_contract(finished):
    _, out = finished
    types = {field.name: str(field.type) for field in table_of(out).schema}
    assert types["token_id"] == types["position"] == types["a_token_rank"] == "int32"
    assert types["kl_ab"] == types["b_entropy"] == "float"
    assert types["a_top_ids"].startswith("fixed_size_list<")
    assert types["a_top_ids"].endswith("int32>[20]")
    assert types["ssd_terms"].endswith("float>[6]")
    assert types["swap"] == types["self_correction"] == "bool"
    assert types["position_class"].startswith("dictionary<values=string")


def test_texts_of_all_ids_that_occur(finished):
    _, out = finished
    texts = json.loads((out / "probe" / "vocabulary.json").read_text())
    table = table_of(out)
    ids = set(table["token_id"].to_pylist())
    for name in ("a_top_ids", "b_top_ids"):
        ids.update(i for row in table[name].to_pylist() for i in row if i >= 0)
    assert set(texts) == {str(i) for i in ids}
    assert texts["2"] == "Wait"


def test_blocks_of_rows_do_not_change_the_numbers(finished, tmp_path):
    config, out = finished
    probe(config.model_copy(update={"max_rows": 5, "traces_per_part": 3}), tmp_path)
    one, other = table_of(out), table_of(tmp_path)
    for name in one.column_names:
        values, others = np.array(one[name].to_pylist()), np.array(other[name].to_pylist())
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, others, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            assert (values == others).all(), name


def test_a_finished_probe_is_left_alone(finished):
    config, out = finished
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    probe(config, out)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_only_what_is_missing_is_made_again(finished, tmp_path):
    config, out = finished
    probe(config, tmp_path)
    (tmp_path / "summary.json").unlink()
    parts(tmp_path)[1].unlink()
    kept = parts(tmp_path)[0].stat().st_mtime_ns
    probe(config, tmp_path)
    assert contents(tmp_path) == contents(out)
    assert parts(tmp_path)[0].stat().st_mtime_ns == kept


KILLED = """
import sys
from pathlib import Path
from ssdfast import config
from ssdfast.probing.runner import probe
probe(config.load(config.ProbeConfig, config.read_yaml(Path(sys.argv[1])), sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_probe_ends_with_the_same_bytes(tmp_path):
    config = config_of(tmp_path, traces_per_part=1)
    many = TraceSource(label="many", path=tiny.save_traces(tmp_path / "many", 60, seed=5))
    config = config.model_copy(update={"traces": (many,)})
    probe(config, tmp_path / "whole")
    (tmp_path / "config.yaml").write_text(dump(config))
    killed = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "config.yaml"), str(killed)])
    while len(parts(killed)) < 3 and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= len(parts(killed)) < 60, "it was not killed half way"
    probe(config, killed)
    assert contents(killed) == contents(tmp_path / "whole")


def test_overlong_traces_are_named_or_counted(tmp_path, capsys):
    config = config_of(tmp_path)
    long = TraceSource(
        label="long",
        path=tiny.save_traces(tmp_path / "long", 2, completion_ids=[[4] * tiny.CONTEXT, [4, 4]]),
    )
    config = config.model_copy(update={"traces": (*config.traces, long)})
    with pytest.raises(
        ValueError, match=r"long/part-00000.parquet, trace problem0#0 has 5\d tokens, .* 48: .*--overlong"
    ):
        probe(config, tmp_path / "out")
    assert parts(tmp_path / "out") == []
    probe(config.model_copy(update={"overlong": "skip"}), tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"]["overlong_skipped"] == 1
    assert summary["labels"]["long"] == 2
    assert "1 traces are longer" in capsys.readouterr().err


def test_a_trace_that_fills_the_context_is_probed(tmp_path):
    full = tiny.save_traces(tmp_path / "full", 1, prompt_ids=[[3, 4]], completion_ids=[[4] * (tiny.CONTEXT - 2)])
    config = config_of(tmp_path).model_copy(update={"traces": (TraceSource(label="full", path=full),)})
    probe(config, tmp_path / "out")
    assert len(table_of(tmp_path / "out")) == tiny.CONTEXT - 2


def test_a_trace_without_a_completion_has_no_positions(tmp_path):
    path = tiny.save_traces(tmp_path / "some", 2, completion_ids=[[], [4, 4]])
    config = config_of(tmp_path).model_copy(update={"traces": (TraceSource(label="some", path=path),)})
    probe(config, tmp_path / "out")
    assert table_of(tmp_path / "out")["trace_id"].to_pylist() == ["problem1#0"] * 2


def test_the_same_trace_twice_under_a_label_is_refused(tmp_path):
    config = config_of(tmp_path)
    twice = TraceSource(label="baseline", path=config.traces[1].path)
    with pytest.raises(ValueError, match=r"trace problem0#0 is there twice under the label 'baseline'"):
        probe(config.model_copy(update={"traces": (config.traces[0], twice)}), tmp_path / "out")


def test_nothing_to_probe(tmp_path):
    path = tiny.save_traces(tmp_path / "none", 1, completion_ids=[[]])
    config = config_of(tmp_path).model_copy(update={"traces": (TraceSource(label="none", path=path),)})
    with pytest.raises(ValueError, match=r"there is nothing to probe: .*none holds no completion tokens"):
        probe(config, tmp_path / "out")


def test_models_that_do_not_fit_together_are_refused(tmp_path):
    config = config_of(tmp_path)
    other = tiny.save_model(tmp_path / "other", words=[*tiny.WORDS[:-1], "a"])
    with pytest.raises(ValueError, match=r"tokenizers .* differ"):
        probe(config.model_copy(update={"trained": other}), tmp_path / "out")
