"""Stages run once, in order, by whoever is free; and a change runs what depends on it."""

import multiprocessing
import time

import pytest

from ssdfast import run_dir
from ssdfast.workflows.study import graph
from ssdfast.workflows.study.graph import Stage


def chain(root, log, changes=None, pause=0.0):
    """Two arms that share what they are sampled from, and what joins them."""

    def make(kind, label, needs=(), **settings):
        def run(directory):
            assert all(need.done for need in needs)
            directory.mkdir(parents=True, exist_ok=True)
            time.sleep(pause)
            with log.open("a") as file:
                file.write(f"{kind} {label}\n")

        settings |= (changes or {}).get(f"{kind} {label}", {})
        return Stage(kind, label, settings, run, tuple(needs), 100, root)

    sampled = make("sample", "x")
    arms = [make("train", arm, [sampled], lr=1) for arm in ("a", "b")]
    return make("join", "", arms)


def test_each_stage_runs_once_after_what_it_needs(tmp_path):
    log = tmp_path / "log"
    graph.run([chain(tmp_path, log)])
    assert log.read_text().splitlines() == ["sample x", "train a", "train b", "join "]
    graph.run([chain(tmp_path, log)])
    assert len(log.read_text().splitlines()) == 4


def test_a_change_of_one_arm_runs_that_arm_and_what_joins_it(tmp_path):
    log = tmp_path / "log"
    graph.run([chain(tmp_path, log)])
    log.unlink()
    graph.run([chain(tmp_path, log, {"train b": {"lr": 2}})])
    assert log.read_text().splitlines() == ["train b", "join "]
    log.unlink()
    graph.run([chain(tmp_path, log)])  # back again: nothing was lost
    assert not log.exists()


def test_a_stage_that_failed_is_run_again_and_others_stay(tmp_path):
    log = tmp_path / "log"
    join = chain(tmp_path, log)
    fails = Stage("train", "c", {}, lambda directory: 1 / 0, join.needs, 0, tmp_path)
    with pytest.raises(ZeroDivisionError):
        graph.run([fails])
    assert log.read_text().splitlines() == ["sample x", "train a", "train b"]
    repaired = Stage("train", "c", {}, lambda directory: directory.mkdir(parents=True), join.needs, 0, tmp_path)
    graph.run([repaired])
    assert repaired.done


def test_what_another_process_has_done_meanwhile_is_not_done_again(tmp_path):
    log = tmp_path / "log"
    (sampled,) = chain(tmp_path, log).needs[0].needs
    graph.run([sampled])
    assert graph._try_run(sampled, "stage 1 of 1")  # it looked before, and got the lock after
    assert log.read_text().splitlines() == ["sample x"]


def _work(root, log):
    graph._PAUSE = 0.02
    graph.run([chain(root, log, pause=0.2)])


def test_two_processes_share_the_stages(tmp_path):
    log = tmp_path / "log"
    workers = [multiprocessing.get_context("spawn").Process(target=_work, args=(tmp_path, log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted(log.read_text().splitlines()) == ["join ", "sample x", "train a", "train b"]


def test_the_estimate_says_what_is_done_and_what_the_rest_may_take(tmp_path):
    log = tmp_path / "log"
    join = chain(tmp_path, log)
    assert "4 of 4 stages to do; no time for 4 of them" in graph.format_estimate([join])
    graph.run([join.needs[0]])
    done = join.needs[0].directory / graph.DONE
    run_dir.write_json(done, {"name": "train a", "seconds": 90})
    lines = graph.format_estimate([join]).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["sample", "train", "train", "join"]
    assert "done, 1 min 30 s" in lines[1]
    assert "to do, at most 1 min 30 s" in lines[2]
    assert lines[-1].startswith("2 of 4 stages to do, at most 1 min 30 s on one machine")
