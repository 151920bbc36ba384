"""A study from its file to its verdicts, changed, continued, shared and refused."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import ssdfast as ssd
from ssdfast import cli
from ssdfast.config import StudyExecution
from ssdfast.probing import baseline_states, model_loading
from ssdfast.workflows.study import graph, runner
from ssdfast.workflows.study.runner import make_stages, read_study
from tests.as_json import study

from .small import file_of, write_inputs

pytest.importorskip("math_verify")
pytest.importorskip("matplotlib")


@pytest.fixture
def inputs(tmp_path):
    return write_inputs(tmp_path)


def ran(monkeypatch):
    """Names of the stages that run."""
    names = []
    try_run = graph._try_run

    def watched(stage, number):
        fresh = not stage.done
        done = try_run(stage, number)
        names.extend([stage.name] if fresh and done else [])
        return done

    monkeypatch.setattr(graph, "_try_run", watched)
    return names


def test_a_study_ends_in_verdicts_and_a_changed_arm_alone_runs_again(inputs, monkeypatch):
    names = ran(monkeypatch)
    out = inputs / "out"
    found = study(read_study(file_of(inputs)), out)
    assert {name for name, arm in found["arms"].items() if "verdict" in arm} == {"ssd"}
    assert json.loads((out / "attribution.json").read_text()) == found
    assert found["arms"]["ssd"]["verdict"]["headline"] in (out / "report.html").read_text()
    results = json.loads((out / "results.json").read_text())
    assert {run["checkpoint"] for run in results["runs"]} == {"baseline", "ssd-0", "control-0"}
    assert (
        len(names)
        == len(set(names))
        == len(graph.ordered(make_stages(read_study(file_of(inputs)), out, StudyExecution()).final()))
    )
    names.clear()
    study(read_study(file_of(inputs)), out)
    assert not names
    changed = {"arms": {"ssd": {"training": {"learning_rate": 2e-3}}, "control": None}}
    study(read_study(file_of(inputs, **changed)), out)
    assert sorted(names) == ["attribute", "compare", "eval ssd-0", "probe ssd-0", "train ssd-0"]


def test_another_extraction_samples_and_trains_nothing_again(inputs, monkeypatch):
    names, out = ran(monkeypatch), inputs / "out"
    study(read_study(file_of(inputs)), out)
    names.clear()
    study(read_study(file_of(inputs, extraction={"fallback_last_number": True})), out)
    assert {name.split()[0] for name in names} == {
        "grade", "training_data", "probe_traces", "probe", "compare", "attribute",
    }  # fmt: skip
    runs = json.loads((out / "results.json").read_text())["runs"]
    answered = [(run["diagnostics"]["answer_rate"]["value"], run["diagnostics"]["boxed_rate"]) for run in runs]
    assert any(stated > boxed for stated, boxed in answered)


def test_models_are_linked_and_superseded_stages_are_removed_after_they_were_listed(inputs, capsys):
    out = inputs / "out"
    assert cli.run(["study", file_of(inputs), "--out", str(out)]) == 0
    assert f"model: {out / 'models' / 'ssd-0'}" in capsys.readouterr().out
    first = (out / "models" / "ssd-0").resolve()
    assert (out / "models" / "control-0" / "model.safetensors").is_file()
    assert cli.run(["clean", str(out)]) == 0
    assert capsys.readouterr().out == "no stage is superseded\n"
    changed = {"arms": {"ssd": {"training": {"learning_rate": 2e-3}}, "control": None}}
    study(read_study(file_of(inputs, **changed)), out)
    assert (out / "models" / "ssd-0").resolve() != first
    stages = {path.parent for path in out.glob("*/*/done.json")}
    assert cli.run(["clean", str(out)]) == 0
    said = capsys.readouterr().out
    assert "5 superseded stages" in said
    assert str(first.parent.parent) in said
    assert {path.parent for path in out.glob("*/*/done.json")} == stages
    assert cli.run(["clean", str(out), "--remove"]) == 0
    left = {path.parent for path in out.glob("*/*/done.json")}
    assert len(left) == len(stages) - 5
    assert first.parent.parent not in left
    capsys.readouterr()
    study(read_study(file_of(inputs, **changed)), out)  # nothing that it needs is gone
    assert "stage" not in capsys.readouterr().err
    assert cli.run(["clean", str(inputs / "model")]) == 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study's inputs, its results, and the paths of the models that a probe read a batch with."""
    inputs, read = write_inputs(tmp_path_factory.mktemp("finished")), []
    run = model_loading.forward
    with pytest.MonkeyPatch.context() as patch:
        for module in (model_loading, baseline_states):
            patch.setattr(module, "forward", lambda model, *rest: read.append(model.path) or run(model, *rest))
        results = study(read_study(file_of(inputs)), inputs / "out")
    return inputs, results, read


