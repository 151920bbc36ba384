r"""A grammar of expressions: LaTeX, and the plain notation of programs, as a tree of tuples.

    >>> parse_expression(r"3/2 x + \frac\pi6")
    ('add', ('mul', ('div', ('num', Fraction(3, 1)), ...

A number that divides takes nothing with it (``1/2 x`` is half of x), a letter takes the factors after it (``a/bc`` is
a over bc). Nothing is evaluated here, and no text is ever run as Python.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from .errors import Unparsable

Node = tuple[Any, ...]
"""The kind of the node, then its operands."""

MAX_CHARACTERS = 2000
_MAX_DEPTH = 150

_FUNCTIONS = (
    "arcsin arccos arctan arccot arcsec arccsc arsinh arcosh artanh sinh cosh tanh coth sin cos tan cot sec csc"
    " exp ln lg log sgn cis arg Re Im"
).split()
_OPERATORS = ("gcd", "lcm", "max", "min")
_ARC = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
_ALIASES = {"tg": "tan", "ctg": "cot", "arctg": "arctan", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_PLAIN = "|".join(sorted((*_FUNCTIONS, *_OPERATORS, *_ALIASES, "sqrt", "cbrt", "floor", "ceil", "abs", "pi"), key=len, reverse=True))
_RUN = re.compile(rf"(?:{_PLAIN})(?![a-z])|(?:{_PLAIN})(?=[a-z]$)|[A-Z]{{2,}}(?![a-z])|[A-Za-z]")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)|(?P<command>\\(?:[A-Za-z]+|.))|(?P<run>[A-Za-z]+)|(?P<mark>[^\s]))"
)
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau"
    " upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar".split()
)
_ACCENTS = frozenset("overline bar hat tilde widehat widetilde dot ddot underline overrightarrow overarc".split())
_FIGURES = frozenset("angle triangle odot square parallelogram".split())
CALLED = frozenset("fghFGH") | {"\\phi", "\\varphi", "\\psi"}
"""Letters that name a function where a bracket follows them."""
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_FENCES = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceil")}
_MATRICES = ("pmatrix", "bmatrix", "matrix", "vmatrix", "Bmatrix", "array", "smallmatrix")


@lru_cache(maxsize=8192)
def parse_expression(text: str, joined: bool = True) -> Node:
    """The tree of `text`. Raises Unparsable.

    With `joined`, a run of capitals (``AB``) is one name, as of a segment; else it is a product.
    """
    if len(text) > MAX_CHARACTERS:
        raise Unparsable("too long")
    return _Parser(tokenize(text, joined)).whole()


def tokenize(text: str, joined: bool = True) -> list[str]:
    """Numbers, commands, names and marks, in order."""
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        if match["run"]:
            for piece in _RUN.findall(match["run"]):
                tokens += [piece] if joined or not (piece.isupper() and len(piece) > 1) else list(piece)
        else:
            tokens.append(match.group().strip())
    return tokens


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place, self.depth = [*tokens, ""], 0, 0
        self.bars = 0

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

    def whole(self) -> Node:
        node = self.sum()
        if self.next:
            raise Unparsable(f"{self.next} is left")
        return node

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unparsable("too deeply nested")
        terms = [self.signed_term()]
        while self.next in ("+", "-") and self.next:
            terms.append(self.signed_term())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def signed_term(self) -> Node:
        negative = False
        while self.next in ("+", "-"):
            negative ^= self.take() == "-"
        node = self.term()
        return ("neg", node) if negative else node

    def term(self) -> Node:
        node = self.power()
        while True:
            if self.accept("*", "\\cdot", "\\times"):
                node = ("mul", node, self.factor())
            elif self.accept("/", "\\div"):
                node = ("div", node, self.denominator())
            elif self.starts_factor():
                if node[0] == "num" and self.next[0] in "0123456789.":
                    raise Unparsable("two numbers side by side")
                node = ("mul", node, self.power())
            else:
                return node

    def factor(self) -> Node:
        return ("neg", self.factor()) if self.accept("-") else self.power()

    def denominator(self) -> Node:
        bracket = self.next in ("(", "{", "[")
        node = self.factor()
        if node[0] in ("name", "pow") and not bracket and "num" not in (node[0], node[1][0] if len(node) > 2 else ""):
            while self.starts_factor() and self.next[0] not in "0123456789":
                node = ("mul", node, self.power())
        return node

    def starts_factor(self) -> bool:
        token = self.next
        if not token or token in ("\\rfloor", "\\rceil", "\\right", "\\}", "\\end", "\\cdot", "\\times", "\\div", "\\\\", "\\choose", "\\over"):
            return False
        if token == "|":
            return not self.bars
        return token[0].isalnum() or token in ("(", "[", "{", ".", "\\{") or token[0] == "\\" or token[0] == "."

    def power(self) -> Node:
        return self.postfixes(self.atom())

    def postfixes(self, node: Node) -> Node:
        while True:
            if self.accept("!"):
                if self.accept("!"):
                    raise Unparsable("a double factorial")
                node = ("fact", node)
            elif self.next == "^":
                self.take()
                node = self.raised(node)
            elif self.accept("'"):
                raise Unparsable("a prime on what is no name")
            else:
                return node

    def raised(self, node: Node) -> Node:
        if self.next in ("\\circ", "{") and self.degree_mark():
            return self.minutes(("deg", node))
        if self.next == "{" and self.tokens[self.place + 1 : self.place + 3] in (["T", "}"], ["\\top", "}"]):
            self.place += 3
            return ("transpose", node)
        if self.accept("T", "\\top"):
            return ("transpose", node)
        return ("pow", node, self.exponent())

    def degree_mark(self) -> bool:
        start = self.place
        braced = self.accept("{")
        if self.accept("\\circ") and (not braced or self.accept("}")):
            return True
        self.place = start
        return False

    def minutes(self, node: Node) -> Node:
        """Minutes and seconds of arc after degrees: 36° 52' 12''."""
        for marks, size in ((1, 60), (2, 3600)):
            ahead = self.tokens[self.place : self.place + marks + 2]
            if len(ahead) > marks and ahead[0][:1].isdigit() and ahead[1 : marks + 1] == ["'"] * marks:
                self.place += marks + 1
                node = ("add", node, ("deg", ("num", Fraction(ahead[0]) / size)))
        return node

    def exponent(self) -> Node:
        if self.accept("-"):
            return ("neg", self.exponent())
        self.accept("+")
        if self.next in ("{", "("):
            return self.group()
        return self.atom()

    def group(self) -> Node:
        closing = _CLOSING[self.take()]
        bars, self.bars = self.bars, 0
        node = self.sum()
        self.bars = bars
        if closing == "}":
            self.take("}")
        elif self.next in (")", "]"):
            self.take(closing)
        else:
            raise Unparsable("an open bracket")
        return node

    def argument(self) -> Node:
        """The operand of a command: a group, or a single digit or token."""
        if self.next == "{":
            return self.group()
        token = self.next
        if token[:1].isdigit() and len(token) > 1:
            self.tokens[self.place : self.place + 1] = [token[0], token[1:]]
        return self.atom()

    def atom(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unparsable("too deeply nested")
        node = self.any_atom()
        self.depth -= 1
        return node

    def any_atom(self) -> Node:
        token = self.next
        if token in ("(", "[", "{"):
            return self.braces() if token == "{" else self.group()
        if token == "|":
            self.take()
            self.bars += 1
            node = self.sum()
            self.take("|")
            self.bars -= 1
            return ("fn", "abs", node)
        if token in ("^", "_"):
            return self.combinations()
        self.take()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return ("num", Fraction(token.rstrip(".")))
        if token[0] == "\\":
            return self.command(token[1:])
        if token[0].isalpha():
            return self.word(token)
        raise Unparsable(f"{token} begins nothing")

    def braces(self) -> Node:
        """A group in braces, which ``\\choose`` or ``\\over`` may divide."""
        self.take("{")
        if self.accept("}"):  # {}_{10} C_3
            return self.combinations() if self.next == "_" else self.atom()
        node = self.sum()
        for command, kind in (("\\choose", "binom"), ("\\over", "div")):
            if self.accept(command):
                node = (kind, node, self.sum())
        self.take("}")
        return node

    def combinations(self) -> Node:
        """A number before a C: ``^{10}C_3`` and ``_{10}C_3``."""
        self.take()
        upper = self.argument_of_script()
        self.take("C")
        self.take("_")
        return ("binom", upper, self.argument_of_script())

    def argument_of_script(self) -> Node:
        return self.group() if self.next == "{" else self.atom()

    def command(self, name: str) -> Node:
        if name == "frac":
            over = self.argument()
            return ("div", over, self.argument())
        if name == "sqrt" or name == "surd":
            return self.root()
        if name == "cbrt":
            return ("root", ("num", Fraction(3)), self.whole_argument())
        if name == "binom":
            upper = self.argument()
            return ("binom", upper, self.argument())
        if name in ("pi", "infty"):
            return ("const", name)
        if name in _FUNCTIONS or name in _ALIASES:
            return self.function(_ALIASES.get(name, name))
        if name in _OPERATORS:
            return ("fn", name, *self.arguments())
        if "\\" + name in _FENCES:
            closing, kind = _FENCES["\\" + name]
            node = self.sum()
            self.take(closing)
            return ("fn", kind, node)
        if name in ("sum", "prod"):
            return self.series(name)
        if name in _GREEK:
            return self.name("\\" + name)
        if name == "vec":
            return self.name(self.script())
        if name in _ACCENTS:
            return self.name(f"\\{'bar' if name == 'overline' else name} {self.script()}")
        if name in _FIGURES:
            return self.name(f"\\{name} {self.take()}")
        if name in ("mathrm", "text", "mathcal", "mathbb"):
            return self.styled(name)
        if name == "begin":
            return self.matrix()
        raise Unparsable(f"\\{name}")

    def root(self) -> Node:
        degree: Node = ("num", Fraction(2))
        if self.next == "[":
            degree = self.group()
        return ("root", degree, self.whole_argument())

    def whole_argument(self) -> Node:
        """The operand of a root, where a number is taken with all its digits."""
        return self.group() if self.next in ("{", "(") else self.atom()

    def word(self, token: str) -> Node:
        if token == "pi":
            return ("const", "pi")
        if token in ("sqrt", "cbrt"):
            return ("root", ("num", Fraction(2 if token == "sqrt" else 3)), self.whole_argument())
        if token in ("floor", "ceil", "abs"):
            return ("fn", token, self.group())
        if token in _FUNCTIONS or token in _ALIASES:
            return self.function("plain log" if token == "log" and self.next == "(" else _ALIASES.get(token, token))
        if token in _OPERATORS:
            return ("fn", token, *self.arguments())
        if token == "C" and self.next == "(" and "," in self.tokens[self.place :]:
            return ("binom", *self.arguments())
        return self.name(token)

    def styled(self, style: str) -> Node:
        content = self.script()
        if style == "mathrm" and (content in _FUNCTIONS or content in _OPERATORS or content in _ALIASES):
            return self.word(content)
        if style == "mathbb":
            raise Unparsable("a set of numbers")
        return self.name(content)

    def name(self, name: str) -> Node:
        """A name with its indices and primes, applied to its arguments where it is a function's."""
        index = ""
        while self.next in ("_", "'"):
            if self.take() == "'":
                name += "'"
            else:
                index = self.script()
                name += f"_{index}"
        power: Node | None = None
        if name.startswith("C_") and self.next == "^" and (counts := self.choice(index)):
            return counts
        if name[0] in CALLED or name in CALLED or (name[-1] == "'" and self.next == "("):
            if self.next == "^" and self.tokens[self.place + 1 : self.place + 5] == ["{", "-", "1", "}"]:
                self.place += 5
                name += "^{-1}"
            elif self.next == "^" and self.tokens[self.place + 2 : self.place + 3] == ["("]:
                self.take()
                power = self.exponent()
            if self.next == "(":
                node: Node = ("call", name, *self.arguments())
                return ("pow", node, power) if power else node
        node = ("const", name) if name in ("i", "e") else ("name", name)
        return ("pow", node, power) if power else node

    def choice(self, index: str) -> Node | None:
        """``C_{10}^3``, the number of choices; ``C_1^2`` is the square of a constant."""
        start = self.place
        self.take("^")
        lower = self.script()
        if index.isdigit() and lower.isdigit() and int(lower) > int(index):
            self.place = start
            return None
        if not index or (not index.isdigit() and not lower):
            self.place = start
            return None
        return ("binom", parse_expression(index), parse_expression(lower))

    def script(self) -> str:
        """The text of an index: a token, or the tokens of a group."""
        if not self.accept("{"):
            return self.take()
        parts, depth = [], 1
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            if not depth:
                return "".join(parts).replace("\\mathrm", "").replace("\\text", "").replace("{", "").replace("}", "")
            parts.append(token)

    def arguments(self) -> list[Node]:
        self.take("(")
        arguments = [self.sum()]
        while self.accept(",", ";"):
            arguments.append(self.sum())
        self.take(")")
        return arguments

    def function(self, name: str) -> Node:
        power: Node | None = None
        base: Node | None = None
        while self.next in ("^", "_"):
            if self.take() == "_":
                base = self.argument_of_script()
            else:
                power = self.exponent()
        if power == ("neg", ("num", Fraction(1))) and name in _ARC:
            name, power = _ARC[name], None
        node: Node = ("fn", name, self.operand())
        if name in ("log", "lg") and (base or name == "lg"):
            node = ("log", base or ("num", Fraction(10)), node[2])
        return ("pow", node, power) if power else node

    def operand(self) -> Node:
        """The operand of a function: a bracket, or the factors up to a sign, a function or a bracket."""
        if self.next in ("(", "["):
            node = self.group()
            while self.next == "!":
                node = self.postfixes(node)
            return node
        sign = self.accept("-")
        node = self.power()
        while self.starts_factor() and self.next not in ("(", "[") and not self.begins_function():
            node = ("mul", node, self.power())
        if self.next == "/" and node[0] == "num" or (self.next == "/" and node == ("const", "pi")):
            self.take()
            node = ("div", node, self.factor())
        return ("neg", node) if sign else node

    def begins_function(self) -> bool:
        name = self.next.lstrip("\\")
        return name in _FUNCTIONS or name in _ALIASES or name in ("sum", "prod")

    def series(self, kind: str) -> Node:
        self.take("_")
        self.take("{")
        variable = self.take()
        self.take("=")
        low = self.sum()
        self.take("}")
        self.take("^")
        high = self.exponent()
        return (kind, variable, low, high, self.term())

    def matrix(self) -> Node:
        environment = self.script()
        if environment.rstrip("*") not in _MATRICES:
            raise Unparsable(environment)
        if environment == "array":
            self.script()
        rows: list[list[Node]] = [[]]
        while not self.accept("\\end"):
            if self.accept("&"):
                continue
            if self.accept("\\\\"):
                rows.append([])
            elif not self.accept("\\hline"):
                rows[-1].append(self.sum())
        self.script()
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) != 1:
            raise Unparsable("a ragged matrix")
        kind = "det" if environment == "vmatrix" else "matrix"
        return (kind, tuple(map(tuple, rows)))
