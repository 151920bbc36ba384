"""Workers that grade: order, deadlines, deaths, and nothing left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ssdfast.evaluation.grader_pool import GraderPool

pytest.importorskip("math_verify")

GOOD = [(rf"x^{{{n}}} - 1", rf"-1 + x^{{{n}}}") for n in range(2, 22)]
STUCK = ("7", r"\sum_{a=1}^{2999} \sum_{b=1}^{2999} \sum_{c=1}^{2999} \sqrt{a b c}")
"""An answer that takes an hour, each of whose sums is short enough to be computed."""
EXECUTED = "ssdfast-executed-an-answer"
ADVERSARIAL = {
    "tower of powers": r"9^{9^{9^{9^9}}}",
    "plain tower": "9^9^9^9",
    "factorial": "100000000!",
    "factorial of a power": r"(10^{10})!",
    "binomial": r"\binom{10^9}{5\cdot 10^8}",
    "product": r"\prod_{k=1}^{10^9} k",
    "sum": r"\sum_{n=1}^{10^{12}} n!",
    "brackets": "(" * 3000 + ")" * 3000,
    "shallow brackets": "(" * 900 + "1" + ")" * 900,
    "braces": "{" * 10**6,
    "unbalanced": r"\frac{1}{\sqrt{2",
    "boxes": r"\boxed{" * 10_000,
    "matrix": r"\begin{pmatrix}" + r"\\".join(["&".join("1" * 200)] * 200) + r"\end{pmatrix}",
    "determinant": r"\det\begin{pmatrix}"
    + r"\\".join("&".join(f"x_{{{12 * i + j}}}" for j in range(12)) for i in range(12))
    + r"\end{pmatrix}",
    "integrals": r"\int_0^1 " * 40 + "x" + " dx" * 40,
    "roots": r"\sqrt{" * 100 + "2" + "}" * 100,
    "power of a sum": "(x+y+1)^{100000}",
    "sums of sums": STUCK[1],
    "digits": "1" * 10**5,
    "exponent": "1e999999999",
    "Unicode digits": "٣٤",
    "null bytes": "\x005\x00",
    "lone surrogate": "\ud800",
    "newlines": "5\n\r\u2028[0, 1]",
    "import": f'__import__("os").system("touch {EXECUTED}")',
    "exec": f"exec(\"open('{EXECUTED}', 'w')\")",
    "sympify": f"(lambda: open('{EXECUTED}', 'w'))()",
}


def processes() -> set[int]:
    """Children of this process that are alive."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def test_hostile_answers_take_nothing_else_down():
    before = processes()
    pairs = []
    for place, answer in enumerate(ADVERSARIAL.values()):
        pairs += [("7", answer), GOOD[place % len(GOOD)]]
    with GraderPool(workers=2, cpu_seconds=0.7) as pool:
        grades = pool.grade(pairs)
    assert grades[1::2] == ["correct"] * len(ADVERSARIAL)
    assert not {"correct", "no_answer"} & set(grades[::2])
    by_name = dict(zip(ADVERSARIAL, grades[::2], strict=True))
    assert by_name["sums of sums"] == "timeout"
    assert {by_name[name] for name in ("brackets", "braces", "boxes", "unbalanced", "digits")} == {"unparsable"}
    assert not Path(EXECUTED).exists()
    assert processes() == before


def test_grades_come_in_order_and_the_same_each_time():
    pairs = [("x+1", "1+x"), ("x+1", "x+2"), ("x+1", r"\frac{x"), *GOOD, ("[0,1)", "[0,1]"), ("x+1", "1+x")]
    expected = ["correct", "incorrect", "unparsable", *["correct"] * len(GOOD), "incorrect", "correct"]
    with GraderPool(workers=2) as pool:
        assert pool.grade(pairs) == expected
    with GraderPool(workers=1) as pool:
        assert pool.grade(pairs) == expected


