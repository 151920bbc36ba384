"""Workers that check: order, deadlines, deaths, and nothing left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ssdfast.evaluation.grader_pool import Checkers

pytest.importorskip("math_verify")

GOOD = [(rf"x^{{{n}}} - 1", rf"-1 + x^{{{n}}}") for n in range(2, 22)]
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
    with Checkers(workers=2, seconds=0.7) as checkers:
        verdicts = checkers.check(pairs)
    assert verdicts[1::2] == ["correct"] * len(ADVERSARIAL)
    assert not {"correct", "no_answer"} & set(verdicts[::2])
    by_name = dict(zip(ADVERSARIAL, verdicts[::2], strict=True))
    assert {by_name[name] for name in ("tower of powers", "determinant", "power of a sum")} == {"timed_out"}
    assert {by_name[name] for name in ("brackets", "braces", "boxes", "unbalanced", "digits")} == {"unparsable"}
    assert not Path(EXECUTED).exists()
    assert processes() == before


def test_verdicts_come_in_order_and_the_same_each_time():
    pairs = [("x+1", "1+x"), ("x+1", "x+2"), ("x+1", r"\frac{x"), *GOOD, ("[0,1)", "[0,1]"), ("x+1", "1+x")]
    expected = ["correct", "wrong", "unparsable", *["correct"] * len(GOOD), "wrong", "correct"]
    with Checkers(workers=2) as checkers:
        assert checkers.check(pairs) == expected
    with Checkers(workers=1) as checkers:
        assert checkers.check(pairs) == expected


def test_a_pair_is_checked_once():
    with Checkers(workers=1) as checkers:
        checkers.check([("x+1", "1+x"), ("y", "y^2")])
        for worker in checkers._workers:
            worker.kill()  # whoever asks a worker now does not get far
        assert checkers.check([("y", "y^2"), ("x+1", "1+x")]) == ["wrong", "correct"]


def test_all_are_reported():
    counts: list[int] = []
    with Checkers(workers=2) as checkers:
        checkers.check([("5", "5"), *GOOD, *GOOD, ("y", r"\frac{")], counts.append)
    assert sum(counts) == 2 * len(GOOD) + 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not tell a process's time")
def test_what_a_busy_machine_makes_an_answer_wait_is_not_its_time():
    with Checkers(workers=1, seconds=0.5) as checkers:
        checkers.check([("x+1", "1+x")])
        (worker,) = checkers._workers
        worker.process.send_signal(signal.SIGSTOP)  # as if others had the processor
        threading.Timer(1.5, worker.process.send_signal, [signal.SIGCONT]).start()
        assert checkers.check(GOOD[:1]) == ["correct"]
        assert checkers._workers == [worker]
        worker.process.send_signal(signal.SIGSTOP)
        assert checkers.check(GOOD[1:2]) == ["timed_out"]  # but its patience ends


@pytest.mark.parametrize(("deaths", "verdict"), [(1, "timed_out"), (2, "unparsable")])
def test_a_worker_that_dies_costs_the_answer_in_its_hands_alone_and_not_at_once(deaths, verdict):
    with Checkers(workers=1, seconds=3) as checkers:
        checkers.check([("x+1", "1+x")])

        def kill() -> None:
            for _ in range(deaths):
                worker = checkers._workers[0]
                while not worker.held or worker.held[0] != 1:
                    time.sleep(0.01)
                    worker = checkers._workers[0]
                worker.process.send_signal(signal.SIGSEGV)
                while checkers._workers[0] is worker:
                    time.sleep(0.01)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        verdicts = checkers.check([GOOD[0], ("7", r"9^{9^{9^{9^9}}}"), *GOOD[1:]])
    assert verdicts == ["correct", verdict, *["correct"] * (len(GOOD) - 1)]


def test_a_worker_has_so_much_memory_and_no_more():
    hungry = "2^{10^{9}} + x"  # a gigabit, and sympy holds several
    with Checkers(workers=1, seconds=30, memory_bytes=200 << 20) as checkers:
        verdicts = checkers.check([GOOD[0], ("7", hungry), GOOD[1]])
    assert verdicts[0] == verdicts[2] == "correct"
    assert verdicts[1] != "correct"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_no_process(kind):
    before = processes()

    def interrupt(_: int) -> None:
        if checkers._workers:
            raise kind

    with pytest.raises(kind), Checkers(workers=2) as checkers:
        checkers.check(GOOD, interrupt)
    assert processes() == before


def test_a_worker_whose_parent_is_gone_ends():
    checkers = Checkers(workers=1)
    with checkers:
        checkers.check([("x+1", "1+x")])
        worker = checkers._workers[0]
        assert worker.process.stdin
        worker.process.stdin.close()
        deadline = time.monotonic() + 20
        while worker.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert worker.process.poll() == 0


def test_long_answers_do_not_fill_the_pipe_of_a_worker_that_is_stuck():
    stuck = ("7", r"9^{9^{9^{9^9}}}")
    long = [("x", "y+" * 1900 + f"{n}") for n in range(40)]
    with Checkers(workers=1, seconds=0.7) as checkers:
        assert checkers.check([GOOD[0], stuck, *long])[:2] == ["correct", "timed_out"]


@pytest.mark.parametrize(("workers", "seconds"), [(0, 5), (1, 0)])
def test_a_pool_needs_workers_and_time(workers, seconds):
    with pytest.raises(ValueError, match="needs a worker and time"):
        Checkers(workers=workers, seconds=seconds)
