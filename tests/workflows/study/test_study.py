"""A study from its file to its verdicts, changed, continued, shared and refused."""

import json
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ssdfast import cli
from ssdfast.config import StudyExecution
from ssdfast.workflows.study import graph, runner
from ssdfast.workflows.study.runner import read_study, stages_of, study

from .small import file_of, write_inputs

pytest.importorskip("math_verify")
pytest.importorskip("matplotlib")


@pytest.fixture
def inputs(tmp_path):
    return write_inputs(tmp_path)


def ran(monkeypatch):
    """Names of the stages that run."""
    names = []
    taken = graph._taken

    def watched(stage, left):
        fresh = not stage.done
        found = taken(stage, left)
        names.extend([stage.name] if fresh and found else [])
        return found

    monkeypatch.setattr(graph, "_taken", watched)
    return names


def test_a_study_ends_in_verdicts_and_a_changed_arm_alone_runs_again(inputs, monkeypatch):
    names = ran(monkeypatch)
    out = inputs / "out"
    found = study(read_study(file_of(inputs)), out)
    assert {name for name, arm in found["arms"].items() if "verdict" in arm} == {"ssd"}
    assert json.loads((out / "attribution.json").read_text()) == found
    assert found["arms"]["ssd"]["verdict"]["headline"] in (out / "report.html").read_text()
    results = json.loads((out / "results.json").read_text())
    assert {arm["checkpoint"] for arm in results["arms"]} == {"baseline", "ssd-0", "control-0"}
    assert (
        len(names)
        == len(set(names))
        == len(graph.ordered(stages_of(read_study(file_of(inputs)), out, StudyExecution()).all()))
    )
    names.clear()
    study(read_study(file_of(inputs)), out)
    assert not names
    changed = {"arms": {"ssd": {"training": {"learning_rate": 2e-3}}, "control": None}}
    study(read_study(file_of(inputs, **changed)), out)
    assert sorted(names) == ["attribute", "compare", "eval ssd-0", "probe ssd-0", "train ssd-0"]


def test_arms_that_draw_alike_share_their_traces_and_each_word_does_what_it_says(inputs):
    words = ["ssd", "ssd-expected", "control", "length-matched", "hot-no-truncation", "correct-only"]
    config = read_study(file_of(inputs, arms=words, sampling={"temperature": 1.3}))
    stages = stages_of(config, inputs / "out", StudyExecution())
    drawn = {word: stages.chosen(word, 0).needs[0].directory for word in words}
    assert drawn["ssd"] == drawn["ssd-expected"] == drawn["correct-only"]
    assert drawn["control"] == drawn["length-matched"]
    assert len(set(drawn.values())) == 3
    assert stages.chosen("length-matched", 0).needs[1].directory == drawn["ssd"]
    said = {word: config.sampling_of(word) for word in words}
    assert (said["control"].temperature, said["control"].top_k, said["control"].top_p) == (1.0, 0, 1.0)
    assert (said["hot-no-truncation"].temperature, said["hot-no-truncation"].top_p) == (1.3, 1.0)
    assert config.training_of("ssd-expected").loss == "soft"


def test_every_word_is_an_arm_that_runs(inputs):
    rows = [{"id": f"p{i}", "question": f"word{i} word{i + 1} +", "answer": "7"} for i in range(24)]
    (inputs / "learnt.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["ssd", "ssd-expected", "control", "length-matched", "hot-no-truncation", "correct-only"]
    changes = {
        "sampling": {"temperature": 1.3},
        "extraction": {"last_number": True},
    }  # or a random model is never right
    asked = {"sources": [str(inputs / "asked.jsonl")]}
    config = read_study(file_of(inputs, arms=words, asked=asked, **changes))
    assert set(study(config, inputs / "out")["arms"]) == set(words)
    stages = stages_of(config, inputs / "out", StudyExecution())
    chosen = {word: pq.read_table(stages.chosen(word, 0).directory / "traces") for word in words}
    assert len(chosen["length-matched"]) == len(chosen["ssd"]) == len(rows)
    assert 0 < len(chosen["correct-only"]) < len(rows)
    assert all(chosen["correct-only"]["correct"].to_pylist())


def test_machines_may_take_an_arm_each(inputs):
    config, out = read_study(file_of(inputs)), inputs / "out"
    assert study(config, out, StudyExecution(arms=("control",))) is None
    assert not (out / "attribution.json").exists()
    told = runner.plan(config, out, StudyExecution())
    assert "train control-0" in told
    assert "done" in told
    assert study(config, out, StudyExecution(arms=("ssd",)))["arms"]["ssd"]["verdict"]


def test_a_study_goes_on_by_another_path_and_in_another_place(inputs, monkeypatch):
    """Its own model and problems lie inside of it, as the demo's do."""
    out = inputs / "out"
    for name in ("model", "learnt.jsonl", "asked.jsonl", "chat.jinja"):
        (out / name).parent.mkdir(exist_ok=True)
        (inputs / name).rename(out / name)
    config = read_study(file_of(out))
    names = [stage.directory.name for stage in graph.ordered(stages_of(config, out, StudyExecution()).all())]
    monkeypatch.chdir(inputs)
    by_another = stages_of(config, Path("out"), StudyExecution()).all()
    assert [stage.directory.name for stage in graph.ordered(by_another)] == names
    moved = out.rename(inputs / "moved")
    there = stages_of(read_study(file_of(moved)), moved, StudyExecution()).all()
    assert [stage.directory.name for stage in graph.ordered(there)] == names


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
        assert again["arms"][name]["pooled"] == arm["pooled"]
    assert again["arms"]["ssd"]["verdict"] == whole["arms"]["ssd"]["verdict"]


def test_a_dry_run_says_what_is_to_do_and_does_nothing(inputs, capsys):
    assert cli.run(["study", file_of(inputs), "--out", str(inputs / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "train ssd-0" in said
    assert "stages to do" in said
    assert re.search(r"memory to train ssd, control: 0\.0 GB on a [CG]PU for 2,048 tokens a pass", said)
    assert not list((inputs / "out").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ["ssd"]}, "the control 'control' is none of the arms ssd"),
        ({"arms": ["control", "length-matched"]}, "drawn to the lengths of the arm 'ssd', which is not there"),
        ({"arms": {"control": None, "mine": {"like": "ssd", "training": {"lrr": 1}}}}, "lrr"),
        ({"arms": {"control": None, "mine": {"like": "sdd"}}}, "arms.mine.like"),
        ({"arms": {"control": None, "a/b": {"like": "ssd"}}}, "the arm 'a/b': it names a directory"),
        ({"preset": "maths"}, "there is no 'maths', there are paper, math, demo"),
        ({"asked": {}}, "a study needs problems.sources to learn from and asked.sources"),
    ],
)
def test_what_cannot_be_a_study_is_refused_in_a_sentence(inputs, changes, said, capsys):
    assert cli.run(["study", file_of(inputs, **changes), "--out", str(inputs / "out")]) == 2
    assert said in capsys.readouterr().err


def test_problems_asked_that_were_learnt_are_refused(inputs):
    config = read_study(file_of(inputs, asked={"sources": [str(inputs / "learnt.jsonl")]}))
    with pytest.raises(ValueError, match="8 of 8 problems are like held-out ones"):
        study(config, inputs / "out")


def test_presets_are_studies(inputs):
    demo = read_study("demo")
    assert list(demo.arms) == ["ssd", "ssd-expected", "control"]
    with pytest.raises(ValueError, match="model"):
        read_study("paper")
