"""Shows the docstrings of ssdfast as they are meant: ``name: text`` is an item of a list, and Returns and Raises begin
a paragraph. An extension of griffe, which mkdocs.yml names."""

import re
from typing import Any

import griffe


class NamedLists(griffe.Extension):
    """Rewrites docstrings as Markdown before they are rendered."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    lines: list[str] = []
    in_list = False
    for line in docstring.splitlines():
        item = re.match(r"([a-z]\w*(?:, [a-z]\w*)*): (?=\S)", line)
        indented = not line[:1].strip()
        ends = in_list and not indented and not item
        if ends or (item and not in_list) or re.match(r"(Returns|Raises|Memory)\b", line):
            lines.append("")
        lines.append(f"- `{item[1]}`: {line[item.end() :]}" if item else line)
        in_list = bool(item) or (in_list and indented)
    return "\n".join(lines)