def test_the_probes_of_a_study_share_the_pass_of_the_baseline(finished):
    inputs, _, read = finished
    passes = Counter(Path(path).parent.parent.name for path in read)
    assert len(passes) == 3  # the baseline and two arms
    assert len(set(passes.values())) == 1
    assert not (inputs / "out" / "baseline_states").exists()


def columns_of(out):
    """Those in the shards of each probe of a study, by its name without the digest."""
    shards = sorted(out.glob("probe/*/positions/shard-*.parquet"))
    return {shard.parent.parent.name[:-11]: set(pq.read_schema(shard).names) for shard in shards}


def test_the_columns_of_the_baseline_are_written_once(finished):
    inputs, _, _ = finished
    out = inputs / "out"
    columns = columns_of(out)
    assert sorted(columns) == ["baseline", "control-0", "ssd-0"]
    assert {"base_entropy", "base_top_ids", "correct", "position_class"} <= columns["baseline"]
    assert columns["ssd-0"] & columns["baseline"] == {"trace_source", "trace_id", "position"}
    probe = ssd.load(out).probe("ssd")
    positions, summary = probe.positions(), probe.summary()
    assert {"base_entropy", "kl_trained_base", "correct"} <= set(positions.columns)
    assert len(positions) == summary.positions


def test_a_small_disk_costs_time_and_changes_nothing(finished, tmp_path, caplog):
    inputs, whole, _ = finished
    again = study(read_study(file_of(inputs)), tmp_path, StudyExecution(max_spill_gb=1e-9))
    for name, arm in whole["arms"].items():
        assert again["arms"][name]["by_group"] == arm["by_group"]
    assert re.search(r"more than max_spill_gb = 1e-09: they are not kept in .*baseline_states", caplog.text)
    assert columns_of(tmp_path) == columns_of(inputs / "out")


def test_arms_that_draw_alike_share_their_traces_and_each_recipe_does_what_it_says(inputs):
    recipes = ["ssd", "ssd-soft", "control", "length-matched", "temperature-only", "correct-only"]
    config = read_study(file_of(inputs, arms=recipes, train_sampling={"temperature": 1.3}))
    stages = make_stages(config, inputs / "out", StudyExecution())
    drawn = {recipe: stages.sample(recipe, 0).directory for recipe in recipes}
    needed = {recipe: {stage.directory for stage in graph.ordered([stages.select(recipe, 0)])} for recipe in recipes}
    assert all(drawn[recipe] in needed[recipe] for recipe in recipes)
    assert drawn["ssd"] == drawn["ssd-soft"] == drawn["correct-only"]
    assert drawn["control"] == drawn["length-matched"]
    assert len(set(drawn.values())) == 3
    assert stages.select("length-matched", 0).needs[1].directory == drawn["ssd"]
    said = {recipe: config.arm_sampling(recipe) for recipe in recipes}
    assert (said["control"].temperature, said["control"].top_k, said["control"].top_p) == (1.0, 0, 1.0)
    assert (said["temperature-only"].temperature, said["temperature-only"].top_p) == (1.3, 1.0)
    assert config.arm_training("ssd-soft").loss == "soft"


