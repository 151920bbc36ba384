"""Fills the reference pages from the code: every option of every command, every column of every table.

A hook of MkDocs. The sentences of options are the docstrings of ``ssdfast.config``. Those of columns are in
``columns.yml``, which must name exactly the columns that the code writes.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ssdfast.cli.app import COMMANDS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Option:
    """One setting: its key in YAML (dotted), and whether the command line has a flag for it."""

    key: str
    type: str
    default: str
    sentence: str
    is_positional: bool = False
    is_yaml_only: bool = False

    @property
    def flag(self) -> str:
        if self.is_positional:
            return self.key.upper()
        return self.key if self.is_yaml_only else "--" + self.key.replace("_", "-")


def command_models() -> dict[str, type[BaseModel]]:
    from ssdfast.cli import commands

    return {name: getattr(commands, f"{name.capitalize()}Command") for name in COMMANDS}


def options(model: type[BaseModel], values: BaseModel | None = None, prefix: str = "") -> Iterator[Option]:
    """The settings of a model, those of the models inside it too, with the defaults of `values`."""
    for name, field in sorted(model.model_fields.items(), key=lambda item: _is_model(item[1].annotation)):
        value = field.get_default(call_default_factory=True) if values is None else getattr(values, name)
        if _is_model(field.annotation):
            yield from options(field.annotation, value, f"{prefix}{name}.")
        else:
            sentence = " ".join((field.description or "").split())
            required = values is None and field.is_required()
            default = "required" if required else f"`{_default(value)}`"
            positional = any("positional" in str(mark).lower() for mark in field.metadata)
            kind = _type(field.annotation, field)
            yield Option(
                prefix + name, kind, default, sentence, positional, "of mapping" in kind
            )  # tyro has no flag for these


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _default(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_default, value)) + "]"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel | dict):
        return "{}" if not value else str(value)
    return repr(value) if isinstance(value, str) and ("\n" in value or not value) else str(value)


def _type(annotation: Any, field: FieldInfo | None = None) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0]) + _bounds(inner[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(kind) for kind in inner if kind is not type(None))
    if origin in (tuple, list):
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"mapping to {_type(inner[1])}".replace("to mapping", "of mappings")
    if _is_model(annotation):
        return "`NAME=PATH`" if annotation.__name__ == "NamedPath" else "mapping"
    if annotation is Any:
        return "any"
    name = {str: "text", Path: "path"}.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return name + _bounds(field.metadata if field else ())


def _bounds(metadata: Any) -> str:
    """`, ≥ 1` and the like, of the constraints of pydantic."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    marks = [mark for outer in metadata for mark in getattr(outer, "metadata", [outer])]
    return "".join(
        f", {sign} {getattr(mark, name):g}"
        for mark in marks
        for name, sign in signs.items()
        if getattr(mark, name, None) is not None
    )


def _escape(sentence: str) -> str:
    """Brackets outside code are text, not links or tags."""
    pieces = sentence.split("`")
    pieces[::2] = [piece.replace("[", "\\[").replace("<", "&lt;") for piece in pieces[::2]]
    return "`".join(pieces)


def _table(rows: list[tuple[str, ...]], *heads: str) -> str:
    cells = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells) + "\n"


def _first_sentence(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())


def configuration() -> str:
    """A section for each command, the study file and the presets."""
    from ssdfast.config import StudyConfig

    parts = []
    for name, model in command_models().items():
        parts += [f"## `ssdfast {name}`", *_groups(model, "flag")]
    parts += ["## Study file", *_groups(StudyConfig, "key")]
    parts += _presets()
    return "\n\n".join(parts)


def _groups(model: type[BaseModel], head: str) -> Iterator[str]:
    """The settings of a model in tables, one for each model inside it, under its first sentence."""
    for prefix, group in groupby(options(model), lambda option: option.key.rpartition(".")[0]):
        kind: Any = model
        for name in prefix.split(".") if prefix else ():
            kind = kind.model_fields[name].annotation
        yield (f"**`{prefix}`**: " if prefix else "") + _first_sentence(kind)
        rows = [
            (
                _named(option) if head == "flag" else f"`{option.key}`",
                option.type,
                option.default,
                _escape(option.sentence),
            )
            for option in group
        ]
        yield _table(rows, head, "type", "default", "meaning")


