"""One worker process of a pool that grades answers, and the time that its current task has left."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .answers.conventions import Conventions

START_SECONDS = 120.0
_PATIENCE = 10
"""How many times its CPU seconds an answer may take by the clock, on a machine that is busy with other work."""

Task = tuple[str, str, str]
"""What to do, the gold answer or the problem (as JSON), and the answer. To do is "grade", "parse" (the gold answer), or
"module:function", which scores the answer to the problem."""


class GraderProcess:
    """A worker as its parent sees it: the process and the tasks in its queue, the current one first."""

    def __init__(self, cpu_seconds: float, memory_bytes: int, conventions: Conventions, graders: Sequence[str]) -> None:
        paths = [path for path in sys.path if path]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ssdfast.evaluation.grader_worker", str(memory_bytes), str(cpu_seconds)),
                *(json.dumps(dataclasses.asdict(conventions)), *graders),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"},
            start_new_session=True,
        )
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)
        self.cpu_seconds = cpu_seconds
        self.queue: deque[int] = deque()
        self.ready = False
        self.unread = b""
        self.begin()
        self.deadline = self.started + START_SECONDS

    def begin(self) -> None:
        """Start the clock of the current task."""
        self.started, self.cpu_before = time.monotonic(), _cpu_seconds(self.process.pid)
        self.deadline = self.started + self.cpu_seconds

    def late(self) -> bool:
        """Whether the current task has used up its CPU time; what a busy machine makes it wait does not count."""
        now = time.monotonic()
        if now <= self.deadline:
            return False
        left = self.cpu_seconds - (_cpu_seconds(self.process.pid) - self.cpu_before)
        if not self.ready or left <= 0 or now - self.started > _PATIENCE * self.cpu_seconds:
            return True
        self.deadline = now + left
        return False

    def give(self, numbers: Sequence[int], tasks: Sequence[Task]) -> None:
        assert self.process.stdin
        if not self.queue:
            self.begin()
        self.queue.extend(numbers)
        lines = "".join(json.dumps([number, *tasks[number]], ensure_ascii=False) + "\n" for number in numbers)
        with suppress(BrokenPipeError):  # the worker is dead, which reading from it will show
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


def _cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used; wall-clock time where the system does not report it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
