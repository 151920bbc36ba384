"""The check of the prose finds what it is for, and the documentation obeys it."""

from pathlib import Path

import pytest

from . import prose


@pytest.mark.parametrize(
    ("line", "better"),
    [
        ("The trace is overlong.", "truncated"),
        (f"0.02 nats {'a'} position", "per:"),
        ("completions that go in circles", "loop"),
        ("    found = search(text)", "name the result"),
        ("    found: list[str] = []", "name the result"),
        ("    for one in traces:", "loop variable"),
    ],
)
def test_a_telltale_is_named_with_its_line_and_the_better_word(line, better):
    (fault,) = prose.faults(Path("ssdfast/x.py"), f"# fine\n{line}\n")
    assert fault.startswith("ssdfast/x.py:2: ")
    assert better in fault


@pytest.mark.parametrize(
    "line", ["Nothing was found = nothing", "a recommended value", "bytes as they are", "for one in ten"]
)
def test_plain_prose_passes(line):
    assert prose.faults(Path("docs/x.md"), line) == []


def test_a_long_readme_is_too_long():
    assert prose.too_long("word " * 700) == []
    assert prose.too_long("word " * 701) == ["README.md: 701 words → at most 700"]


def test_a_linked_folder_is_checked_once():
    names = [path.name for path in prose.files()]
    assert names.count("schema.py") == 1
    assert "README.md" in names
