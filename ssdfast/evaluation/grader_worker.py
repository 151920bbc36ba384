"""A process that checks answers: JSON lines in, JSON lines out, started by `pool` and killed at need.

In: ``[number, task, subject, answer]``, the subject a gold answer or, to score, a problem. Out: ``[number, verdict or
score]``. A worker that runs out of memory or stack says so and ends, for what it holds is not to be trusted.

An answer is a stranger's text, and some generators' scorers hand it to Python's eval: what a worker has no need of
(files to write, processes, connections) is refused to everything that runs in it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from functools import cache
from typing import Any

READY = "ready"
LOADING = "loading"

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REFUSED = (
    "subprocess.",
    "socket.",
    "shutil.",
    "ctypes.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.kill",
)
_REFUSED_FILES = ("os.remove", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")


def main(memory_bytes: int, seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer

    def say(number: int | str, result: Any) -> None:
        print(json.dumps([number, result]), file=answers)

    @cache
    def scorer() -> Any:
        say(LOADING, "")  # no answer pays for the seconds that this takes
        try:
            import reasoning_gym  # noqa: F401
        except ImportError as error:
            say(READY, str(error))
            raise SystemExit from None
        from ..problems.problem import Problem
        from ..problems.reasoning_gym import score

        say(READY, "")
        return lambda problem, answer: score(Problem(**json.loads(problem)), answer)

    try:
        from .answers.equal import check, readable

        check(r"\frac{\sqrt{4}}{x}", r"\frac{2}{x}")  # loads the parser and warms it
    except ImportError as error:
        say(READY, str(error))
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse)
    say(READY, "")
    for line in sys.stdin.buffer:
        number, task, subject, answer = json.loads(line.decode("utf-8", "surrogatepass"))
        run = scorer() if task == "score" else None
        # Should the parent be gone, nobody else ends a computation that does not.
        signal.setitimer(signal.ITIMER_PROF, 4 * seconds + 5)
        try:
            if run:
                result = run(subject, answer)
            elif task == "read":
                result = "correct" if readable(subject) else "unparsable"
            else:
                result = check(subject, answer)
        except (MemoryError, RecursionError):
            say(number, "unparsable")
            return
        except Exception:  # the parser and sympy raise all sorts of things on nonsense
            result = "unparsable"
        say(number, result)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        if not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
    elif not event.startswith((*_REFUSED, *_REFUSED_FILES)):
        return
    raise PermissionError(f"an answer must not: {event}")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