def _named(option: Option) -> str:
    return f"`{option.flag}`" + (" (YAML only)" if option.is_yaml_only else "")


def _presets() -> list[str]:
    from ssdfast.config import PRESETS, SCHEDULES
    from ssdfast.config.study import STUDIES

    parts = ["## Presets", "What `--preset`, or `preset` in a study file, sets."]
    for name, preset in PRESETS.items():
        values = preset.model_dump(mode="json") | {"train": _plain(SCHEDULES[name]), "study": _plain(STUDIES[name])}
        parts += [f"### `{name}`", f"```yaml\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}```"]
    return parts


def _plain(value: Any) -> Any:
    """Lists in place of tuples, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


TABLES = {
    "positions": "`positions/shard-*.parquet`, written by `ssdfast probe`: a row per scored position.",
    "traces": "`traces/shard-*.parquet`, written by `ssdfast sample`: a row per trace.",
    "samples": "`eval/samples.parquet`, written by `ssdfast eval`: a row per graded completion.",
}


def schemas() -> dict[str, Any]:
    """The Arrow schema of each table, by its name in columns.yml."""
    from ssdfast.evaluation.samples import SCHEMA as SAMPLES
    from ssdfast.traces import SCHEMA as TRACES

    return {"positions": _positions_schema(), "traces": TRACES, "samples": SAMPLES}


def _positions_schema() -> Any:
    """The schema of a table of one position, made by the reference kernel and by the writer of the real table."""
    import numpy as np
    import torch

    from ssdfast.config import PositionClassConfig
    from ssdfast.kernels import ProbeSpec, probe_stats
    from ssdfast.probing.plan import LoadedTrace, TraceItem
    from ssdfast.probing.table import gather, make_table
    from ssdfast.probing.token_classes import BUILT_IN, TokenClasses

    of_token = torch.zeros(32, dtype=torch.uint8)
    logits = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    spec = ProbeSpec(token_class=of_token)
    stats = probe_stats(logits, logits, torch.zeros(1, dtype=torch.int64), spec, backend="reference")
    item = TraceItem(*["x"] * len(TraceItem._fields))._replace(correct=True)
    trace = LoadedTrace(item, np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int32))
    return make_table(
        [trace], gather([stats]), TokenClasses(of_token=of_token, names=BUILT_IN), PositionClassConfig()
    ).schema


def sentences() -> dict[str, dict[str, str]]:
    """The sentence of every column, by table."""
    tables = yaml.safe_load((HERE / "columns.yml").read_text(encoding="utf-8"))
    positions = tables["positions"]
    base = {name.removeprefix("base_"): text for name, text in positions.items() if name.startswith("base_")}
    for name in schemas()["positions"].names:
        plain = name.removeprefix("trained_")
        if name.startswith("trained_") and name not in positions and plain in base:
            positions[name] = f"As `base_{plain}`, of the trained model."
    return tables


def columns() -> str:
    """A section for each table."""
    texts, parts = sentences(), []
    for name, schema in schemas().items():
        rows = [(f"`{field.name}`", f"`{_arrow(field.type)}`", _escape(texts[name][field.name])) for field in schema]
        parts += [f"## {name.capitalize()}", TABLES[name], _table(rows, "column", "type", "meaning")]
    return "\n\n".join(parts)


def _arrow(kind: Any) -> str:
    """An Arrow type in short: the values of a dictionary column, and the length of a list only where it is fixed."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _arrow(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list[{_arrow(kind.value_type)}]"
    return str(kind)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs calls this for every page."""
    if page.file.src_uri == "reference/configuration.md":
        return markdown + configuration()
    if page.file.src_uri == "reference/columns.md":
        return markdown + columns()
    return markdown
