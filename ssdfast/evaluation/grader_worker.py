"""A process that grades answers: JSON lines in, JSON lines out, started by `grader_pool` and killed at need.

In: ``[number, task, subject, answer]``, the subject a gold answer or, to score, a problem. Out: ``[number, grade or
score]``. A worker that runs out of memory or stack reports the answer as unparsable and ends, for its state is not to
be trusted.

An answer is untrusted text, and the scorers of some generators pass it to Python's eval: everything that a worker does
not need (files to write, processes, connections) is forbidden in it.
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
_FORBIDDEN = (
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
_FORBIDDEN_FILES = (
    "os.remove",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
)


def main(memory_bytes: int, seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1)
    os.dup2(2, 1)  # a library's prints are no answer

    def reply(number: int | str, result: Any) -> None:
        print(json.dumps([number, result]), file=answers)

    @cache
    def scorer() -> Any:
        reply(LOADING, "")  # importing takes seconds, which count for no answer
        try:
            import reasoning_gym  # noqa: F401
        except ImportError as error:
            reply(READY, str(error))
            raise SystemExit from None
        from ..problems.problem import Problem
        from ..problems.reasoning_gym import score as score_answer

        reply(READY, "")
        return lambda problem, answer: score_answer(Problem(**json.loads(problem)), answer)

    try:
        from .answers.equal import grade_answer, is_parsable

        grade_answer(r"\frac{\sqrt{4}}{x}", r"\frac{2}{x}")  # loads and warms the parser
    except ImportError as error:
        reply(READY, str(error))
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_forbid)
    reply(READY, "")
    for line in sys.stdin.buffer:
        number, task, subject, answer = json.loads(line.decode("utf-8", "surrogatepass"))
        score = scorer() if task == "score" else None
        # Should the parent be gone, nobody else ends a computation that does not.
        signal.setitimer(signal.ITIMER_PROF, 4 * seconds + 5)
        try:
            if score:
                result = score(subject, answer)
            elif task == "parse":
                result = "correct" if is_parsable(subject) else "unparsable"
            else:
                result = grade_answer(subject, answer)
        except (MemoryError, RecursionError):
            reply(number, "unparsable")
            return
        except Exception:  # the parser and sympy raise all sorts of things on nonsense
            result = "unparsable"
        reply(number, result)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        if not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
    elif not event.startswith((*_FORBIDDEN, *_FORBIDDEN_FILES)):
        return
    raise PermissionError(f"an answer must not do this: {event}")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