def test_a_pair_is_graded_once():
    with GraderPool(workers=1) as pool:
        pool.grade([("x+1", "1+x"), ("y", "y^2")])
        for worker in pool._workers:
            worker.kill()  # whoever asks a worker now does not get far
        assert pool.grade([("y", "y^2"), ("x+1", "1+x")]) == ["incorrect", "correct"]


def test_all_are_reported():
    counts: list[int] = []
    with GraderPool(workers=2) as pool:
        pool.grade([("5", "5"), *GOOD, *GOOD, ("y", r"\frac{")], counts.append)
    assert sum(counts) == 2 * len(GOOD) + 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not tell a process's time")
def test_what_a_busy_machine_makes_an_answer_wait_is_not_its_time():
    with GraderPool(workers=1, cpu_seconds=0.5) as pool:
        pool.grade([("x+1", "1+x")])
        (worker,) = pool._workers
        worker.process.send_signal(signal.SIGSTOP)  # as if others had the processor
        threading.Timer(1.5, worker.process.send_signal, [signal.SIGCONT]).start()
        assert pool.grade(GOOD[:1]) == ["correct"]
        assert pool._workers == [worker]
        worker.process.send_signal(signal.SIGSTOP)
        assert pool.grade(GOOD[1:2]) == ["timeout"]  # but its patience ends


@pytest.mark.parametrize(("deaths", "grade"), [(1, "timeout"), (2, "unparsable")])
def test_a_worker_that_dies_costs_the_answer_in_its_hands_alone_and_not_at_once(deaths, grade):
    with GraderPool(workers=1, cpu_seconds=3) as pool:
        pool.grade([("x+1", "1+x")])

        def kill() -> None:
            for _ in range(deaths):
                worker = pool._workers[0]
                while not worker.queue or worker.queue[0] != 1:
                    time.sleep(0.01)
                    worker = pool._workers[0]
                worker.process.send_signal(signal.SIGSEGV)
                while pool._workers[0] is worker:
                    time.sleep(0.01)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        grades = pool.grade([GOOD[0], STUCK, *GOOD[1:]])
    assert grades == ["correct", grade, *["correct"] * (len(GOOD) - 1)]


def test_a_worker_has_so_much_memory_and_no_more():
    hungry = "2^{10^{9}} + x"  # a gigabit, and sympy holds several
    with GraderPool(workers=1, cpu_seconds=30, memory_bytes=200 << 20) as pool:
        grades = pool.grade([GOOD[0], ("7", hungry), GOOD[1]])
    assert grades[0] == grades[2] == "correct"
    assert grades[1] != "correct"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_no_process(kind):
    before = processes()

    def interrupt(_: int) -> None:
        if pool._workers:
            raise kind

    with pytest.raises(kind), GraderPool(workers=2) as pool:
        pool.grade(GOOD, interrupt)
    assert processes() == before


def test_a_worker_whose_parent_is_gone_ends():
    pool = GraderPool(workers=1)
    with pool:
        pool.grade([("x+1", "1+x")])
        worker = pool._workers[0]
        assert worker.process.stdin
        worker.process.stdin.close()
        deadline = time.monotonic() + 20
        while worker.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert worker.process.poll() == 0


def test_long_answers_do_not_fill_the_pipe_of_a_worker_that_is_stuck():
    stuck = STUCK
    long = [("x", "y+" * 1900 + f"{n}") for n in range(40)]
    with GraderPool(workers=1, cpu_seconds=0.7) as pool:
        assert pool.grade([GOOD[0], stuck, *long])[:2] == ["correct", "timeout"]


@pytest.mark.parametrize(("workers", "cpu_seconds"), [(0, 5), (1, 0)])
def test_a_pool_needs_workers_and_time(workers, cpu_seconds):
    with pytest.raises(ValueError, match="needs a worker and time"):
        GraderPool(workers=workers, cpu_seconds=cpu_seconds)
