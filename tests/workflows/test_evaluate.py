"""An evaluation from end to end: sampled or given, stopped and continued, ended early, refused."""

import dataclasses
import json

import pyarrow.parquet as pq
import pytest
import yaml

from ssdfast import cli
from ssdfast.config import EvalConfig, EvalExecution, NamedPath, PromptConfig, SweepConfig
from ssdfast.sampling import requests
from ssdfast.traces import read
from ssdfast.workflows import eval_sequential, evaluate
from tests import as_json

from .. import tiny

pytest.importorskip("math_verify")
pytest.importorskip("matplotlib")
WORDS = [*tiny.WORDS, *(rf"\boxed{{{n}}}" for n in range(30))]
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
FAST = EvalExecution(grader_workers=1, batch_size=64)


@pytest.fixture
def inputs(tmp_path):
    rows = [
        {"id": f"p{i}", "question": f"word{i} word{i + 9} +", "answer": str(i % 3), "level": i % 2} for i in range(12)
    ]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    return tmp_path


def config_of(directory, **changes):
    if not (directory / "base").exists():
        tiny.save_model(directory / "base", words=WORDS)
        tiny.save_model(directory / "trained", moved=0.02, words=WORDS)
    given = {
        "models": tuple(NamedPath(name=name, path=str(directory / name)) for name in ("base", "trained")),
        "problems": {"sources": [str(directory / "asked.jsonl")]},
        "prompt": PromptConfig(instruction="{question}", chat_template=str(directory / "chat.jinja")),
        "sweep": SweepConfig(temperature=(0.8, 1.2)),
        "samples_per_problem": 2,
        "pass_at_k": (2,),
        "max_new_tokens": 16,
    }
    return EvalConfig(**(given | changes))


def test_a_sweep_is_sampled_judged_and_compared(inputs):
    config, out = config_of(inputs), inputs / "out"
    results = as_json.evaluate(config, out, FAST)
    assert json.loads((out / "eval" / "results.json").read_text()) == results
    assert {f.name for f in (out / "eval").iterdir()} == {
        "accuracy.svg", "answer_rate.svg", "length.svg", "results.json", "samples.parquet",
    }  # fmt: skip
    assert [(arm["checkpoint"], arm["temperature"], arm["samples"]) for arm in results["runs"]] == [
        ("base", 0.8, 24), ("base", 1.2, 24), ("trained", 0.8, 24), ("trained", 1.2, 24),
    ]  # fmt: skip
    rows = pq.read_table(out / "eval" / "samples.parquet").to_pylist()
    golds = {f"p{i}": str(i % 3) for i in range(12)}
    right = [row["grade"] == "correct" for row in rows]
    assert any(right)
    assert right == [row["answer"] == golds[row["problem_id"]] for row in rows]
    first = [row["grade"] == "correct" for row in rows if (row["checkpoint"], row["temperature"]) == ("base", 0.8)]
    assert results["runs"][0]["accuracy"]["value"] == pytest.approx(sum(first) / 24)
    assert results["selection"]["selection_problems"] == results["selection"]["reporting_problems"] == 6
    assert [one["run"] for one in results["comparisons"]] == ["trained T=0.8 k=20 p=0.95", "trained T=1.2 k=20 p=0.95"]
    assert len({one["baseline"] for one in results["comparisons"]}) == 1


def test_a_seed_is_the_same_at_every_checkpoint_and_decoding(inputs):
    as_json.evaluate(config_of(inputs), inputs / "out", FAST)
    seeds = [
        pq.read_table(directory)["seed"].to_pylist() for directory in sorted((inputs / "out" / "traces").glob("*/*"))
    ]
    assert len(seeds) == 4
    assert all(one == seeds[0] for one in seeds)


def test_a_checkpoint_is_loaded_once_for_all_decodings(inputs, monkeypatch):
    loaded = []
    load = requests.load
    monkeypatch.setattr(requests, "load", lambda path, dtype: loaded.append(path) or load(path, dtype))
    as_json.evaluate(config_of(inputs), inputs / "out", FAST)
    assert loaded == [str(inputs / "base"), str(inputs / "trained")]


