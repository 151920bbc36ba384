"""A mistake in the flags as one sentence that names the flag and the remedy."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

_FRAMES = re.compile(r"[\u2500-\u257f]|-{5,}")
_VALIDATION = re.compile(r"Error parsing (\S+): \d+ validation errors? for \w+ (.*?) \[type=")


def check_flags(cls: type[BaseModel], command: str, args: list[str]) -> None:
    """Raises ValueError for an unknown flag, naming the nearest, and for one that is given twice."""
    known = {f"--{flag}" for flag in _flags(cls)} | {"--help"}
    given: set[str] = set()
    for arg in args:
        flag = arg.partition("=")[0].replace("_", "-")
        if not flag.startswith("--") or flag == "--":
            continue
        if flag not in known:
            near = difflib.get_close_matches(flag, sorted(known), 1, 0.5)
            remedy = f"did you mean {near[0]}?" if near else f"`ssdfast {command} --help` lists the flags"
            raise ValueError(f"unknown flag {flag}: {remedy}")
        if flag in given:
            raise ValueError(f"the flag {flag} is given twice: give it once, with all its values")
        given.add(flag)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turns the panel that tyro prints before it exits with 2 into a ValueError of one sentence."""
    printed, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"  # no word is broken
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as stop:
        if stop.code != 2:
            raise
        raise ValueError(_sentence(printed.getvalue())) from None
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _sentence(panel: str) -> str:
    lines = [" ".join(_FRAMES.sub(" ", line).split()) for line in panel.splitlines()]
    lines = [line for line in lines if line]
    text = " ".join(lines)
    if match := _VALIDATION.search(text):
        where, message = match.groups()
        prefix = "" if where.endswith("Command") else f"{where.removeprefix('--').replace('_', '-')}."
        if message.startswith("Value error, "):
            return f"{f'--{prefix[:-1]}: ' if prefix else ''}{message.removeprefix('Value error, ')}"
        field, _, message = message.partition(" ")
        value = re.search(r"input_value=(.*?), input_type", text)
        got = f" (got {value[1]})" if value else ""
        return f"--{prefix}{field.replace('_', '-')}: {message.removeprefix('Value error, ')}{got}"
    if "Missing from" in text:
        flags = [line.split()[0] for line in lines if line.startswith("--") and len(line.split()) <= 3]
        return f"required flags are missing: {', '.join(dict.fromkeys(flags)) or 'see --help'}"
    return lines[1].removeprefix("Error parsing ") if len(lines) > 1 else text


def _flags(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All flags of a command, without the dashes in front."""
    for name, field in cls.model_fields.items():
        flag = f"{prefix}{name.replace('_', '-')}"
        yield flag
        kinds = {field.annotation, *get_args(field.annotation)}
        if bool in kinds:
            yield f"{prefix}no-{name.replace('_', '-')}"
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _flags(kind, f"{flag}.")


def quiet_unicode(*streams: Any) -> None:
    """Let a terminal that knows no Unicode print an escape in place of a character."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
