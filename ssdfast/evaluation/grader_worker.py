"""A process that grades answers: JSON lines in, JSON lines out, started by `grader_pool` and killed at need.

In: ``[number, task, subject, answer]``, the task "grade", "parse" or a grader's "module:function", the subject a gold
answer or, for a grader, a problem. Out: ``[number, grade or score, failure]``. A worker that runs out of memory or
stack reports the answer as unparsable and ends, for its state is not to be trusted.

An answer is untrusted text, and some graders pass it to Python's eval: everything that a worker does
not need (files to write, processes, connections) is forbidden in it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from ..problems.problem import Problem

Scorer = Callable[[Problem, str], Any]

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


def main(memory_bytes: int, seconds: float, conventions: dict[str, Any], graders: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1)
    os.dup2(2, 1)  # a library's prints are no answer

    def reply(number: int | str, result: Any = "", failure: str = "") -> None:
        print(json.dumps([number, result, failure]), file=answers)

    @cache
    def scorer(grader: str) -> Scorer:
        reply(LOADING)  # importing takes seconds, which count for no answer
        try:
            score = load(grader)
        except ValueError as error:
            reply(READY, failure=str(error))
            raise SystemExit from None
        reply(READY)
        return score

    try:
        from .answers.conventions import Conventions
        from .answers.grade import equal, is_parsable

        equal(r"\frac{\sqrt{4}}{x}", r"\int_0^1 2 dt")  # loads both parsers, which is forbidden later
    except ImportError as error:
        what = f"grading answers needs a package that is not installed ({error}): pip install math-verify"
        reply(READY, failure=what)
        return
    rules = Conventions(**conventions)
    sys.path.append(os.getcwd())
    for grader in graders:
        scorer(grader)  # before files and processes are forbidden
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_forbid)
    reply(READY)
    for line in sys.stdin.buffer:
        number, task, subject, answer = json.loads(line.decode("utf-8", "surrogatepass"))
        score = scorer(task) if ":" in task else None
        failure = ""
        # Should the parent be gone, nobody else ends a computation that does not.
        signal.setitimer(signal.ITIMER_PROF, 4 * seconds + 5)
        try:
            if score:
                result: Any = float(score(Problem(**json.loads(subject)), answer))
            elif task == "parse":
                result = "correct" if is_parsable(subject) else "unparsable"
            else:
                result = equal(subject, answer, rules)
        except (MemoryError, RecursionError):
            reply(number, "unparsable")
            return
        except Exception as error:  # a parser or a grader raises all sorts of things on nonsense
            result = "unparsable"
            failure = f"{type(error).__name__}: {error}"[:200] if score else ""
        reply(number, result, failure)
        signal.setitimer(signal.ITIMER_PROF, 0)


def load(grader: str) -> Scorer:
    """The function that "module:function" names. Raises ValueError where there is none."""
    module, _, name = grader.partition(":")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"the grader {grader} cannot be imported ({error}): install what it needs") from None
    except Exception as error:
        raise ValueError(f"importing the grader {grader} raises {type(error).__name__}: {error}") from None
    function: Scorer | None = getattr(imported, name, None)
    if not callable(function):
        raise ValueError(f"the module {module} has no function {name}, which the grader {grader} names")
    return function


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        if not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
    elif not event.startswith((*_FORBIDDEN, *_FORBIDDEN_FILES)):
        return
    raise PermissionError(f"an answer must not do this: {event}")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:])
