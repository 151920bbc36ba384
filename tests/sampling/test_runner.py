"""A run of sampling: whole, resumed, killed, stopped; and what is wrong with what it was given."""

import contextlib
import json
import logging
import multiprocessing
import os
import random
import signal
import time

import pyarrow.parquet as pq
import pytest
import torch

from ssdfast import cli, run_dir
from ssdfast.config import (
    EngineSamplingParams,
    LoopConfig,
    ProblemsConfig,
    PromptConfig,
    SampleConfig,
    SampleExecution,
    dump,
)
from ssdfast.problems.problem import read_problems
from ssdfast.sampling import requests, run_stats, runner
from ssdfast.sampling.engine import Completion
from ssdfast.schemas import SamplingSummary
from ssdfast.traces import SCHEMA, read

from .. import tiny

TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
LLAMA = "transformers.models.llama.modeling_llama"


def save_problems(path, count):
    rng = random.Random(0)
    words = [f"word{i}" for i in range(80)]
    rows = [
        {"id": f"p{i}", "question": " ".join(rng.choices(words, k=3 + i % 5)), "level": i % 3, "answer": str(i)}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path, 10)


def make_config(directory, problems, **more):
    save_problems(directory / "problems.jsonl", problems)
    (directory / "chat.jinja").write_text(TEMPLATE)
    given = {
        "model": tiny.save_model(directory / "model"),
        "problems": ProblemsConfig(sources=(str(directory / "problems.jsonl"),)),
        "prompt": PromptConfig(instruction="{question}", chat_template=str(directory / "chat.jinja")),
        "sampling": EngineSamplingParams(temperature=1.1),
        "max_new_tokens": 12,
        "samples_per_problem": 2,
    }
    return SampleConfig(**(given | more))


def traces(out):
    return pq.read_table(out / "traces").to_pylist()


