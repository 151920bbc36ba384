"""The public names, their doctests, the libraries that open our tables, and mistakes in notebooks."""

from __future__ import annotations

import doctest
import importlib
import json
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

import ssdfast as ssd
from ssdfast.run_dir import PARQUET_KEY
from ssdfast.schemas import EvaluationResults

MODULES = (
    "api.stages", "results.traces", "results.model", "results.probe", "results.evaluation", "results.attribution",
    "results.study", "results.load", "results.probes", "training.soft_label_loss",
)  # fmt: skip
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def test_import_loads_no_torch_and_little_else():
    heavy = "torch", "pandas", "numpy", "pydantic"
    code = f"import sys, ssdfast; dir(ssdfast); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = "import sys, ssdfast as s; s.sample, s.load, s.SamplingParams, s.Study; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_every_public_name_is_there_and_says_what_it_is():
    for name in ssd.__all__:
        thing = getattr(ssd, name)
        assert name == "__version__" or thing.__doc__, name
    assert len(ssd.__all__) <= 18
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        ssd.evaluat  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_docstrings_hold(inside, module):
    loaded = importlib.import_module(f"ssdfast.{module}")
    names = {"ssd": ssd}
    if module == "training.soft_label_loss":
        from transformers import AutoModelForCausalLM

        names["network"] = AutoModelForCausalLM.from_pretrained("model")
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    tried = 0
    for test in doctest.DocTestFinder(recurse=True).find(loaded, loaded.__name__, extraglobs=names):
        printed: list[str] = []
        result = runner.run(test, out=printed.append)
        assert not result.failed, "".join(printed)
        tried += result.attempted
    assert tried


def test_every_public_function_and_class_has_an_example():
    for name in ("sample", "train", "evaluate", "probe", "attribute", "study", "estimate", "load", "Traces", "Model",
                 "Probe", "Evaluation", "Attribution", "Study", "SoftLabelLoss"):  # fmt: skip
        assert ">>> " in getattr(ssd, name).__doc__, name


@pytest.mark.parametrize("directory", ["runs/probe/positions", "runs/traces/traces", "runs/eval/eval/samples.parquet"])
def test_other_libraries_open_our_tables_as_they_are(inside, directory):
    datasets, duckdb, pandas, polars = map(pytest.importorskip, ("datasets", "duckdb", "pandas", "polars"))
    want = pq.read_table(directory, partitioning=None)
    files = directory if directory.endswith(".parquet") else f"{directory}/*.parquet"
    assert len(pandas.read_parquet(directory)) == len(want)
    assert duckdb.sql(f"SELECT count(*) FROM '{files}'").fetchall() == [(len(want),)]
    assert polars.read_parquet(files).height == len(want)
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(inside / "cache"))
    assert found.num_rows == len(want)
    assert set(found.column_names) == set(want.column_names)


def test_a_probes_table_opens_by_the_directory_of_its_run(inside):
    """A directory that pandas is pointed at holds Parquet files and nothing else."""
    assert {path.suffix for path in (inside / "runs/probe/positions").iterdir()} == {".parquet"}
    (shard,) = (inside / "runs/probe/positions").iterdir()
    told = json.loads(pq.read_schema(shard).metadata[PARQUET_KEY])
    assert {"token_classes", "lse_temperatures", "train_sampling", "eval_sampling", "schema_version"} <= told.keys()


def test_positions_come_in_every_form(inside):
    probe = ssd.load("runs/probe")
    frame = probe.positions(["position", "base_top_ids", "position_class", "kl_trained_base"])
    table = probe.arrow(["position", "base_top_ids", "position_class", "kl_trained_base"])
    assert frame["kl_trained_base"].tolist() == table["kl_trained_base"].to_pylist()
    assert frame.arrow()["base_top_ids"].to_pylist() == table["base_top_ids"].to_pylist()
    assert frame.polars().height == len(table)
    assert frame.groupby("position_class", observed=True)["kl_trained_base"].mean().notna().any()
    assert type(frame[frame.position > 2]).__name__ == "Frame"
    trace = frame.arrow().num_rows and probe.positions(["trace_id"])["trace_id"].iloc[0]
    assert set(probe.positions(["trace_id", "position"], trace=trace)["trace_id"]) == {trace}
    candidates = probe.trace(trace).candidates(0)
    assert candidates["base"].is_monotonic_decreasing
    assert candidates["trained"].between(0, 1).all()


def test_results_show_and_draw_themselves(inside):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    for name in ("traces", "trained", "probe", "eval", "attribution", "study"):
        result = ssd.load(f"runs/{name}")
        assert ssd.load(result.directory) == result
        assert type(result).__name__ in result._repr_html_()
        assert type(result.plot()).__name__ == "Axes"
    assert "<td>ssd</td>" in ssd.load("runs/study")._repr_html_()
    matplotlib.pyplot.close("all")


def test_html_of_a_hostile_name_is_inert(inside):
    name = "<img src=x onerror=alert(1)>"
    shutil.copytree("runs/probe", f"new/{name}")
    assert "<img" not in ssd.load(f"new/{name}")._repr_html_()