def test_every_recipe_is_an_arm_that_runs(inputs):
    rows = [{"id": f"p{i}", "question": f"word{i} word{i + 1} +", "answer": "7"} for i in range(24)]
    (inputs / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipes = ["ssd", "ssd-soft", "control", "length-matched", "temperature-only", "correct-only"]
    changes = {
        "train_sampling": {"temperature": 1.3},
        "extraction": {"fallback_last_number": True},
    }  # or a random model is never right
    evaluation = {"sources": [str(inputs / "eval.jsonl")]}
    config = read_study(file_of(inputs, arms=recipes, eval_problems=evaluation, **changes))
    assert set(study(config, inputs / "out")["arms"]) == set(recipes)
    stages = make_stages(config, inputs / "out", StudyExecution())
    chosen = {recipe: pq.read_table(stages.select(recipe, 0).directory / "traces") for recipe in recipes}
    assert len(chosen["length-matched"]) == len(chosen["ssd"]) == len(rows)
    assert 0 < len(chosen["correct-only"]) < len(rows)
    assert all(chosen["correct-only"]["correct"].to_pylist())


def spoil_golds(inputs, name):
    """The first problem gets an unreadable gold answer, the second none."""
    rows = [json.loads(line) for line in (inputs / f"{name}.jsonl").read_text().splitlines()]
    rows[0]["answer"], rows[1]["answer"] = r"\frac{1}{", ""
    (inputs / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_bad_gold_is_refused_before_anything_is_sampled(inputs, name):
    spoil_golds(inputs, name)
    with pytest.raises(ValueError, match=r"1 problem .* without a gold answer"):
        study(read_study(file_of(inputs)), inputs / "out")
    assert not list((inputs / "out").glob("**/*.parquet"))


def test_bad_golds_can_be_skipped_and_their_traces_are_still_trained_on(inputs):
    spoil_golds(inputs, "train")
    spoil_golds(inputs, "eval")
    config = read_study(file_of(inputs, on_bad_gold="skip"))
    study(config, inputs / "out")
    stages = make_stages(config, inputs / "out", StudyExecution())
    trained_on = pq.read_table(stages.select("ssd", 0).directory / "traces").to_pylist()
    assert {"p0", "p1"} < {trace["problem_id"] for trace in trained_on}
    graded = stages._graded("ssd", 0).to_pylist()
    assert {trace["problem_id"] for trace in graded if trace["correct"] is None} == {"p0", "p1"}
    assert json.loads((inputs / "out" / "results.json").read_text())["bad_golds"] == ["p20", "p21"]


def test_a_study_takes_a_grader_of_the_users(inputs, monkeypatch):
    (inputs / "always.py").write_text("def score(problem, answer):\n    return 1.0\n")
    monkeypatch.chdir(inputs)
    extraction = {"fallback_last_number": True}  # or a random model has no answer
    with pytest.raises(ValueError, match="has no function scores"):
        study(read_study(file_of(inputs, grader="always:scores")), inputs / "out")
    study(read_study(file_of(inputs, grader="always:score", extraction=extraction)), inputs / "out")
    runs = json.loads((inputs / "out" / "results.json").read_text())["runs"]
    for run in runs:
        assert 0 < run["accuracy"]["value"] == run["diagnostics"]["answer_rate"]["value"]


def test_machines_may_take_an_arm_each(inputs):
    config, out = read_study(file_of(inputs)), inputs / "out"
    assert study(config, out, StudyExecution(only_arms=("control",))) is None
    assert not (out / "attribution.json").exists()
    lines = runner.estimate(config, out, StudyExecution())
    assert "train control-0" in lines
    assert "done" in lines
    assert study(config, out, StudyExecution(only_arms=("ssd",)))["arms"]["ssd"]["verdict"]


def test_a_study_goes_on_by_another_path_and_in_another_place(inputs, monkeypatch):
    """Its own model and problems lie inside of it, as the demo's do."""
    out = inputs / "out"
    for name in ("model", "train.jsonl", "eval.jsonl", "chat.jinja"):
        (out / name).parent.mkdir(exist_ok=True)
        (inputs / name).rename(out / name)
    config = read_study(file_of(out))
    names = [stage.directory.name for stage in graph.ordered(make_stages(config, out, StudyExecution()).final())]
    monkeypatch.chdir(inputs)
    by_another = make_stages(config, Path("out"), StudyExecution()).final()
    assert [stage.directory.name for stage in graph.ordered(by_another)] == names
    moved = out.rename(inputs / "moved")
    there = make_stages(read_study(file_of(moved)), moved, StudyExecution()).final()
    assert [stage.directory.name for stage in graph.ordered(there)] == names


def test_a_study_that_was_moved_probes_a_changed_arm_beside_the_old_columns(finished, tmp_path, monkeypatch):
    inputs, _, _ = finished
    shutil.copytree(inputs / "out", tmp_path / "copy", symlinks=True)
    moved, names = (tmp_path / "copy").rename(tmp_path / "moved"), ran(monkeypatch)
    study(read_study(file_of(inputs)), moved)
    assert not names
    before = ssd.load(inputs / "out").probe("ssd").positions()
    assert ssd.load(moved).probe("ssd").positions().equals(before)
    changed = {"arms": {"ssd": {"training": {"learning_rate": 2e-3}}, "control": None}}
    study(read_study(file_of(inputs, **changed)), moved)
    assert sorted(names) == ["attribute", "compare", "eval ssd-0", "probe ssd-0", "train ssd-0"]
    assert not ssd.load(moved).probe("ssd").positions().equals(before)


def _study(file, out):
    study(read_study(file), out)


def test_a_killed_study_goes_on_to_the_same_numbers(inputs):
    file = file_of(inputs)
    whole = study(read_study(file), inputs / "whole")
    for stages in (2, 5, 9):  # while an arm is sampled, trained, evaluated
        run = multiprocessing.get_context("spawn").Process(target=_study, args=(file, inputs / "killed"))
        run.start()
        while run.is_alive() and len(list((inputs / "killed").rglob("done.json"))) < stages:
            time.sleep(0.005)
        os.kill(run.pid, signal.SIGKILL)
        run.join()
        assert not (inputs / "killed" / "attribution.json").exists()
    again = study(read_study(file), inputs / "killed")
    for name, arm in whole["arms"].items():
        assert again["arms"][name]["by_group"] == arm["by_group"]
    assert again["arms"]["ssd"]["verdict"] == whole["arms"]["ssd"]["verdict"]


def test_an_estimate_says_what_is_to_do_and_does_nothing(inputs, capsys):
    assert cli.run(["study", file_of(inputs), "--out", str(inputs / "out"), "--estimate"]) == 0
    said = capsys.readouterr().out
    assert "train ssd-0" in said
    assert re.search(r"train ssd-0 .* to do, at most [\d.]+ (s|ms)", said)
    assert re.search(r"(\d+) of \1 stages to do, at most .* on one machine$", said, re.MULTILINE)
    assert re.search(r"memory to train ssd, control: [\d.]+ [kM]B on a [CG]PU for micro-batches of 2,048 tokens", said)
    assert "verdicts with one seed per arm are about these trained models" in said
    assert "minimum detectable difference in accuracy" in said
    assert not list((inputs / "out").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ["ssd"]}, "the control 'control' is not among the arms ssd"),
        ({"arms": ["control", "length-matched"]}, "matches the lengths of the arm 'ssd', which does not exist"),
        ({"arms": {"control": None, "mine": {"recipe": "ssd", "training": {"lrr": 1}}}}, "lrr"),
        ({"arms": {"control": None, "mine": {"recipe": "sdd"}}}, "arms.mine.recipe"),
        ({"arms": {"control": None, "a/b": {"recipe": "ssd"}}}, "the arm 'a/b' names a directory"),
        ({"arms": {"control": None, "baseline": "ssd"}}, "the arm 'baseline' names a directory beside 'baseline'"),
        ({"preset": "maths"}, "unknown preset 'maths', choose from paper-4b-instruct, paper-30b-instruct"),
        (
            {"eval_problems": {}},
            "a study needs train_problems.sources for its training samples and eval_problems.sources",
        ),
    ],
)
def test_what_cannot_be_a_study_is_refused_in_a_sentence(inputs, changes, said, capsys):
    assert cli.run(["study", file_of(inputs, **changes), "--out", str(inputs / "out")]) == 2
    assert said in capsys.readouterr().err


def test_evaluation_on_problems_of_training_is_refused(inputs):
    config = read_study(file_of(inputs, eval_problems={"sources": [str(inputs / "train.jsonl")]}))
    with pytest.raises(ValueError, match="8 of 8 problems are near duplicates of evaluation problems"):
        study(config, inputs / "out")


def test_presets_are_studies(inputs):
    demo = read_study("demo")
    assert list(demo.arms) == ["ssd", "ssd-soft", "control"]
    with pytest.raises(ValueError, match="model"):
        read_study("paper-4b-instruct")
