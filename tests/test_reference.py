"""The reference pages have every flag that --help lists and every column that the code writes, each with a sentence."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from ssdfast import cli
from ssdfast.config import StudyConfig

DOCS = Path(__file__).parent.parent / "docs"


def _load():
    spec = importlib.util.spec_from_file_location("gen_reference", DOCS / "gen_reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _load()


def sentences(text: str) -> bool:
    return bool(re.match(r"[A-Z`0-9]", text)) and text.endswith((".", "..."))


@pytest.mark.parametrize("command", reference.COMMANDS)
def test_the_reference_has_the_flags_of_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # one panel beside another would hide flags
    with pytest.raises(SystemExit):
        cli.run([command, "--help"])
    listed = set(re.findall(r"^[ │]*(--[a-z][a-z0-9.-]*)", capsys.readouterr().out, re.M)) - {"--help"}
    options = list(reference.options(reference.command_models()[command]))
    documented = {option.flag for option in options if not (option.is_positional or option.is_yaml_only)}
    assert listed == documented


@pytest.mark.parametrize("name", [*reference.COMMANDS, "study file"])
def test_every_option_has_a_sentence(name):
    model = StudyConfig if name == "study file" else reference.command_models()[name]
    assert [option.key for option in reference.options(model) if not sentences(option.sentence)] == []


def test_a_page_names_every_option():
    page = reference.configuration()
    for model in (*reference.command_models().values(), StudyConfig):
        assert all(option.key.replace("_", "-") in page.replace("_", "-") for option in reference.options(model))


def test_every_column_has_a_sentence_and_every_sentence_a_column():
    texts = reference.sentences()
    for name, schema in reference.schemas().items():
        assert set(texts[name]) == set(schema.names), name
        assert [column for column, text in texts[name].items() if not sentences(text)] == [], name
    assert "`kl_trained_base`" in reference.columns()


FOREIGN = {
    "--extra-index-url",
    "--help",
    "--version",
    "--no-build-isolation",
    "--no-deps",
    "--nproc-per-node",
    "--rehearse",
}


def test_the_guides_name_only_flags_that_exist():
    known = {option.flag for model in reference.command_models().values() for option in reference.options(model)}
    known |= {flag.replace("--", "--no-", 1) for flag in known} | FOREIGN
    for path in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]", path.read_text(encoding="utf-8")))
        unknown = {flag for flag in named - known if not any(other.startswith(f"{flag}.") for other in known)}
        assert not unknown, (path.name, sorted(unknown))