def test_a_stopped_run_goes_on_and_ends_as_an_undisturbed_one(inputs, monkeypatch):
    config = config_of(inputs)
    whole = as_json.evaluate(config, inputs / "whole", FAST)
    fill, filled = evaluate.fill, []

    def stopping(plan, engines, directory, what, **rest):
        if len(filled) == 3:
            raise KeyboardInterrupt
        filled.append(directory)
        return fill(plan, engines, directory, what, **rest)

    monkeypatch.setattr(evaluate, "fill", stopping)
    with pytest.raises(KeyboardInterrupt):
        as_json.evaluate(config, inputs / "out", FAST)
    assert not (inputs / "out" / "eval" / "results.json").exists()
    monkeypatch.setattr(evaluate, "fill", fill)
    loaded = []
    load = requests.load
    monkeypatch.setattr(requests, "load", lambda path, dtype: loaded.append(path) or load(path, dtype))
    assert as_json.evaluate(config, inputs / "out", FAST) == whole
    assert loaded == [str(inputs / "trained")]
    monkeypatch.setattr(evaluate, "GraderPool", None)  # all is there: nothing is judged again
    assert as_json.evaluate(config, inputs / "out", FAST) == whole


def test_each_run_knows_how_many_runs_and_models_follow(inputs, monkeypatch):
    fill, after = evaluate.fill, []

    def counted(*args, runs_after, models_after):
        after.append((runs_after, models_after))
        return fill(*args, runs_after=runs_after, models_after=models_after)

    monkeypatch.setattr(evaluate, "fill", counted)
    as_json.evaluate(config_of(inputs), inputs / "out", FAST)
    assert after == [(3, 1), (2, 1), (1, 0), (0, 0)]


def test_a_limit_is_inside_a_larger_one(inputs):
    asked = {}
    for limit in (4, 8):
        config = config_of(inputs, limit=limit, sweep=SweepConfig(), samples_per_problem=1, pass_at_k=())
        as_json.evaluate(config, inputs / f"out{limit}", FAST)
        asked[limit] = {
            trace.problem_id for trace in read(next((inputs / f"out{limit}" / "traces" / "base").iterdir()))
        }
    assert len(asked[4]) == 4
    assert asked[4] < asked[8]
    assert {int(name[1:]) % 2 for name in asked[4]} == {0, 1}


def test_alike_models_end_undecided_or_without_a_difference(inputs):
    config = config_of(
        inputs,
        models=(NamedPath(name="a", path=str(inputs / "base")), NamedPath(name="b", path=str(inputs / "base"))),
        sweep=SweepConfig(),
        samples_per_problem=1,
        pass_at_k=(),
        sequential={"equivalence_margin": 60, "max_looks": 3},
    )
    tiny.save_model(inputs / "base", words=WORDS)
    results = as_json.evaluate(config, inputs / "out", FAST)
    (sequence,) = results["sequential"]
    last = sequence["looks"][-1]
    assert last["stopped"]
    assert last["decision"] == "equivalent"
    assert [arm["problems"] for arm in results["runs"]] == [last["problems"]] * 2
    assert results["comparisons"] == []


def test_a_decided_question_is_sampled_no_further(inputs, monkeypatch):
    """Two of three checkpoints: the third's question ends at the first look, and it is asked nothing more."""
    config = config_of(inputs, sweep=SweepConfig(), pass_at_k=(), sequential={"equivalence_margin": 1, "max_looks": 4})
    extra = NamedPath(name="never", path=str(inputs / "base"))
    config = config.model_copy(update={"models": (*config.models, extra)})
    look, sequences = eval_sequential.SequentialTest.look, []

    def ending(self, differences):
        if self not in sequences:
            sequences.append(self)
        found = look(self, differences)
        self.looks[-1] = dataclasses.replace(
            found, stopped=self is sequences[-1] is not sequences[0] or found.problems == 12
        )
        return self.looks[-1]

    monkeypatch.setattr(eval_sequential.SequentialTest, "look", ending)
    results = as_json.evaluate(config, inputs / "out", FAST)
    assert {arm["checkpoint"]: arm["problems"] for arm in results["runs"]} == {"base": 12, "trained": 12, "never": 3}
    assert {one["run"]: len(one["looks"]) for one in results["sequential"]} == {"trained": 4, "never": 1}
    assert {one["alpha"] for one in results["sequential"]} == {0.025}


