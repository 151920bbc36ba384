"""The tokens of an expression, and a cursor over them."""

from __future__ import annotations

import re
from typing import Any

from .errors import Unparsable

Node = tuple[Any, ...]
"""A tree of an expression: the kind of the node, then its operands."""

FUNCTIONS = [
    "arcsin",
    "arccos",
    "arctan",
    "arccot",
    "arcsec",
    "arccsc",
    "arsinh",
    "arcosh",
    "artanh",
    "sinh",
    "cosh",
    "tanh",
    "coth",
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "exp",
    "ln",
    "lg",
    "log",
    "sgn",
    "cis",
    "arg",
    "Re",
    "Im",
]
OPERATORS = ("gcd", "lcm", "max", "min")
ALIASES = {"tg": "tan", "ctg": "cot", "arctg": "arctan", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_WORDS = (*FUNCTIONS, *OPERATORS, *ALIASES, "sqrt", "cbrt", "floor", "ceil", "abs", "pi")
_PLAIN = "|".join(sorted(_WORDS, key=len, reverse=True))
_RUN = re.compile(rf"(?:{_PLAIN})(?![a-z])|(?:{_PLAIN})(?=[a-z]$)|[A-Z]{{2,}}(?![a-z])|[A-Za-z]")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)|(?P<command>\\(?:[A-Za-z]+|.))|(?P<run>[A-Za-z]+)|(?P<mark>[^\s]))"
)


def tokenize(text: str, joined: bool = True) -> list[str]:
    """Numbers, commands, names and marks, in order; with `joined`, a run of capitals is one name."""
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        if match["run"]:
            for piece in _RUN.findall(match["run"]):
                tokens += [piece] if joined or not (piece.isupper() and len(piece) > 1) else list(piece)
        else:
            tokens.append(match.group().strip())
    return tokens


class Scanner:
    """A cursor over tokens. The last token is empty."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place, self.depth = [*tokens, ""], 0, 0
        self.bars = 0  # the absolute values that are open

    @property
    def next(self) -> str:
        return self.tokens[self.place]

    def take(self, expected: str = "") -> str:
        token = self.tokens[self.place]
        if not token or (expected and token != expected):
            raise Unparsable(f"expected {expected or 'more'}")
        self.place += 1
        return token

    def accept(self, *tokens: str) -> bool:
        if self.next in tokens and self.next:
            self.place += 1
            return True
        return False

    def script(self) -> str:
        """The text of an index: a token, or the tokens of a group."""
        if not self.accept("{"):
            return self.take()
        parts: list[str] = []
        depth = 1
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            if not depth:
                return "".join(parts).replace("\\mathrm", "").replace("\\text", "").replace("{", "").replace("}", "")
            parts.append(token)