def test_a_run_writes_what_was_asked_and_how(config, tmp_path):
    out = tmp_path / "out"
    config = config.model_copy(update={"top_logprobs": 5})
    found = runner.sample(config, out, SampleExecution(batch_size=7)).to_json()
    assert {f.name for f in out.iterdir()} - {".lock"} == {
        "config.yaml", "manifest.json", "problems.jsonl", "sampling.json", "traces",
    }  # fmt: skip
    rows = traces(out)
    assert pq.read_schema(next((out / "traces").iterdir())).equals(SCHEMA)
    assert [(row["problem_id"], row["sample"]) for row in rows] == [(f"p{i}", s) for i in range(10) for s in (0, 1)]
    assert len({row["seed"] for row in rows}) == 20
    for i, row in enumerate(rows):
        assert row["difficulty"] == str(i // 2 % 3)
        assert (row["engine"], row["temperature"], row["top_k"], row["min_p"]) == ("transformers", 1.1, 20, 0.0)
        assert len(row["top_ids"]) == len(row["top_logprobs"]) == len(row["completion_ids"])
        assert all(len(step) == 5 for step in row["top_ids"])
    assert {**run_dir.schema_stamp(), **found} == json.loads((out / "sampling.json").read_text())
    assert found["traces"] == 20
    assert found["tokens"] == sum(len(row["completion_ids"]) for row in rows)
    asked = read_problems(out / "problems.jsonl")
    assert [problem.answer for problem in asked] == [str(i) for i in range(10)]


def test_a_finished_run_is_not_repeated_and_a_lost_part_is_made_again(config, tmp_path, monkeypatch):
    out = tmp_path / "out"
    runner.sample(config, out)
    before = traces(out)
    monkeypatch.setattr(requests, "make_engine", None)  # no model is loaded
    runner.sample(config, out)
    monkeypatch.undo()
    next((out / "traces").glob("shard-*")).unlink()
    runner.sample(config, out)
    assert traces(out) == before


def test_more_samples_of_a_problem_do_not_change_the_first(config, tmp_path):
    runner.sample(config, tmp_path / "two")
    runner.sample(config.model_copy(update={"samples_per_problem": 1}), tmp_path / "one")
    assert traces(tmp_path / "one") == [row for row in traces(tmp_path / "two") if row["sample"] == 0]


# Processes that can be killed, and that need not import torch anew each time.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["ssdfast.sampling.runner", "ssdfast.sampling.transformers", LLAMA])


def run(config, out, batch):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
    with contextlib.suppress(KeyboardInterrupt):
        runner.sample(config, out, SampleExecution(batch_size=batch))


def start(config, out, batch):
    process = processes.Process(target=run, args=(config, out, batch))
    process.start()
    return process


def journalled(out):
    return sum(path.stat().st_size for path in (out / "traces").glob(".journal-*")) + 10**6 * len(
        list((out / "traces").glob("shard-*"))
    )


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """Settings of 200 traces, and the rows of an undisturbed run."""
    directory = tmp_path_factory.mktemp("long")
    config = make_config(directory, 100, max_new_tokens=30)
    runner.sample(config, directory / "whole", SampleExecution(batch_size=16))
    return config, traces(directory / "whole")


def test_killed_ten_times_it_ends_with_the_traces_of_an_undisturbed_run(long_run, tmp_path):
    config, whole = long_run
    rng, kills = random.Random(0), 0
    while kills < 10:
        process = start(config, tmp_path, rng.randint(1, 9))
        before = journalled(tmp_path)
        wanted = before + rng.randint(1, 8_000)
        while journalled(tmp_path) < wanted and process.is_alive():
            time.sleep(0.002)
        assert process.is_alive(), "it was done before it could be killed ten times"
        process.kill()
        process.join()
        kills += 1
    assert len(runner.TraceStore(tmp_path / "traces", [(row["problem_id"], row["sample"]) for row in whole]).todo) > 20
    runner.sample(config, tmp_path, SampleExecution(batch_size=5))
    assert traces(tmp_path) == whole
    assert [f.name for f in (tmp_path / "traces").iterdir() if f.name.startswith(".")] == []


def test_stopped_from_the_keyboard_it_keeps_all_finished_traces_as_a_table(long_run, tmp_path):
    config, whole = long_run
    process = start(config, tmp_path, 4)
    while journalled(tmp_path) < 5_000 and process.is_alive():
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    kept = traces(tmp_path)
    assert 0 < len(kept) < len(whole)
    assert not list((tmp_path / "traces").glob(".journal*"))
    ids = {(row["problem_id"], row["sample"]): row["completion_ids"] for row in whole}
    assert all(ids[row["problem_id"], row["sample"]] == row["completion_ids"] for row in kept)
    runner.sample(config, tmp_path)
    assert traces(tmp_path) == whole


class Flaky:
    """An engine that fails on every third request."""

    name, capacity = "flaky", 8

    def complete(self, requests, drawn):
        for i, request in enumerate(requests):
            drawn(2)
            if i % 3 == 0:
                yield Completion(request, [], "error", reason="the server said no")
            else:
                yield Completion(request, [5, 1], "stop")

    def close(self):
        pass


def test_what_fails_is_recorded_left_out_by_readers_and_tried_again(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(requests, "make_engine", lambda *args: Flaky())
    out = tmp_path / "out"
    found = runner.sample(config, out).to_json()
    assert found["finish_reasons"] == {"error": 7, "stop": 13}
    assert found["first_failure"] == "p0: the server said no"
    assert len(list(read(out / "traces"))) == 13
    assert [row["note"] for row in traces(out)].count("the server said no") == 7
    for left in (3, 1, 1):  # of one request the first always fails
        assert runner.sample(config, out).finish_reasons.get("error") == left
    monkeypatch.undo()
    assert runner.sample(config, out).finish_reasons.get("error") is None


def test_the_exit_code_tells_of_failures(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(requests, "make_engine", lambda *args: Flaky())
    file = tmp_path / "sample.yaml"
    file.write_text(dump(config))
    assert cli.run(["sample", "--config", str(file), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "some traces failed, the first p0: the server said no; the same command retries them" in said.err
    assert "20 traces of 26 tokens: 7 error, 13 stop" in said.out


def test_prompts_that_leave_no_room_are_refused_or_skipped(config, tmp_path):
    with (tmp_path / "problems.jsonl").open("a") as file:
        file.write(json.dumps({"id": "long", "question": "word1 " * 60}) + "\n")
    with pytest.raises(ValueError, match=r"the prompt of long has 60 tokens, which fills the context of 48 .*skip"):
        runner.sample(config, tmp_path / "out")
    found = runner.sample(config.model_copy(update={"on_prompt_too_long": "skip"}), tmp_path / "skipped").to_json()
    assert found["skipped_problems"]["prompt_too_long"] == ["long"]
    assert found["traces"] == 20


def test_the_context_limits_a_completion(config, tmp_path):
    config = config.model_copy(update={"max_new_tokens": 1000})
    runner.sample(config, tmp_path / "out")
    for row in traces(tmp_path / "out"):
        room = tiny.CONTEXT - len(row["prompt_ids"])
        assert (len(row["completion_ids"]) == room) == (row["finish_reason"] == "length")


def test_other_settings_or_problems_are_refused(config, tmp_path):
    out = tmp_path / "out"
    runner.sample(config, out)
    with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
        runner.sample(config.model_copy(update={"seed": 1}), out)
    save_problems(tmp_path / "problems.jsonl", 11)
    with pytest.raises(ValueError, match=r"problems.jsonl has changed since"):
        runner.sample(config, out)


def test_after_a_mistake_nothing_stands_in_the_way_of_other_settings(config, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"--server\.urls"):
        runner.sample(config.model_copy(update={"engine": "server"}), out)
    assert runner.sample(config, out).traces == 20


def test_problems_that_come_out_differently_are_refused(config, tmp_path, monkeypatch):
    """As from a generator of another version, which no hash of a file can tell."""
    out = tmp_path / "out"
    runner.sample(config, out)
    text = (out / "problems.jsonl").read_text()
    (out / "problems.jsonl").write_text(text.replace('"answer": "3"', '"answer": "4"'))
    with pytest.raises(ValueError, match=r"problem p3 has changed since .*problems.jsonl was written"):
        runner.sample(config, out)


def test_audited_loops_are_counted(tmp_path):
    rows = [("loop", 64), ("stop", 64), ("length", 70), ("stop", None)]
    table = tiny.trace_table(4, finish_reason=[r for r, _ in rows], loop_at=[at for _, at in rows])
    (tmp_path / "traces").mkdir()
    pq.write_table(table, tmp_path / "traces" / "shard-00000.parquet")
    summary = SamplingSummary.model_validate(
        run_stats.summarize(tmp_path / "traces") | {"skipped_problems": {}, "first_failure": ""}
    )
    assert summary.loops.model_dump() == {"detected": 3, "continued_for_audit": 2, "ended_naturally": 1}
    assert "of 3 loops, 2 continued for the audit, and 1 of these ended naturally" in run_stats.format_summary(summary)


def test_the_audit_draws_its_share_by_the_seed(tmp_path):
    from ssdfast.sampling.requests import make_plan

    config = make_config(tmp_path, 100, samples_per_problem=10, loops=LoopConfig(audit_fraction=0.2))
    audited = [request.audited for request in make_plan(config).requests]
    assert 150 < sum(audited) < 250
    assert audited == [request.audited for request in make_plan(config).requests]


def test_evaluation_looks_for_no_loops_and_training_does(config):
    from ssdfast.sampling.requests import make_plan

    assert make_plan(config).rules.loops.min_repeats == 4
    assert make_plan(config.model_copy(update={"purpose": "evaluation"})).rules.loops is None
    with pytest.raises(ValueError, match="which biases an evaluation"):
        SampleConfig(model="m", purpose="evaluation", loops=LoopConfig(min_repeats=3))


def test_an_estimate_samples_a_little_and_writes_nothing(config, tmp_path):
    from ssdfast.sampling.estimate import estimate

    out = tmp_path / "out"
    found = estimate(config, SampleExecution(price_per_hour=3.0), out)
    assert (found.problems, found.traces, found.finished, found.from_finished) == (10, 20, 0, False)
    assert found.tokens == 20 * 12
    assert "12 per trace, the maximum length" in str(found)
    assert "cost" in str(found)
    assert not out.exists()
    runner.sample(config, out)
    table = pq.read_table(out / "traces")
    pq.write_table(table.slice(0, 5), next((out / "traces").glob("shard-*")))
    again = estimate(config, SampleExecution(), out)
    assert (again.finished, again.from_finished) == (5, True)
    assert again.completion_tokens == sum(map(len, table["completion_ids"][:5].to_pylist())) / 5


def test_an_estimate_does_not_count_what_failed_as_done(config, tmp_path):
    from ssdfast.sampling.estimate import estimate

    (tmp_path / "out" / "traces").mkdir(parents=True)
    reasons = ["stop", "error", "abort", "length"]
    table = tiny.trace_table(4, finish_reason=reasons, completion_ids=[[5] * 6, [], [], [5] * 2], loop_at=[None] * 4)
    pq.write_table(table, tmp_path / "out" / "traces" / "shard-00000.parquet")
    found = estimate(config, SampleExecution(), tmp_path / "out")
    assert (found.finished, found.completion_tokens) == (2, 4.0)


def test_a_cpu_with_a_matrix_unit_samples_in_bfloat16_unless_told_otherwise(config, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    caplog.set_level(logging.INFO)
    loaded, real = [], requests.load
    monkeypatch.setattr(requests, "load", lambda model, dtype: loaded.append(dtype) or real(model, dtype))
    runner.sample(config, tmp_path / "auto")
    assert "sampling in it, --dtype float32 draws the same in any batch" in caplog.text
    caplog.clear()
    runner.sample(config.model_copy(update={"dtype": "float32"}), tmp_path / "float32")
    assert "bfloat16" not in caplog.text
    assert loaded == ["bfloat16", "float32"]
    assert all(len(row["completion_ids"]) for row in traces(tmp_path / "auto"))
