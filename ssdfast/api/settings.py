"""Settings from a config object, or from keyword arguments of the same names as the flags."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel

from ..config import PRESETS, Settings, load
from ..config.base import NamedPath
from ..config.defaults import DEFAULT_PRESET, merge
from ..results.model import Model

Config = TypeVar("Config", bound=Settings)
Execution = TypeVar("Execution", bound=Settings)
Defaults = Callable[[str, Mapping[str, Any]], dict[str, Any]]


def split_settings(
    function: str,
    config: Config | None,
    settings: Mapping[str, Any],
    config_class: type[Config],
    execution_class: type[Execution],
    defaults: Defaults | None = None,
) -> tuple[Config, Execution]:
    """The config, changed by the keyword arguments where both are given, and how the stage runs.

    function: its name, for messages. defaults: of a preset, where no config is given.
    Raises ValueError in one sentence for an unknown name, with the nearest, or an unusable value.
    """
    values = dict(settings)
    preset = values.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"ssdfast.{function}: unknown preset {preset!r}: choose from {', '.join(PRESETS)}")
    known = [*config_class.model_fields, *execution_class.model_fields]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            remedy = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(known)}"
            raise ValueError(f"ssdfast.{function}: unknown setting {name!r}: {remedy}")
    execution = {name: values.pop(name) for name in execution_class.model_fields if name in values}
    values = _fields(config_class, values)
    if config is not None:
        values = merge(config.model_dump(exclude_unset=True), values)
    elif defaults:
        values = merge(defaults(preset or DEFAULT_PRESET, values), values)
    where = f"ssdfast.{function}"
    return load(config_class, values, where), load(execution_class, _fields(execution_class, execution), where)


def _fields(cls: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Paths as text, one value where several are allowed as a tuple, ``{name: path}`` as named paths."""
    shaped: dict[str, Any] = {}
    for name, value in values.items():
        field = cls.model_fields.get(name)
        annotation = field.annotation if field else None
        if isinstance(value, BaseModel):
            shaped[name] = value.model_dump(exclude_unset=True)
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel) and isinstance(value, Mapping):
            shaped[name] = _fields(annotation, value)
        elif get_origin(annotation) is tuple:
            shaped[name] = _several(value, NamedPath in get_args(annotation))
        else:
            shaped[name] = _plain(value)
    return shaped


def _several(value: Any, named: bool) -> Any:
    if named and isinstance(value, Mapping):
        return [{"name": name, "path": _plain(path)} for name, path in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return [_plain(value)]


def _plain(value: Any) -> Any:
    """A path, or a result, as text: of a trained model the directory of its weights."""
    if isinstance(value, Model):
        return str(value.path)
    return os.fspath(value) if isinstance(value, os.PathLike) else value
