r"""Worker processes that grade answers, each answer with its own deadline and each worker with a cap on memory.

    with GraderPool() as pool:
        grades = pool.grade([("1/2", "0.5"), (r"\int_0^1 x dx", "1/2")])      # ["correct", "correct"]

An answer can be arithmetic of hours, which no signal interrupts: only the end of its process ends it for certain.
Workers are fresh interpreters, so that no lock, thread or GPU of this process is copied into them and a script needs
no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from ..problems.problem import Problem
from ..run_dir import RunError
from .answers.conventions import DEFAULT, Conventions
from .answers.grade import MAX_CHARACTERS, Grade, quick_grade
from .grader_process import START_SECONDS, GraderProcess, Task
from .grader_worker import LOADING, READY

_log = logging.getLogger("ssdfast.evaluation")

GRADER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""How a function of the user's is named: module:function."""
CPU_SECONDS = 5.0
MEMORY_BYTES = 2 << 30
_CHUNK = 16
_PIPE_CHARACTERS = 12_000  # of up to 4 bytes, in a pipe of 65,536

Result = Grade | float


class GraderPool:
    """A pool of workers, to be used as a context manager: leaving it, in whatever way, ends every process.

    cpu_seconds: the time for one answer; CPU time on Linux, wall-clock time elsewhere. memory_bytes: a worker's address
    space. conventions: when two answers count as equal. grader: a function of the user's, "module:function", that
    `grading` calls in the place of `answers.equal`. Grades come in the order of the pairs, and each pair is graded
    once, however often and in however many calls it occurs.
    """

    def __init__(
        self,
        workers: int | None = None,
        cpu_seconds: float = CPU_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
        conventions: Conventions = DEFAULT,
        grader: str = "",
    ) -> None:
        if (workers is not None and workers < 1) or cpu_seconds <= 0:
            raise ValueError(
                f"grading needs a worker and time, got {workers} workers and {cpu_seconds} CPU seconds per answer: give"
                " at least 1 worker and a time above 0"
            )
        if grader and not GRADER.fullmatch(grader):
            raise ValueError(f"the grader {grader!r} must be of the form module:function")
        self.cpu_seconds, self.memory_bytes = cpu_seconds, memory_bytes
        self.conventions, self.grader = conventions, grader
        self._warned: set[str] = set()
        self.size = workers or len(os.sched_getaffinity(0))
        self._cache: dict[Task, Result] = {}
        self._workers: list[GraderProcess] = []

    def __enter__(self) -> GraderPool:
        """Raises ValueError for a grader that cannot be imported."""
        if self.grader:
            self.are_parsable(["1"])  # starts a worker, which imports the grader
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def grade(self, pairs: Sequence[tuple[str, str]], advance: Callable[[int], object] = lambda n: None) -> list[Grade]:
        """The grade of each (gold, answer): correct, incorrect, unparsable or timeout.

        `advance` is called with the number of pairs that have been graded since its last call.
        Raises ValueError where math-verify is not installed, RunError where workers do not start.
        """
        return self._results([("grade", gold, answer) for gold, answer in pairs], advance)

    def score(
        self, answers: Sequence[tuple[str, Problem, str]], advance: Callable[[int], object] = lambda n: None
    ) -> list[Result]:
        """The score of each (function, problem, answer), or "unparsable" or "timeout".

        A function is "module:function" and takes the problem and the answer. One that raises an exception has found
        the answer unparsable; a warning says so once.
        """
        texts = {id(problem): json.dumps(dataclasses.asdict(problem), sort_keys=True) for _, problem, _ in answers}
        tasks = [(function, texts[id(problem)], answer) for function, problem, answer in answers]
        return self._results(tasks, advance)

    def are_parsable(self, golds: Sequence[str]) -> list[bool]:
        """Whether each gold answer can be parsed."""
        results = self._results([("parse", gold, "") for gold in golds], lambda n: None)
        return [result == "correct" for result in results]

    def _results(self, tasks: Sequence[Task], advance: Callable[[int], object]) -> list[Any]:
        new: list[Task] = []
        for task in dict.fromkeys(tasks):
            if task not in self._cache:
                quick = self._quick(task)
                if quick is None:
                    new.append(task)
                else:
                    self._cache[task] = quick
        advance(len(tasks) - len(new))
        try:
            self._run(new, advance)
        except BaseException:
            self._close()
            raise
        return [self._cache[task] for task in tasks]

    def _run(self, tasks: Sequence[Task], advance: Callable[[int], object]) -> None:
        waiting = deque(range(len(tasks)))
        left = len(tasks)
        died: set[int] = set()
        while len(self._workers) < min(self.size, left):
            self._workers.append(self._new_worker())

        def finish(number: int, result: Result) -> None:
            nonlocal left
            self._cache[tasks[number]] = result
            left -= 1
            advance(1)

        while left:
            for worker in self._workers:
                if worker.ready and waiting and len(worker.queue) <= _CHUNK // 4:
                    worker.give(self._next_tasks(waiting, tasks, worker), tasks)
            self._wait()
            for index, worker in enumerate(self._workers):
                answers, alive = worker.answers()
                for number, result, failure in answers:
                    if number == READY:
                        worker.ready = True
                        if failure:
                            raise ValueError(failure)
                    elif number == LOADING:
                        worker.ready, worker.deadline = False, time.monotonic() + START_SECONDS
                    else:
                        worker.queue.remove(number)
                        finish(number, result)
                        self._warn(tasks[number], failure)
                late = (worker.queue or not worker.ready) and worker.late()
                if alive and not late:
                    continue
                if not worker.ready:
                    raise RunError("a process that grades answers did not start: is this machine out of memory?")
                if worker.queue and not answers:
                    if alive:
                        finish(worker.queue.popleft(), "timeout")
                    elif worker.queue[0] in died:
                        finish(worker.queue.popleft(), "unparsable")
                    else:  # something else may have killed the worker; a second death is the answer's fault
                        died.add(worker.queue[0])
                waiting.extendleft(reversed(worker.queue))
                worker.kill()
                self._workers[index] = self._new_worker()

    def _next_tasks(self, waiting: deque[int], tasks: Sequence[Task], worker: GraderProcess) -> list[int]:
        """The next tasks for a worker: as many as its pipe holds, or writing to one that is stuck would wait too."""
        room = _PIPE_CHARACTERS - sum(_length(tasks[number]) for number in worker.queue)
        batch: list[int] = []
        while waiting and len(batch) < min(_CHUNK, -(-len(waiting) // self.size)):
            room -= _length(tasks[waiting[0]])
            if room < 0 and (batch or worker.queue):
                break
            batch.append(waiting.popleft())
        return batch

    def _new_worker(self) -> GraderProcess:
        return GraderProcess(
            self.cpu_seconds, self.memory_bytes, self.conventions, [self.grader] if self.grader else []
        )

    def _quick(self, task: Task) -> Grade | None:
        kind, gold, answer = task
        if kind == "grade":
            return quick_grade(gold, answer, self.conventions)
        return "unparsable" if len(gold if kind == "parse" else answer) > MAX_CHARACTERS else None

    def _warn(self, task: Task, failure: str) -> None:
        if failure and task[0] not in self._warned:
            self._warned.add(task[0])
            _log.warning(
                f"the grader {task[0]} raises {failure} for the answer {task[2][:80]!r}, which is unparsable then"
            )

    def _wait(self) -> None:
        """Wait until a worker has answered, has died, or is late."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                assert worker.process.stdout
                selector.register(worker.process.stdout, selectors.EVENT_READ)
            busy = [worker.deadline for worker in self._workers if worker.queue or not worker.ready]
            selector.select(max(0.0, min(busy, default=0.0) - time.monotonic()) + 0.001)

    def _close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()


def _length(task: Task) -> int:
    return len(task[1]) + len(task[2])
