"""Worker processes that check answers, each answer with its own deadline and all with a cap on memory.

    with Checkers() as checkers:
        verdicts = checkers.check([("1/2", "0.5"), ("2", "9^{9^{9^9}}")])      # ["correct", "timed_out"]

An answer can be a tower of powers, which no signal interrupts inside sympy's integer arithmetic: the one thing that
ends it for certain is the end of its process. Workers are fresh interpreters, so that no lock, thread or GPU of this
process is copied into them and a script needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ..problems.problem import Problem
from ..run_dir import RunError
from .answers.equal import LONGEST, Verdict, quick_check
from .grader_worker import LOADING, READY

SECONDS = 5.0
MEMORY_BYTES = 2 << 30
_CHUNK = 16
_PIPE_CHARACTERS = 12_000  # of up to 4 bytes, in a pipe of 65,536
_START_SECONDS = 120.0
_PATIENCE = 10
"""times the seconds of a check that it may take by the clock, on a machine that is busy with other work"""

Task = tuple[Literal["check", "read", "score"], str, str]
"""what to do, with which gold answer or problem (as JSON), with which answer"""
Result = Verdict | float


class _Worker:
    """One process and the checks that it holds, the one in work first."""

    def __init__(self, seconds: float, memory_bytes: int) -> None:
        paths = [path for path in sys.path if path]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ssdfast.evaluation.grader_worker", str(memory_bytes), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"},
            start_new_session=True,
        )
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)
        self.seconds = seconds
        self.held: deque[int] = deque()
        self.ready = False
        self.unread = b""
        self.begin()
        self.deadline = self.begun + _START_SECONDS

    def begin(self) -> None:
        """A check begins."""
        self.begun, self.spent = time.monotonic(), _processor_seconds(self.process.pid)
        self.deadline = self.begun + self.seconds

    def late(self) -> bool:
        """Whether the time of the check in work is up: its own, not what a busy machine made it wait."""
        now = time.monotonic()
        if now <= self.deadline:
            return False
        left = self.seconds - (_processor_seconds(self.process.pid) - self.spent)
        if not self.ready or left <= 0 or now - self.begun > _PATIENCE * self.seconds:
            return True
        self.deadline = now + left
        return False

    def give(self, numbers: Sequence[int], tasks: Sequence[Task]) -> None:
        assert self.process.stdin
        if not self.held:
            self.begin()
        self.held.extend(numbers)
        lines = "".join(json.dumps([number, *tasks[number]], ensure_ascii=False) + "\n" for number in numbers)
        with suppress(BrokenPipeError):  # it is dead, which reading from it will show
            self.process.stdin.write(lines.encode("utf-8", "surrogatepass"))
            self.process.stdin.flush()

    def answers(self) -> tuple[list[Any], bool]:
        """The lines that have come, and whether the worker is still there."""
        assert self.process.stdout
        block, alive = b"", True
        while True:
            try:
                read = os.read(self.process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not read:
                alive = False
                break
            block += read
        *lines, self.unread = (self.unread + block).split(b"\n")
        if lines:
            self.begin()
        return [json.loads(line) for line in lines], alive

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()


class Checkers:
    """A pool of workers, to be used as a context manager: leaving it, in whatever way, ends every process.

    seconds: of one check, on the processor where the system tells (Linux), else by the clock. memory_bytes: of a
    worker's address space. Verdicts come in the order of the pairs, and each pair is checked once, however often
    and in however many calls it occurs.
    """

    def __init__(self, workers: int | None = None, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES) -> None:
        if (workers is not None and workers < 1) or seconds <= 0:
            raise ValueError(f"checking needs a worker and time, got {workers} workers of {seconds} seconds a check")
        self.seconds, self.memory_bytes = seconds, memory_bytes
        self.size = workers or len(os.sched_getaffinity(0))
        self._cache: dict[Task, Result] = {}
        self._workers: list[_Worker] = []

    def __enter__(self) -> Checkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def check(self, pairs: Sequence[tuple[str, str]], told: Callable[[int], object] = lambda n: None) -> list[Verdict]:
        """The verdict of each (gold, answer): correct, wrong, unparsable or timed_out; `told` hears of those finished.

        Raises ValueError where math-verify is not installed, RunError where workers do not start.
        """
        return self._settle([("check", gold, answer) for gold, answer in pairs], told)

    def score(
        self, answers: Sequence[tuple[Problem, str]], told: Callable[[int], object] = lambda n: None
    ) -> list[Result]:
        """What the generator of each problem gives for the answer, 0 to 1, or "unparsable" or "timed_out"."""
        texts = {id(problem): json.dumps(dataclasses.asdict(problem), sort_keys=True) for problem, _ in answers}
        return self._settle([("score", texts[id(problem)], answer) for problem, answer in answers], told)

    def readable(self, golds: Sequence[str]) -> list[bool]:
        """Whether each gold answer can be read."""
        found = self._settle([("read", gold, "") for gold in golds], lambda n: None)
        return [one == "correct" for one in found]

    def _settle(self, tasks: Sequence[Task], told: Callable[[int], object]) -> list[Any]:
        new = []
        for task in dict.fromkeys(tasks):
            if task not in self._cache:
                quick = _quick(task)
                if quick is None:
                    new.append(task)
                else:
                    self._cache[task] = quick
        told(len(tasks) - len(new))
        try:
            self._run(new, told)
        except BaseException:
            self._close()
            raise
        return [self._cache[task] for task in tasks]

    def _run(self, tasks: Sequence[Task], told: Callable[[int], object]) -> None:
        waiting = deque(range(len(tasks)))
        left = len(tasks)
        died: set[int] = set()
        while len(self._workers) < min(self.size, left):
            self._workers.append(_Worker(self.seconds, self.memory_bytes))

        def settle(number: int, result: Result) -> None:
            nonlocal left
            self._cache[tasks[number]] = result
            left -= 1
            told(1)

        while left:
            for worker in self._workers:
                if worker.ready and waiting and len(worker.held) <= _CHUNK // 4:
                    worker.give(self._share(waiting, tasks, worker), tasks)
            self._wait()
            for place, worker in enumerate(self._workers):
                answers, alive = worker.answers()
                for number, result in answers:
                    if number == READY:
                        worker.ready = True
                        _check_installed(result)
                    elif number == LOADING:
                        worker.ready, worker.deadline = False, time.monotonic() + _START_SECONDS
                    else:
                        worker.held.remove(number)
                        settle(number, result)
                late = (worker.held or not worker.ready) and worker.late()
                if alive and not late:
                    continue
                if not worker.ready:
                    raise RunError("a process that checks answers did not start: is this machine out of memory?")
                if worker.held and not answers:
                    if alive:
                        settle(worker.held.popleft(), "timed_out")
                    elif worker.held[0] in died:
                        settle(worker.held.popleft(), "unparsable")
                    else:  # something else may have killed it: a second death is the answer's doing
                        died.add(worker.held[0])
                waiting.extendleft(reversed(worker.held))
                worker.kill()
                self._workers[place] = _Worker(self.seconds, self.memory_bytes)

    def _share(self, waiting: deque[int], tasks: Sequence[Task], worker: _Worker) -> list[int]:
        """The next checks for a worker: as many as its pipe holds, or writing to one that is stuck would wait too."""
        room = _PIPE_CHARACTERS - sum(_length(tasks[number]) for number in worker.held)
        taken: list[int] = []
        while waiting and len(taken) < min(_CHUNK, -(-len(waiting) // self.size)):
            room -= _length(tasks[waiting[0]])
            if room < 0 and (taken or worker.held):
                break
            taken.append(waiting.popleft())
        return taken

    def _wait(self) -> None:
        """Until a worker has said something, has died, or is late."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                assert worker.process.stdout
                selector.register(worker.process.stdout, selectors.EVENT_READ)
            busy = [worker.deadline for worker in self._workers if worker.held or not worker.ready]
            selector.select(max(0.0, min(busy, default=0.0) - time.monotonic()) + 0.001)

    def _close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()


def _processor_seconds(pid: int) -> float:
    """That a process has taken; by the clock where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _quick(task: Task) -> Verdict | None:
    what, gold, answer = task
    if what == "check":
        return quick_check(gold, answer)
    return "unparsable" if len(answer if what == "score" else gold) > LONGEST else None


def _length(task: Task) -> int:
    return len(task[1]) + len(task[2])


def _check_installed(problem: str) -> None:
    if problem:
        raise ValueError(
            f"judging answers needs a package that is not installed ({problem}): pip install math-verify, and "
            "reasoning-gym for the problems of its generators"
        )
