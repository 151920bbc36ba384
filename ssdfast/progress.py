"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere; log messages beside them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_NOTES = 0.5
_MANY = 100_000


class Advance(Protocol):
    """Reports `n` more. `note` returns the remark that is shown behind the numbers; `seconds_left` the time left, None
    where it is unknown. Without it, the time left follows from the pace so far."""

    note: Callable[[], str]
    seconds_left: Callable[[], float | None] | None

    def __call__(self, n: int = 1, /) -> object: ...


class _BesideBars(logging.Handler):
    """Prints messages as plain lines on stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        _print_line(self.format(record))


@contextmanager
def log_to_terminal() -> Iterator[None]:
    """Print what the package logs, notices and warnings, until the end of the block.

    The command line does this. In a notebook the package logs to ``logging.getLogger("ssdfast")`` and its children, and
    the notebook decides.
    """
    logger, handler = logging.getLogger("ssdfast"), _BesideBars()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0, shown: bool = True) -> Iterator[Advance]:
    """Counts to `total`; yields the function that reports `n` more. Silent unless `shown`."""
    if not shown:
        yield _Silent()
    elif sys.stderr.isatty():
        scale = total >= _MANY  # 1.2M instead of 1200000
        with tqdm(total=total, initial=done, desc=what, unit=f" {unit}", unit_scale=scale, leave=False) as bar:
            yield _Bar(bar)
    else:
        yield _Lines(what, total, unit, done)


def _no_note() -> str:
    return ""


class _Silent:
    note: Callable[[], str] = staticmethod(_no_note)
    seconds_left: Callable[[], float | None] | None = None

    def __call__(self, n: int = 1, /) -> None:
        pass


class _Bar:
    note: Callable[[], str] = staticmethod(_no_note)
    seconds_left: Callable[[], float | None] | None = None

    def __init__(self, bar: tqdm) -> None:
        self.bar = bar
        self.noted = time.monotonic()

    def __call__(self, n: int = 1, /) -> None:
        self.bar.update(n)
        if time.monotonic() - self.noted >= _SECONDS_BETWEEN_NOTES:
            self.noted = time.monotonic()
            if self.seconds_left:
                left = self.seconds_left()
                text = "?" if left is None else tqdm.format_interval(left)
                self.bar.bar_format = f"{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} [{{elapsed}}<{text}{{postfix}}]"
            self.bar.set_postfix_str(self.note())


class _Lines:
    note: Callable[[], str] = staticmethod(_no_note)
    seconds_left: Callable[[], float | None] | None = None

    def __init__(self, what: str, total: int, unit: str, done: int) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self.last = self.begun = time.monotonic()
        self.before = done

    def __call__(self, n: int = 1, /) -> None:
        self.done += n
        ends = n > 0 and self.done >= self.total
        if ends or time.monotonic() - self.last >= _SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            parts = [f"{self.what}: {self.done:,} of {self.total:,} {self.unit}{self._left()}", self.note()]
            _print_line(", ".join(filter(None, parts)))

    def _left(self) -> str:
        if self.seconds_left:
            left = self.seconds_left()
            return f", about {tqdm.format_interval(left)} left" if left else ""
        if self.done >= self.total or self.done == self.before:
            return ""
        seconds = (self.last - self.begun) / (self.done - self.before) * (self.total - self.done)
        return f", about {tqdm.format_interval(seconds)} left"


def _print_line(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
