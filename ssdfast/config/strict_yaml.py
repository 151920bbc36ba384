"""YAML as it is written: a key occurs once, and only what is plainly a number or a boolean is read as one.

YAML 1.1 reads `yes`, `on` and `off` as booleans, `010` as 8, `1:30` as 90, `5e-6` as text and a date as a date object.
Here `5e-6` is a number and the others are texts, as in YAML 1.2; the type of a setting decides what such a text means.
"""

from __future__ import annotations

import re

import yaml


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that raises MarkedYAMLError for a repeated key, with the plain scalars of YAML 1.2."""

    def compose_mapping_node(self, anchor: dict) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (name := (key.tag, key.value)) in lines:
                problem = f"the key {key.value!r} is repeated, first in line {lines[name]}: keep one of them"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            lines[name] = key.start_mark.line + 1
        return node


StrictLoader.yaml_implicit_resolvers = {}  # none of SafeLoader's
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _firsts = [character if character != "\0" else "" for character in _first]
    StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _firsts)
