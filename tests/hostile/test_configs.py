"""Settings and flags that are wrong: exit code 2 and one sentence with the key, the value and the remedy."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ssdfast import cli, traces
from ssdfast.config import EngineSamplingParams, EvalConfig, ProbeConfig, SamplingParams, SweepConfig
from ssdfast.probing.runner import probe

from .. import tiny

ARMS = "model: m\ntrain_problems: {sources: [a.jsonl]}\neval_problems: {sources: [b.jsonl]}\narms:\n  control:\n"
TRAIN_ALLOWED = r"\(allowed here: .*learning_rate, min_learning_rate,"
ARM_ALLOWED = r"\(allowed here: recipe, train_sampling, training, seeds\)"

# The command, the text of its file, and a pattern of the sentence.
FILES = [
    (
        "study",
        ARMS + "  ssd: {training: {learning_rte: 1}}",
        rf"arms.ssd.training: unknown key 'learning_rte' {TRAIN_ALLOWED}",
    ),
    ("study", ARMS + "  ssd: {training: {batch_size: 0}}", r"arms.ssd.training: batch_size: .*\(got 0\)"),
    ("study", ARMS + "  ssd: {training: {lora_rank: 4, optimizer: adamw_bf16}}", r"arms.ssd.training: lora_rank with"),
    (
        "study",
        ARMS + "  ssd: {train_sampling: {temprature: 1}}",
        r"arms.ssd.train_sampling: unknown key 'temprature' \(allowed here: temperature, top_k, top_p, min_p,",
    ),
    ("study", ARMS + "  ssd: {train_sampling: {top_p: 2}}", r"arms.ssd.train_sampling: top_p: .*\(got 2(\.0)?\)"),
    ("study", ARMS + "  ssd: {sampling: {top_p: 1}}", rf"unknown key 'arms.ssd.sampling' {ARM_ALLOWED}"),
    ("study", ARMS + "  mine: {training: {}}", r"the key 'arms.mine.recipe' is missing"),
    ("study", ARMS + "  mine: sdd", r"arms.mine.recipe: .*'ssd-soft'.*\(got 'sdd'\)"),
    ("study", ARMS + "  'a/b': ssd", r"the arm 'a/b' names a directory beside 'baseline': give it another name"),
    ("study", ARMS + "  length-matched:", r"matches the lengths of the arm 'ssd', which does not exist"),
    ("study", "model: m\narms: [ssd]", r"the control 'control' is not among the arms ssd"),
    ("study", "model: m", r"the key 'arms' is missing"),
    ("study", "model: m\narms: 3", r"arms: .*\(got 3\)"),
    ("study", "preset: foo", r"unknown preset 'foo', choose from"),
    ("study", "- a", r"must hold a mapping"),
    ("study", "", r"must hold a mapping"),
    ("study", "model: [", r"is not YAML: line 1"),
    ("train", "learning_rte: 1", rf"unknown key 'learning_rte' {TRAIN_ALLOWED}"),
    ("train", "learning_rate: abc", r"learning_rate: .*\(got 'abc'\)"),
    ("train", "learning_rate: -1", r"learning_rate: .*greater than 0 \(got -1\)"),
    ("train", "optimizer: sgd", r"optimizer: .*'adamw'.*\(got 'sgd'\)"),
    ("train", "offload_optimizer: true\noptimizer: adamw_8bit", r"offload_optimizer moves adamw's moments"),
    ("train", "train_sampling: 3", r"train_sampling: .*\(got 3\)"),
    ("train", "model: 5\ntraces: t", r"model: .*valid string \(got 5\)"),
    ("probe", "traces: []", r"traces: .*at least 1"),
    ("probe", "traces: ['=x']", r"must be NAME=PATH or PATH, got '=x'"),
    ("probe", "positions: {selct: all}", r"unknown key 'positions.selct' \(allowed here: select,"),
    ("probe", "positions: {select: none}", r"positions.select: .*\(got 'none'\)"),
    ("probe", "token_classes: {a: {word: [x]}}", r"unknown key 'token_classes.a.word' \(allowed here: words, regex\)"),
    ("probe", "eval_sampling: {temperature: -0.5}", r"eval_sampling.temperature: .*greater than 0"),
    ("probe", "top_logprobs: 1000", r"top_logprobs: .*\(got 1000\)"),
    ("sample", "engine: vlm", r"engine: .*\(got 'vlm'\)"),
    ("sample", "prompt: {instruction: no question}", r"instruction must contain \{question\}"),
    ("sample", "server: {urls: [localhost]}", r"server.urls.0: .*\(got 'localhost'\)"),
    ("sample", "purpose: evaluation\nloops: {min_repeats: 4}", r"loops.min_repeats stops traces early"),
    ("eval", "sweep: {temperature: [-1]}", r"sweep.temperature.0: .*greater than or equal to 0"),
    ("eval", "extraction: {thinking: true}", r"unknown key 'extraction.thinking' \(allowed here: strip_thinking,"),
    ("eval", "sequential: {equivalence_margin: 200}", r"sequential.equivalence_margin: .*\(got 200"),
]  # fmt: skip

# The flags, and a pattern of the sentence.
FLAGS = [
    ("train --learning-rate abc --out o --model m --traces t", r"--learning-rate: could not convert .*'abc'"),
    ("train --learning-rate inf --out o --model m --traces t", r"--learning-rate: .*finite number \(got inf\)"),
    ("train --learning-rte 1 --model m --traces t", r"unknown flag --learning-rte: did you mean --learning-rate\?"),
    ("train --zzzzz 1", r"unknown flag --zzzzz: `ssdfast train --help` lists the flags"),
    ("train --model m", r"required flags are missing: --out, --traces"),
    ("train --model m --model n --traces t --out o", r"the flag --model is given twice"),
    ("train --model m --traces t --out o --report-to wandbb", r"report_to: 'wandbb' is unknown: choose from .*wandb"),
    ("train --model m --traces t --out o --offload-optimizer --optimizer adamw_bf16", r": offload_optimizer moves"),
    ("probe --traces a=x --traces b=y", r"the flag --traces is given twice: give it once, with all its values"),
    ("probe --train-sampling.temprature 1", r"did you mean --train-sampling.temperature\?"),
    ("probe --eval-sampling.top-p", r"--eval-sampling.top-p"),
    (
        "probe --eval-sampling.temperature -1 --out o --baseline b --trained t --traces x",
        r"--eval-sampling.temperature: .*greater than 0 \(got -1",
    ),
    ("probe --preset none", r"--preset: invalid choice: 'none'"),
    ("probe --preset", r"--preset: expected one argument"),
    ("probe --config", r"--config: expected one argument"),
    ("sample --engine foo --model m --out o", r"invalid choice 'foo' for argument '--engine'"),
    ("study", r"required"),
    ("study demo extra --out o", r"extra"),
    ("study nowhere.yaml --out o", r"there is no config file nowhere.yaml"),
    ("plan --seq-lengths x --model m", r"--seq-lengths"),
    ("frob", r"unknown command 'frob'"),
]  # fmt: skip


def sentence(capsys, *args):
    capsys.readouterr()
    assert cli.run(list(args)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("ssdfast: ")
    assert "pydantic" not in lines[0]
    return lines[0]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("command", "text", "pattern"), FILES)
def test_a_wrong_file_is_one_sentence(here, capsys, command, text, pattern):
    (here / "file.yaml").write_text(text)
    args = ["study", "file.yaml"] if command == "study" else [command, "--config", "file.yaml"]
    said = sentence(capsys, *args, "--out", "out")
    assert "file.yaml" in said
    assert re.search(pattern, said), said


@pytest.mark.parametrize(("flags", "pattern"), FLAGS)
def test_a_wrong_flag_is_one_sentence(capsys, flags, pattern):
    said = sentence(capsys, *flags.split())
    assert re.search(pattern, said), said


def test_a_directory_is_no_config(capsys):
    Path("run").mkdir()
    assert "run is a directory: name a YAML file, such as run/config.yaml" in sentence(
        capsys, "probe", "--config", "run", "--out", "o"
    )


def test_a_tracker_that_is_not_installed_is_named_before_any_work(capsys, monkeypatch):
    from ssdfast.training import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    said = sentence(capsys, *["train", "--model", "nowhere", "--traces", "t", "--out", "o", "--report-to", "wandb"])
    assert "wandb is not installed: pip install wandb" in said
    assert not Path("o").exists()


@pytest.mark.parametrize("zero", [0, 0.0, "0"])
def test_temperature_0_is_greedy_decoding(zero):
    greedy = SamplingParams(temperature=zero)
    assert (greedy.temperature, greedy.top_k, greedy.top_p) == (1.0, 1, 0.95)
    sweep = SweepConfig(temperature=(zero, 0.7), top_k=(0, 20)).grid(EngineSamplingParams())
    assert [(params.temperature, params.top_k) for params in sweep] == [(1.0, 1), (0.7, 0), (0.7, 20)]
    assert EvalConfig(sampling={"temperature": zero}).sampling.top_k == 1


def test_a_run_stands_for_its_traces(here):
    baseline, trained = tiny.save_pair(here / "models")
    tiny.save_traces(here / "run" / "traces", 3)
    (here / "run" / "config.yaml").write_text("{}")
    assert len(list(traces.read(here / "run"))) == 3
    probe(ProbeConfig(baseline=baseline, trained=trained, traces=("run",)), here / "out")
    manifest = yaml.safe_load((here / "out" / "manifest.json").read_text())
    assert "run/traces/shard-00000.parquet" in manifest["inputs"]


def test_a_name_that_the_terminal_cannot_show(here):
    root = Path(__file__).resolve().parents[2]
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", "ssdfast", "probe", "--config", "naïve-‖.yaml", "--out", "o"],
        env={**os.environ, **ascii_only},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == rb"ssdfast: there is no config file na\xefve-\u2016.yaml" + b"\n"
