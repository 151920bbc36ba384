"""A command that is rejected neither claims its directory nor removes what is in it; the corrected command runs."""

import json

import pyarrow.parquet as pq
import pytest

from ssdfast import traces
from ssdfast.config import (
    EvalConfig,
    EvalExecution,
    NamedPath,
    ProbeConfig,
    ProblemsConfig,
    PromptConfig,
    SampleConfig,
    TrainingRunConfig,
)
from ssdfast.probing.runner import probe
from ssdfast.sampling.runner import sample
from ssdfast.training.runner import train
from ssdfast.workflows.evaluate import evaluate

from .. import tiny

TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
FAST = EvalExecution(grader_workers=1)


@pytest.fixture
def here(tmp_path):
    rows = [{"id": f"p{i}", "question": f"word{i} word{i + 9}", "answer": "7"} for i in range(4)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    tiny.save_model(tmp_path / "model")
    return tmp_path


def contents(directory):
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def completions(file, samples):
    rows = [{"problem_id": f"p{i}", "text": "so \\boxed{7}", "sample": k} for i in range(4) for k in range(samples[i])]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return NamedPath(name=file.stem, path=str(file))


def problems(here, **values):
    return ProblemsConfig(sources=(str(here / "problems.jsonl"),), **values)


def eval_config(here, **values):
    return EvalConfig(**{"problems": problems(here).model_dump()} | values)


def test_an_evaluation_of_completions(here):
    pytest.importorskip("math_verify")
    even, uneven = completions(here / "even.jsonl", [1, 1, 1, 1]), completions(here / "uneven.jsonl", [2, 1, 1, 1])
    out = here / "out"
    with pytest.raises(ValueError, match="on-missing-samples"):
        evaluate(eval_config(here, completions=(uneven,)), out, FAST)
    assert contents(out) == {}
    evaluate(eval_config(here, completions=(even,)), out, FAST)
    before = contents(out)
    with pytest.raises(ValueError, match="on-missing-samples"):
        evaluate(eval_config(here, completions=(uneven,)), out, FAST, overwrite=True)
    assert contents(out) == before
    evaluate(eval_config(here, completions=(uneven,), on_missing_samples="allow"), out, FAST, overwrite=True)


def test_an_evaluation_of_a_model_may_change_how_it_grades(here, monkeypatch):
    """Sampling took hours, and the traces do not depend on the setting that was wrong."""
    pytest.importorskip("math_verify")
    from ssdfast.workflows import evaluate as module

    def reject(runs, extraction):
        if extraction.prompt_opens_thinking is None:
            raise ValueError("set extraction.prompt_opens_thinking")

    monkeypatch.setattr(module, "check_thinking", reject)
    values = {
        "models": (NamedPath(name="base", path=str(here / "model")),),
        "prompt": PromptConfig(instruction="{question}", chat_template=str(here / "chat.jinja")),
        "max_new_tokens": 8,
    }
    out = here / "out"
    with pytest.raises(ValueError, match="prompt_opens_thinking"):
        evaluate(eval_config(here, **values), out, FAST)
    sampled = sampled_ids(out / "traces")
    for opens in (False, True):  # also once there are results
        values["extraction"] = {"prompt_opens_thinking": opens}
        evaluate(eval_config(here, **values), out, FAST)
        assert sampled_ids(out / "traces") == sampled
    values["max_new_tokens"] = 4
    with pytest.raises(ValueError, match="max_new_tokens"):
        evaluate(eval_config(here, **values), out, FAST)


def sampled_ids(directory):
    """Of every trace; the grade beside them may change."""
    tables = map(pq.read_table, sorted(directory.rglob("*.parquet")))
    return [row for table in tables for row in table.select(["problem_id", "sample", "completion_ids"]).to_pylist()]


def test_a_sampling_run(here):
    prompt = PromptConfig(instruction="{question}", chat_template=str(here / "chat.jinja"))
    config = SampleConfig(model=str(here / "model"), problems=problems(here), prompt=prompt, max_new_tokens=8)
    sample(config, here / "out")
    before = contents(here / "out")
    for mistake in (
        {"problems": problems(here, limit_per_source=1, decontaminate_against=(str(here / "none.jsonl"),))},
        {"model": str(here / "nowhere")},
        {"engine": "server"},
    ):
        with pytest.raises(ValueError, match=r"none.jsonl|nowhere|server"):
            sample(config.model_copy(update=mistake), here / "out", overwrite=True)
        assert contents(here / "out") == before
    with pytest.raises(ValueError, match="nowhere"):
        sample(config.model_copy(update={"model": str(here / "nowhere")}), here / "new")
    sample(config, here / "new")


def test_a_probe(here):
    given = tiny.save_traces(here / "given", 3)
    config = ProbeConfig(baseline=str(here / "model"), trained=str(here / "model"), traces=(given,))
    probe(config, here / "out")
    before = contents(here / "out")
    foreign = here / "foreign"
    traces.write_shard(foreign, 0, tiny.trace_table(2, completion_ids=[[5000], [1]]))
    for mistake in (
        {"trained": str(here / "nowhere")},
        {"trained": tiny.save_model(here / "other", words=[*tiny.WORDS, "more"])},
        {"traces": (NamedPath(name="foreign", path=str(foreign)),)},
        {"top_logprobs": 10},
    ):
        with pytest.raises(ValueError, match=r"nowhere|tokenizers|outside|set top_logprobs"):
            probe(config.model_copy(update=mistake), here / "out", overwrite=True)
        assert contents(here / "out") == before


def test_a_training_run(here):
    given = tiny.save_traces(here / "given", 3)
    config = TrainingRunConfig(model=str(here / "model"), traces=given, batch_size=2, learning_rate=1e-3)
    soft = config.model_copy(update={"loss": "soft"})
    with pytest.raises(ValueError, match="top log-probabilities"):
        train(soft, here / "out")
    assert contents(here / "out") == {}
    train(config, here / "out")
    before = contents(here / "out")
    with pytest.raises(ValueError, match="top log-probabilities"):
        train(soft, here / "out", overwrite=True)
    assert contents(here / "out") == before
    changed = config.model_copy(update={"seed": 1})
    with pytest.raises(ValueError, match="other settings"):
        train(changed, here / "out")
    train(changed, here / "out", overwrite=True)
    assert contents(here / "out")["train/model/model.safetensors"] != before["train/model/model.safetensors"]


def test_a_table_without_a_known_reason_is_not_touched(here):
    (here / "out").mkdir()
    (here / "out" / "summary.json").write_text("{}")
    config = ProbeConfig(baseline=str(here / "model"), trained=str(here / "model"), traces=("given",))
    with pytest.raises(ValueError, match=r"holds summary.json but no config.yaml"):
        probe(config, here / "out")
    assert contents(here / "out") == {"summary.json": b"{}"}
