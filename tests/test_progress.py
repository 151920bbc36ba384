"""Progress where there is no terminal, and on one: how far, how long, and the remark behind it."""

import re
import sys
from collections import Counter

import pytest

from ssdfast import progress as progresses
from ssdfast.progress import progress
from ssdfast.sampling.run_stats import Speed, format_progress


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(progresses, "_SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progresses, "_SECONDS_BETWEEN_NOTES", 0.0)


def test_lines_say_how_far_how_long_and_the_remark_of_that_moment(capsys):
    with progress("sampling", 3, "traces", done=1) as advance:
        advance(0)
        ended = []
        advance.note = lambda: f"{len(ended)} stop"
        ended.append(1)
        advance(1)
        ended.append(1)
        advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sampling: 1 of 3 traces"
    assert re.fullmatch(r"sampling: 2 of 3 traces, about 00:\d\d left, 1 stop", lines[1])
    assert lines[2] == "sampling: 3 of 3 traces, 2 stop"


def test_between_lines_nothing_is_said_and_no_remark_made(capsys, monkeypatch):
    monkeypatch.setattr(progresses, "_SECONDS_BETWEEN_LINES", 1e9)
    made = []
    with progress("sampling", 9, "traces") as advance:
        advance.note = lambda: made.append(1) or "x"
        for _ in range(8):
            advance(1)
    assert capsys.readouterr().err == ""
    assert made == []


def test_a_bar_shows_the_remark(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress("sampling", 3, "traces") as advance:
        advance.note = lambda: "7 tokens/s"
        advance(1)
    assert "7 tokens/s" in capsys.readouterr().err


def test_what_is_not_shown_is_silent(capsys):
    with progress("sampling", 1, "traces", shown=False) as advance:
        advance(1)
    assert capsys.readouterr().err == ""


def test_the_remark_of_sampling_counts_ends_and_lately_drawn_tokens():
    speed = Speed()
    assert format_progress(speed, Counter()) == "0 tokens/s"
    speed.add(500)
    said = format_progress(speed, Counter(stop=1200, loop=3))
    assert re.fullmatch(r"[\d,]+ tokens/s, 1,200 stop, 3 loop", said)
    assert not said.startswith("0 ")