def test_a_study_leads_to_its_parts(inside):
    study = ssd.load("runs/study")
    assert study.model("ssd").path.is_dir()
    assert study.evaluation().results() == EvaluationResults.read(inside / "runs/study/results.json")
    assert {"baseline", "ssd-0", "control-0"} == set(study.evaluation().runs()["checkpoint"])
    assert len(study.evaluation().comparisons()) == 2
    assert study.probe("ssd").manifest().inputs
    with pytest.raises(ValueError, match=r"study has no manifest.json"):
        study.manifest()
    assert study.components()["beyond_control"].notna().sum() == 4
    with pytest.raises(ValueError, match="has no arm 'hot': its arms are ssd, control"):
        study.probe("hot")
    with pytest.raises(ValueError, match="has no seed 7 of 'ssd': its seeds are 0"):
        study.probe("ssd", seed=7)


def test_a_config_and_keywords_go_together(inside):
    from ssdfast.config import SampleConfig

    config = SampleConfig(model="model", problems={"sources": ["problems.jsonl"]}, max_new_tokens=3)
    traces = ssd.sample(config, seed=7, out="new/sampled")
    assert traces.summary().traces == 8
    assert max(map(len, traces.arrow(["completion_ids"])["completion_ids"].to_pylist())) <= 3
    again = ssd.sample(config, seed=7, out="new/sampled")
    assert again == traces


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ssd.sample(modle="model", out="new/x"), "unknown setting 'modle': did you mean model?"),
        (lambda: ssd.sample(model="model", preset="mathh", out="new/x"), "unknown preset 'mathh': choose from"),
        (lambda: ssd.train(model="model", traces="runs/traces", learning_rate=-1, out="new/x"), "learning_rate: .*-1"),
        (lambda: ssd.estimate("trian"), "unknown stage 'trian': name sample"),
        (lambda: ssd.load("new"), "there is no directory new"),
        (lambda: ssd.load("runs"), "holds no result of a stage"),
        (lambda: ssd.load("runs/traces").table(["txt"]), "has no column 'txt': did you mean text"),
        (lambda: ssd.load("runs/eval").samples(["grad"]), "has no column 'grad': did you mean grade"),
        (lambda: ssd.load("runs/probe").positions(trace="nothing#0"), "has no trace 'nothing#0': its traces are"),
        (lambda: ssd.load("runs/probe").plot("kl"), "has no column 'kl'"),
        (lambda: ssd.attribute({"ssd": "runs/probe"}, out="new/x"), "the control 'control' is not an arm"),
    ],
)
def test_mistakes_are_one_sentence(inside, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_run_that_is_not_finished_is_named(inside):
    shutil.copytree("runs/probe", "new/probe")
    (inside / "new/probe/summary.json").unlink()
    with pytest.raises(ValueError, match=r"new/probe is a probe that is not finished"):
        ssd.load("new/probe")
    shutil.copytree("runs/study", "new/study", ignore=shutil.ignore_patterns("attribution.json"))
    with pytest.raises(ValueError, match="new/study is not finished: start the command"):
        ssd.load("new/study")
    shutil.copytree("runs/trained", "new/trained", ignore=shutil.ignore_patterns("model"))
    with pytest.raises(ValueError, match="is a run that is not finished"):
        ssd.load("new/trained")


def test_a_deleted_shard_is_named(inside):
    shutil.copytree("runs/probe", "new/probe")
    (shard,) = (inside / "new/probe/positions").iterdir()
    table = pq.read_table(shard)
    pq.write_table(table.slice(0, len(table) - 5), shard)
    with pytest.raises(ValueError, match=r"holds \d+ of \d+ positions, so a shard is missing"):
        ssd.load("new/probe").positions()


def test_a_directory_of_another_version_is_named(inside):
    shutil.copytree("runs/probe", "new/probe")
    file = inside / "new/probe/summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    with pytest.raises(ValueError, match="was written in schema version 99; this ssdfast reads schema version 1"):
        ssd.load("new/probe")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 1, "newer": 1}))
    with pytest.raises(ValueError, match=r"summary\.json: newer: Extra inputs are not permitted"):
        ssd.load("new/probe")


def test_probes_of_different_baselines_are_not_attributed(inside):
    shutil.copytree("runs/probe", "new/probe")
    file = inside / "new/probe/summary.json"
    values = json.loads(file.read_text())
    values["settings"]["baseline"] = "another"
    file.write_text(json.dumps(values))
    arms = {"ssd": "new/probe", "control": "runs/probe-control"}
    with pytest.raises(ValueError, match=r"probed with different settings \(baseline: "):
        ssd.attribute(arms, out="new/attribution")
    assert not (inside / "new/attribution/attribution.json").exists()


def test_attribute_is_a_command(inside, capsys):
    from ssdfast.cli import run

    arms = ["ssd=runs/probe", "control=runs/probe-control"]
    assert run(["attribute", *arms, "--out", "new/attribution"]) == 0
    assert "ssd: " in capsys.readouterr().out
    assert ssd.load("new/attribution").results().arms == ssd.load("runs/attribution").results().arms
    assert run(["attribute", "ssd=runs/probe-control", arms[1], "--out", "new/attribution"]) == 2
    assert "holds a run with other settings" in capsys.readouterr().err
    assert run(["attribute", "runs/probe", "--out", "new/other"]) == 2
    assert "must be ARM=DIR" in capsys.readouterr().err
