r"""What the left side of an equation is: a name, another quantity with a value, or one side of an equation to solve.

``|AB| = 1``, ``\sin A = 3/5`` and ``a + b = 7`` state the value of a quantity. ``2x = 5`` and ``x^2 + y^2 = 25`` do
not: their right side is no answer.
"""

from __future__ import annotations

import re
from typing import Literal

from .errors import Unparsable
from .expression import parse_expression
from .identity import names
from .notation import GREEK
from .scanner import Node
from .types import Answer, Equation, Value
from .wording import CHANGING, MARKED, plain, sentence

_LETTER = rf"(?:[A-Za-z]|\\(?:{'|'.join(GREEK)})(?![A-Za-z]))"
_INDEX = r"(?:\s*_\s*(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|\\?[A-Za-z]+|[0-9]))?"
_ARGUMENTS = r"(?:\s*\([^()=]*\)|\s*\[[^\[\]=]*\])?"
_NAME = re.compile(
    rf"(?:{_LETTER}'*{_INDEX}'*(?:\s*\^\s*\{{\s*-1\s*\}})?{_ARGUMENTS}|[A-Z]{{2,4}}'*"
    r"|(?:m\s*)?\\(?:angle|triangle|odot|square|overline|bar|hat|vec|widehat|overrightarrow|overarc)\s*(?:\{[^{}]*\}|[A-Z]+|[a-z]|[0-9])"
    r"|\|\s*(?:[A-Z]{2}|\\(?:overline|vec|overrightarrow)\s*\{[^{}]*\}|[A-Z]|\\vec\s*[a-z])\s*\|"
    r"|\\text\{[^{}]*\}\s*(?:\([^()]*\)|\[[^\[\]]*\]))"
)
_TUPLE = re.compile(rf"\(\s*{_LETTER}{_INDEX}(?:\s*,\s*{_LETTER}{_INDEX})+\s*\)")
_PARAMETERS = re.compile(rf"(?:{_LETTER}|[a-z])'*{_INDEX}(?:\s*\^\s*\{{\s*-1\s*\}})?\(\s*([a-z](?:\s*,\s*[a-z])*)\s*\)")
_RATIO = re.compile(r"[^:=]+(?:\s*:\s*[^:=]+)+")
_UNKNOWN = frozenset("xyz")

Kind = Literal["name", "quantity", "requested", "equation", "number"]


def describe(text: str) -> tuple[Kind, str, tuple[str, ...]]:
    """The kind of a left side, its name, and the arguments of the function that it defines.

    A quantity of unknowns, such as ``\\sin x``, is "requested": as a gold answer it names what the problem asks for, in
    an answer it may be an equation that is not solved.
    """
    if _TUPLE.fullmatch(text) or _NAME.fullmatch(text):
        match = _PARAMETERS.fullmatch(text)
        return "name", name_key(text), tuple(part.strip() for part in match[1].split(",")) if match else ()
    if MARKED.search(text):
        words = plain(text)
        in_words = re.fullmatch(r"[^\W\d_]+(?: [^\W\d_]+)*(?: ?\([^()]*\))?", words) and not CHANGING.intersection(
            words.lower().split()
        )
        return ("name", sentence(text), ()) if in_words else ("equation", "", ())
    if _RATIO.fullmatch(text):
        return "quantity", name_key(text), ()
    try:
        node = parse_expression(text)
    except Unparsable:
        return "equation", "", ()
    letters = names(node) | _calls(node)
    if not letters:
        return "number", "", ()
    return _kind(node, letters), name_key(text), ()


def name_key(text: str) -> str:
    """A name without spaces, braces and marks."""
    return re.sub(r"[\s{}]|\\text|\\mathrm", "", text)


def tuple_names(name: str) -> tuple[str, ...]:
    """The names of ``(x,y)``, () for a single name."""
    return tuple(name[1:-1].split(",")) if name.startswith("(") and "," in name else ()


def _kind(node: Node, letters: frozenset[str]) -> Kind:
    kind = node[0]
    if kind in ("name", "call"):
        return "name"
    if kind == "fn" and node[1] != "abs":
        return "requested" if letters <= _UNKNOWN else "quantity"
    if kind == "log":
        return "requested" if letters <= _UNKNOWN else "quantity"
    if kind == "fn":
        return "equation" if letters <= {"x", "y"} else "quantity"
    if kind not in ("add", "mul", "div", "neg") or len(letters) < 2 or not _made_of_quantities(node):
        return "equation"
    return "equation" if _has_number(node) and letters & _UNKNOWN else "quantity"


def _made_of_quantities(node: Node) -> bool:
    kind = node[0]
    if kind in ("name", "call", "num", "fn", "deg"):
        return True
    if kind == "pow":
        return _made_of_quantities(node[1]) and node[2][0] == "num"
    return kind in ("add", "mul", "div", "neg") and all(map(_made_of_quantities, node[1:]))


def _has_number(node: Node) -> bool:
    return node[0] == "num" or (
        node[0] not in ("call", "fn") and any(_has_number(part) for part in node[1:] if isinstance(part, tuple))
    )


def _calls(node: object) -> frozenset[str]:
    if not isinstance(node, tuple) or not node:
        return frozenset()
    own = {f"{node[1]}()"} if node[0] == "call" else set()
    return frozenset(own).union(*(_calls(part) for part in node if isinstance(part, tuple)))


def expression_or_none(text: str) -> Node | None:
    """The tree of one side, None where it is no expression."""
    try:
        return parse_expression(text)
    except Unparsable:
        return None


def equation(text: str, sides: list[str], values: list[Answer | None]) -> Answer:
    """The answer that a chain of equal sides states. `values` has the parsed sides, None for those that are none."""
    described = [describe(side) for side in sides]
    if described[0][0] == "number" and any(kind in ("name", "quantity") for kind, *_ in described[1:]):
        sides, described, values = sides[::-1], described[::-1], values[::-1]
        if described[0][0] == "number":
            return values[-1] or Value(text, None, ("name", text))
    kind, name, parameters = described[0]
    value = values[-1]
    if value is None:
        raise Unparsable("a side of an equation")
    if kind == "number":
        return value
    left, right = expression_or_none(sides[0]), expression_or_none(sides[-1])
    if len(sides) > 2 and kind == "equation" and any(described[place][0] == "number" for place in range(1, len(sides))):
        kind = "quantity"  # a + 2b = 3 + 4 = 7 is evaluated, not solved
    return Equation(text, kind, name, value, left, right, parameters, bool(MARKED.search(sides[0])))


def beside_letters(gold: frozenset[str], answer: frozenset[str]) -> bool:
    """Whether a pair of capitals is a name of one side alone, beside one of its letters: ``PV`` beside ``P``.

    The two letters are then a product; elsewhere they are one name, as of a segment.
    """
    pairs = [name for name in gold ^ answer if len(name) > 1 and name.isalpha() and name.isupper()]
    return any(set(name) & (gold | answer) for name in pairs)


def as_products(text: str) -> Node | None:
    """The difference of the two sides of an equation, in which every letter is a name of its own."""
    left, _, right = text.partition("=")
    try:
        return ("add", parse_expression(left.strip(), False), ("neg", parse_expression(right.strip(), False)))
    except Unparsable:
        return None
