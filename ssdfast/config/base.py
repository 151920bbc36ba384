"""The base of all settings: strict, frozen, read from YAML, and rejected in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from ..messages import one_line
from .strict_yaml import StrictLoader


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic would read true as 1."""
        field = cls.model_fields.get(info.field_name or "")
        if field and _has_misplaced_boolean(field.annotation, value):
            raise ValueError("must be a number or text, not true or false")
        return value


def unique(values: Iterable[Any], what: str) -> None:
    """Raises ValueError for a repeated value. what: how the message names a value."""
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"the {what} {value!r} is repeated: give each {what} once")
        seen.add(value)


class NamedPath(Settings):
    """A path and its name in the results."""

    name: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """``NAME=PATH``, or ``PATH`` alone, whose last part is the name. A mapping passes through."""
        if not isinstance(value, str):
            return value
        name, equals, path = value.partition("=")
        if not equals or "/" in name:  # the "=" belongs to the path
            name, path = Path(value).resolve().name, value
        if not (name and path):
            raise ValueError(f"must be NAME=PATH or PATH, got {value!r}")
        return {"name": name, "path": path}


Config = TypeVar("Config", bound=Settings)


def load(cls: type[Config], values: dict[str, Any], source: str) -> Config:
    """`values` as settings. Raises ValueError in one sentence that names `source`, the key and the remedy."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: {describe(error, cls)}") from None


def describe(error: Exception, cls: type[BaseModel] | None = None) -> str:
    """The first mistake of a ValidationError of `cls` in one sentence; of another error, its message."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        allowed = f" (allowed here: {', '.join(_keys_at(cls, first['loc'][:-1]))})" if cls else ""
        return f"unknown key {key!r}{allowed}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if not key:  # of settings that do not go together, and the message names them
        return message
    return f"{key}: {message} (got {first['input']!r:.200})"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ValueError for anything else, naming the file."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except FileNotFoundError:
        raise ValueError(f"there is no config file {path}") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a directory: name a YAML file, such as {path / 'config.yaml'}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        problem = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise ValueError(f"{path} is not YAML: {line}{problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of settings, it holds {type(values).__name__}")
    return values


def dump(config: Settings) -> str:
    """The settings as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _has_misplaced_boolean(annotation: Any, value: Any) -> bool:
    """Whether `value` is or holds a boolean where `annotation` allows none."""
    if isinstance(value, bool):
        return not _types(annotation) & {bool, Any}
    if isinstance(value, dict):
        *_, inner = get_args(annotation) or (Any,)
        return not _settings_within(annotation) and any(_has_misplaced_boolean(inner, item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_misplaced_boolean(annotation, item) for item in value)
    return False


def _types(annotation: Any) -> set[Any]:
    return {annotation}.union(*map(_types, get_args(annotation)))


def _keys_at(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The field names of the model at `loc`, which starts from `cls`."""
    for step in loc:
        if isinstance(step, str) and step in cls.model_fields:
            cls = _settings_within(cls.model_fields[step].annotation) or cls
    return list(cls.model_fields)


def _settings_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((settings for inner in get_args(annotation) if (settings := _settings_within(inner))), None)