def test_other_prompts_are_refused_before_anything_is_sampled(inputs, monkeypatch):
    config = config_of(inputs)
    other = [*WORDS[:2], "+", *(word for word in WORDS[2:] if word != "+")]  # the same words under other ids
    tiny.save_model(inputs / "other", words=other)
    config = config.model_copy(update={"models": (*config.models, NamedPath(name="other", path=str(inputs / "other")))})
    with monkeypatch.context() as patched:
        patched.setattr(requests, "make_engine", None)
        with pytest.raises(ValueError, match=r"the prompt of p.* has other tokens for other than for base"):
            as_json.evaluate(config, inputs / "out", FAST)
    kept = as_json.evaluate(config.model_copy(update={"on_prompt_mismatch": "allow"}), inputs / "out2", FAST)
    assert kept["prompt_mismatches"] == {"other T=0.8 k=20 p=0.95": 12, "other T=1.2 k=20 p=0.95": 12}


@pytest.mark.parametrize(
    ("answer", "said"), [(None, "1 problem (p3) without a gold answer"), (r"\frac{1}{", "1 problem (p3) with a gold")]
)
def test_gold_answers_are_checked_before_anything_is_sampled(inputs, monkeypatch, capsys, answer, said):
    rows = [json.loads(line) for line in (inputs / "asked.jsonl").read_text().splitlines()]
    rows[3]["answer"] = answer
    (inputs / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config_of(inputs)
    monkeypatch.setattr(requests, "make_engine", None)
    file = inputs / "eval.yaml"
    file.write_text(yaml.safe_dump(config_of(inputs).model_dump(mode="json")))
    assert cli.run(["eval", "--config", str(file), "--out", str(inputs / "out"), "--grader-workers", "1"]) == 2
    assert said in capsys.readouterr().err


def save_completions(path, answers, **more):
    path.write_text(
        "".join(
            json.dumps({"problem_id": f"p{i}", "text": rf"so \boxed{{{answer}}}", **more}) + "\n"
            for i, answer in enumerate(answers)
        )
    )
    return str(path)


def test_problems_with_bad_golds_are_left_out_and_listed(inputs, caplog):
    rows = [{"id": f"p{i}", "question": f"q{i}", "answer": gold} for i, gold in enumerate((r"\frac{1}{", "2", "3", ""))]
    (inputs / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("ours", "theirs"):
        answers = [{"problem_id": row["id"], "text": r"so \boxed{2}"} for row in rows]
        (inputs / f"{name}.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    config = EvalConfig(
        completions=tuple(NamedPath(name=name, path=str(inputs / f"{name}.jsonl")) for name in ("ours", "theirs")),
        problems={"sources": [str(inputs / "some.jsonl")]},
        on_bad_gold="skip",
    )
    results = as_json.evaluate(config, inputs / "out", FAST)
    assert results["bad_golds"] == ["p0", "p3"]
    assert [run["accuracy"]["value"] for run in results["runs"]] == [0.5, 0.5]
    assert "2 problems whose gold answer is missing or cannot be parsed are left out: p0, p3" in caplog.text


def test_problems_with_bad_golds_are_not_sampled(inputs):
    rows = [json.loads(line) for line in (inputs / "asked.jsonl").read_text().splitlines()]
    rows[2]["answer"], rows[5]["answer"] = r"\frac{1}{", ""
    (inputs / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"1 problem \(p5\) without a gold answer"):
        as_json.evaluate(config_of(inputs), inputs / "out", FAST)
    assert not list((inputs / "out").glob("**/*.parquet"))
    results = as_json.evaluate(config_of(inputs, on_bad_gold="skip"), inputs / "out", FAST)
    assert results["bad_golds"] == ["p2", "p5"]
    assert results["problems"] == 10
    sampled = {
        name
        for directory in (inputs / "out" / "traces").glob("*/*")
        for name in pq.read_table(directory)["problem_id"].to_pylist()
    }
    assert sampled == {f"p{i}" for i in range(12)} - {"p2", "p5"}


def test_a_grader_that_is_not_there_is_refused_before_sampling(inputs):
    with pytest.raises(ValueError, match="nowhere:score cannot be imported"):
        as_json.evaluate(config_of(inputs, grader="nowhere:score"), inputs / "out", FAST)
    assert not list((inputs / "out").glob("**/*.parquet"))


def test_completions_from_elsewhere_are_compared(inputs, capsys):
    golds = [i % 3 for i in range(12)]
    before = save_completions(inputs / "before.jsonl", [*golds[:6], *[9] * 6])
    after = save_completions(inputs / "after.jsonl", [*golds[:11], 9])
    args = ["--completions", f"before={before}", f"after={after}", "--problems.sources", str(inputs / "asked.jsonl")]
    assert cli.run(["eval", *args, "--out", str(inputs / "out")]) == 0
    said = capsys.readouterr().out
    assert "after against before: +41.7 [−0.2, 71.6] percentage points" in said
    assert "p = 0.062, by Holm over 1 p = 0.062 (exact McNemar, 5 of 12 problems discordant)" in said


def test_a_run_of_sampling_is_judged_with_the_problems_beside_it(inputs):
    config = config_of(inputs)
    run = inputs / "sampled"
    asked = ["--problems.sources", str(inputs / "asked.jsonl"), "--prompt.instruction", "{question}"]
    asked += ["--prompt.chat-template", str(inputs / "chat.jinja"), "--max-new-tokens", "12", "--purpose", "evaluation"]
    assert cli.run(["sample", "--model", config.models[0].path, *asked, "--out", str(run)]) == 0
    given = EvalConfig(completions=(NamedPath(name="theirs", path=str(run)),), limit=5)
    results = as_json.evaluate(given, inputs / "out", FAST)
    (arm,) = results["runs"]
    assert (arm["problems"], arm["temperature"], arm["diagnostics"]["length"]["unit"]) == (5, 1.0, "tokens")


def test_arms_over_other_problems_are_refused_and_the_problems_named(inputs, capsys):
    before = save_completions(inputs / "before.jsonl", [0] * 12)
    after = save_completions(inputs / "after.jsonl", [0] * 10)
    args = ["--completions", f"before={before}", f"after={after}", "--problems.sources", str(inputs / "asked.jsonl")]
    assert cli.run(["eval", *args, "--out", str(inputs / "out")]) == 2
    assert "after has no completion of p10, p11" in capsys.readouterr().err.splitlines()[-1]


def test_completions_that_changed_since_are_refused(inputs, capsys):
    theirs = save_completions(inputs / "theirs.jsonl", [0] * 12)
    args = ["eval", "--completions", f"theirs={theirs}", "--problems.sources", str(inputs / "asked.jsonl")]
    assert cli.run([*args, "--out", str(inputs / "out")]) == 0
    save_completions(inputs / "theirs.jsonl", [1] * 12)
    assert cli.run([*args, "--out", str(inputs / "out")]) == 2
    assert "theirs.jsonl has changed" in capsys.readouterr().err


def test_an_estimate_counts_all_arms(inputs, capsys):
    file = inputs / "eval.yaml"
    file.write_text(yaml.safe_dump(config_of(inputs).model_dump(mode="json")))
    assert cli.run(["eval", "--config", str(file), "--out", str(inputs / "out"), "--estimate"]) == 0
    said = capsys.readouterr().out
    assert said.count("traces  48 of 12 problems, 0 of them finished") == 2
    assert not (inputs / "out").exists()


def test_stored_traces_are_graded_again_without_a_model(inputs, monkeypatch, caplog):
    caplog.set_level("INFO", "ssdfast")
    config, out = config_of(inputs), inputs / "out"
    before = as_json.evaluate(config, out, FAST)
    traces = {path: pq.read_table(path).drop_columns(["correct"]) for path in out.glob("traces/*/*/*.parquet")}
    monkeypatch.setattr(requests, "make_engine", lambda *args: pytest.fail("a model was loaded"))
    after = as_json.evaluate(config_of(inputs, extraction={"fallback_last_number": True}), out, FAST)
    assert "graded again, with another extraction" in caplog.text
    rates = [[run["diagnostics"]["answer_rate"]["value"] for run in results["runs"]] for results in (before, after)]
    assert all(new >= old for old, new in zip(*rates, strict=True))
    assert rates[0] != rates[1]
    assert {path: pq.read_table(path).drop_columns(["correct"]) for path in traces} == traces
    assert as_json.evaluate(config, out, FAST) == before


def test_more_samples_and_more_tokens_are_a_top_up(inputs, monkeypatch):
    config, out = config_of(inputs, sweep=SweepConfig(), pass_at_k=()), inputs / "out"
    as_json.evaluate(config, out, FAST)
    (shard,) = out.glob("traces/base/*/*.parquet")
    first = {(row["problem_id"], row["sample"]): row for row in pq.read_table(shard).to_pylist()}
    asked = []
    make_engine = requests.make_engine

    def watched(*args):
        engine = make_engine(*args)
        complete = engine.complete
        engine.complete = lambda given, on_tokens: (asked.extend(given), complete(given, on_tokens))[1]
        return engine

    monkeypatch.setattr(requests, "make_engine", watched)
    more = config_of(inputs, sweep=SweepConfig(), pass_at_k=(4,), samples_per_problem=4)
    results = as_json.evaluate(more, out, FAST)
    assert results["runs"][0]["samples"] == 48
    assert {request.sample for request in asked} == {2, 3}
    assert len(asked) == 2 * 24
    table = pq.read_table(shard.parent).to_pylist()
    assert [row["sample"] for row in table] == [0, 1, 2, 3] * 12
    assert [row["problem_id"] for row in table[::4]] == [name for name, sample in first if sample == 0]
    assert all(row["completion_ids"] == first[key]["completion_ids"] for row in table
               if (key := (row["problem_id"], row["sample"])) in first)  # fmt: skip

    asked.clear()
    longer = config_of(inputs, sweep=SweepConfig(), pass_at_k=(4,), samples_per_problem=4, max_new_tokens=24)
    as_json.evaluate(longer, out, FAST)
    cut = [row for directory in ("base", "trained") for row in pq.read_table(out / "traces" / directory).to_pylist()]
    assert {len(row["completion_ids"]) for row in cut if row["finish_reason"] == "length"} == {24}
    assert 0 < len(asked) < 96
    with pytest.raises(ValueError, match="max_new_tokens: 24 there, 16 here"):
        as_json.evaluate(more, out, FAST)


def test_grades_are_beside_the_traces(inputs):
    config, out = config_of(inputs, sweep=SweepConfig()), inputs / "out"
    as_json.evaluate(config, out, FAST)
    samples = pq.read_table(out / "eval" / "samples.parquet").to_pylist()
    for model in ("base", "trained"):
        graded = {row["trace_id"]: row["grade"] == "correct" for row in samples if row["checkpoint"] == model}
        (directory,) = (out / "traces" / model).iterdir()
        assert {trace.trace_id: trace.correct for trace in read(directory)} == graded
    (given,) = (out / "traces" / "base").iterdir()
    bytes_before = {file: file.read_bytes() for file in given.iterdir()}
    other = EvalConfig(completions=(NamedPath(name="old", path=str(given)),), extraction={"fallback_last_number": True})
    as_json.evaluate(other, inputs / "again", FAST)
    assert {file: file.read_bytes() for file in given.iterdir()} == bytes_before
    samples = pq.read_table(inputs / "again" / "eval" / "samples.parquet").to_pylist()
    graded = {row["trace_id"]: row["grade"] == "correct" for row in samples}
    assert {trace.trace_id: trace.correct for trace in read(inputs / "again" / "traces" / "old")} == graded


def test_a_run_without_a_correct_answer_names_the_fallback_that_finds_some(inputs, caplog):
    rows = [{"problem_id": f"p{i}", "text": f"so the answer is {i % 3}"} for i in range(12)]
    (inputs / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = EvalConfig(
        completions=(NamedPath(name="old", path=str(inputs / "texts.jsonl")),),
        problems={"sources": [str(inputs / "asked.jsonl")]},
    )
    as_json.evaluate(config, inputs / "out", FAST)
    assert "0 of 12 answers are correct, and 12 would be with --extraction.fallback-last-number True" in caplog.text
    assert "fallback-choice-letter" not in caplog.text
