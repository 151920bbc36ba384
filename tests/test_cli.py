"""The command line: quick help, exit codes, one sentence for a mistake, flags over file over preset."""

import json
import re
import subprocess
import sys
from typing import get_args

import pyarrow.parquet as pq
import pytest
import yaml

from ssdfast import cli
from ssdfast.cli import commands, stages
from ssdfast.config import PRESETS, SCHEDULES
from ssdfast.config.study import STUDIES
from ssdfast.run_dir import RunError
from ssdfast.schemas import FailedTrace

from . import tiny


@pytest.fixture
def inputs(tmp_path):
    baseline, trained = tiny.save_pair(tmp_path)
    return {"baseline": baseline, "trained": trained, "traces": f"given={tiny.save_traces(tmp_path / 'traces', 4)}"}


def flags(values: dict) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def mistake(capsys, *args) -> str:
    """The one line that a mistake prints."""
    capsys.readouterr()
    assert cli.run(list(args)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("ssdfast: ")
    return lines[0]


@pytest.mark.parametrize(
    "args", [["--help"], *([stage, "--help"] for stage in ("sample", "eval", "train", "plan", "probe", "study"))]
)
def test_help_imports_no_torch(args):
    code = f"""
import sys
from ssdfast import cli
from ssdfast.run_dir import RunError
try:
    code = cli.run({args!r})
except SystemExit as stop:
    code = stop.code
heavy = {{"torch", "transformers", "numpy", "pyarrow"}} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout if args[0] != "--help" else "probe" in done.stdout and "study" in done.stdout


def test_probe_writes_a_run(inputs, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.run(["probe", *flags(inputs), "--out", str(out)]) == 0
    names = {str(f.relative_to(out)) for f in out.rglob("[!.]*") if f.is_file()}
    made = {"config.yaml", "manifest.json", "summary.json", "report.html"}
    assert names == made | {"positions/shard-00000.parquet", "vocabulary.json"}
    printed = capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert f"{summary['positions']:,} positions of 4 traces" in printed
    assert f"report: {out / 'report.html'}" in printed


def test_probe_of_several_models(inputs, tmp_path, capsys):
    other = tiny.save_model(tmp_path / "other", moved=0.05)
    out = tmp_path / "out"
    words = ["--baseline", inputs["baseline"], "--traces", inputs["traces"], "--out", str(out)]
    assert cli.run(["probe", *words, "--trained", f"a={inputs['trained']}", other]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^a: [\d,]+ positions, shift [\d.]+ \[.*\] nats per position$", printed, re.M)
    assert re.search(r"^other: [\d,]+ positions", printed, re.M)
    file = tmp_path / "probe.yaml"
    given = {"baseline": inputs["baseline"], "traces": [inputs["traces"]], "trained": {"later": other}}
    file.write_text(yaml.safe_dump(given))
    assert cli.run(["probe", "--config", str(file), "--out", str(out)]) == 0
    names = {str(f.relative_to(out)) for f in out.rglob("[!.]*") if f.is_file()}
    of_each = ("config.yaml", "manifest.json", "summary.json", "positions/shard-00000.parquet")
    expected = {"config.yaml", "manifest.json", "report.html", "vocabulary.json"}
    expected |= {f"models/{name}/{file}" for name in ("a", "other", "later") for file in of_each}
    assert names == expected | {"models/baseline/positions/shard-00000.parquet"}
    assert [model["name"] for model in yaml.safe_load((out / "config.yaml").read_text())["trained"]] == [
        "a", "other", "later"
    ]  # fmt: skip
    assert "holds the probe of several" in mistake(capsys, "probe", *words, "--trained", other)
    said = mistake(capsys, "probe", *words, "--trained", f"x={other}", f"x={inputs['trained']}")
    assert "are both named 'x': give each its own name" in said
    assert "names a directory" in mistake(capsys, "probe", *words, "--trained", f"baseline={other}")


def test_flags_override_the_file_and_the_file_the_preset(inputs, tmp_path):
    file = tmp_path / "probe.yaml"
    given = {**inputs, "traces": [inputs["traces"]], "train_sampling": {"temperature": 1.5}, "seed": 3}
    file.write_text(yaml.safe_dump(given))
    out = tmp_path / "out"
    args = [
        "probe",
        "--config",
        str(file),
        "--preset",
        "paper-4b-instruct",
        "--seed",
        "4",
        "--eval-sampling.top-k",
        "10",
    ]
    assert cli.run([*args, "--out", str(out)]) == 0
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert saved["train_sampling"] == {"temperature": 1.5, "top_k": 20, "top_p": 0.8}
    assert saved["eval_sampling"] == {"temperature": 1.1, "top_k": 10, "top_p": 0.8}
    assert saved["seed"] == 4
    assert saved["traces"] == [dict(zip(("name", "path"), inputs["traces"].split("="), strict=True))]


def test_a_run_with_other_settings_is_kept_until_overwritten(inputs, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert cli.run(["probe", *flags(inputs), *out]) == 0
    assert "seed: 0 there, 1 here" in mistake(capsys, "probe", *flags(inputs), "--seed", "1", *out)
    assert cli.run(["probe", *flags(inputs), "--seed", "1", "--overwrite", *out]) == 0


def test_an_unknown_key_names_file_key_and_what_is_allowed(tmp_path, capsys):
    file = tmp_path / "probe.yaml"
    file.write_text("eval_sampling: {temprature: 1.0}")
    said = mistake(capsys, "probe", "--config", str(file), "--out", str(tmp_path / "out"))
    assert str(file) in said
    assert "unknown key 'eval_sampling.temprature' (allowed here: temperature, top_k, top_p)" in said


def test_what_is_not_there_is_named(inputs, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert "nowhere" in mistake(capsys, "probe", *flags(inputs | {"baseline": tmp_path / "nowhere"}), *out)
    assert "nowhere" in mistake(capsys, "probe", *flags(inputs | {"traces": f"a={tmp_path}/nowhere"}), *out)
    assert "no config file" in mistake(capsys, "probe", "--config", str(tmp_path / "nowhere.yaml"), *out)


def test_bad_traces_are_named(inputs, tmp_path, capsys):
    whole = next((tmp_path / "traces").glob("*.parquet")).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    given = inputs | {"traces": f"a={tmp_path}/cut.parquet", "out": tmp_path / "out"}
    assert "cut.parquet is not a complete" in mistake(capsys, "probe", *flags(given))


def test_the_top_list_must_hold_the_truncation(inputs, tmp_path, capsys):
    said = mistake(capsys, "probe", *flags(inputs), "--top-logprobs", "10", "--out", str(tmp_path / "out"))
    assert "set top_logprobs to 20 or more" in said


@pytest.mark.parametrize("args", [["probe"], ["probe", "--seed", "x"], ["probe", "--preset", "none"]])
def test_wrong_flags_are_a_mistake_too(args, capsys):
    assert "--" in mistake(capsys, *args)


def test_no_or_an_unknown_command(capsys):
    assert cli.run([]) == 2
    assert "the commands are sample, eval, train, plan, probe, study" in mistake(capsys, "prob")


def test_a_fault_is_not_taken_for_a_mistake(monkeypatch):
    def broken(args):
        raise RuntimeError("a bug")

    monkeypatch.setitem(stages.RUN, "probe", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.run(["probe"])


@pytest.mark.parametrize("fault", [RunError("all traces failed"), OSError(28, "no room to write x")])
def test_a_fault_that_explains_itself_is_one_sentence(monkeypatch, capsys, fault):
    def broken(args):
        raise fault

    monkeypatch.setitem(stages.RUN, "probe", broken)
    assert cli.run(["probe"]) == 1
    assert capsys.readouterr().err == f"ssdfast: {fault}\n"


def test_traces_that_failed_make_the_exit_code_and_are_told(inputs, tmp_path, monkeypatch, capsys):
    from ssdfast.probing import runner

    whole = runner.probe

    def fails(config, out, *more):
        whole(config, out, *more)
        return [FailedTrace(trace_source="a", trace_id="p#0", reason="out of memory")]

    monkeypatch.setattr(runner, "probe", fails)
    assert cli.run(["probe", *flags(inputs), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "1 traces could not be scored, the first a, p#0: out of memory. " in said.err
    assert "report:" in said.out


def test_an_estimate_tells_and_writes_nothing(inputs, tmp_path, capsys):
    assert cli.run(["probe", *flags(inputs), "--out", str(tmp_path / "out"), "--estimate"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^positions  44 in 1 shards$", said, re.M)
    assert re.search(r"^time       \d+ s ", said, re.M)
    assert not (tmp_path / "out").exists()


def test_token_classes_and_positions_come_from_the_file(inputs, tmp_path):
    file = tmp_path / "probe.yaml"
    settings = {
        "token_classes": {"mine": {"words": ["the"]}, "digits": {"regex": "[0-9]"}},
        "positions": {"select": "stride", "stride": 4},
    }
    file.write_text(yaml.safe_dump(settings))
    out = tmp_path / "out"
    assert cli.run(["probe", *flags(inputs), "--out", str(out), "--config", str(file), "--positions.stride", "2"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["token_classes"][-1] == "mine"
    assert summary["settings"]["positions"]["stride"] == 2
    table = pq.read_table(inputs["traces"].partition("=")[2])
    assert summary["positions"] == sum((len(ids) + 1) // 2 for ids in table["completion_ids"].to_pylist())
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert saved["token_classes"]["mine"] == {"words": ["the"], "regex": ""}


def test_the_command_line_knows_the_presets_that_exist():
    assert get_args(commands.PresetName) == tuple(PRESETS)
    assert set(PRESETS) == set(SCHEDULES) == set(STUDIES)
    for name in STUDIES:
        assert name in commands.StudyCommand.model_fields["file"].description
