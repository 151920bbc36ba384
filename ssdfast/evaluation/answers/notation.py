r"""The notation of expressions beyond signs and brackets: commands, functions, names, sums, matrices.

``\\frac\\pi6``, ``\\sin^2 2x``, ``C_{10}^3``, ``f'(x)``, ``sqrt(2)``: LaTeX and the plain notation of programs.
"""

from __future__ import annotations

from fractions import Fraction

from .characters import GREEK_LETTERS
from .errors import Unparsable
from .scanner import ALIASES, FUNCTIONS, OPERATORS, Node, Scanner

_ARC = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
GREEK = (GREEK_LETTERS - {"pi", "omicron"}) | {"varepsilon", "vartheta", "varrho", "varphi", "ell", "hbar"}
"""commands that are names of quantities; pi is a number, and LaTeX has no omicron"""
_ACCENTS = frozenset(
    ["overline", "bar", "hat", "tilde", "widehat", "widetilde", "dot", "ddot", "underline", "overrightarrow", "overarc"]
)
_FIGURES = frozenset(["angle", "triangle", "odot", "square", "parallelogram"])
_CALLED = frozenset("fghFGH") | {"\\phi", "\\varphi", "\\psi"}
"""Letters that name a function where a bracket follows them."""
_FENCES = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceil")}
_MATRICES = ("pmatrix", "bmatrix", "matrix", "vmatrix", "Bmatrix", "array", "smallmatrix")


class Notation(Scanner):
    """What commands and letters begin. The signs and brackets around them are of `expression.Parser`."""

    def sum(self) -> Node:
        raise NotImplementedError

    term = power = factor = group = argument = atom = exponent = argument_of_script = sum

    def postfixes(self, node: Node) -> Node:
        raise NotImplementedError

    def starts_factor(self) -> bool:
        raise NotImplementedError

    def parse_index(self, text: str) -> Node:
        raise NotImplementedError

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
        if name in FUNCTIONS or name in ALIASES:
            return self.function(ALIASES.get(name, name))
        if name in OPERATORS:
            return ("fn", name, *self.arguments())
        if "\\" + name in _FENCES:
            closing, kind = _FENCES["\\" + name]
            node = self.sum()
            self.take(closing)
            return ("fn", kind, node)
        if name in ("sum", "prod"):
            return self.series(name)
        if name in GREEK:
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
        if token in FUNCTIONS or token in ALIASES:
            return self.function("plain log" if token == "log" and self.next == "(" else ALIASES.get(token, token))
        if token in OPERATORS:
            return ("fn", token, *self.arguments())
        if token == "C" and self.next == "(" and "," in self.tokens[self.place :]:
            return ("binom", *self.arguments())
        return self.name(token)

    def styled(self, style: str) -> Node:
        content = self.script()
        if style == "mathrm" and (content in FUNCTIONS or content in OPERATORS or content in ALIASES):
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
        if name[0] in _CALLED or name in _CALLED or (name[-1] == "'" and self.next == "("):
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
        return ("binom", *map(self.parse_index, (index, lower)))

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
        if (self.next == "/" and node[0] == "num") or (self.next == "/" and node == ("const", "pi")):
            self.take()
            node = ("div", node, self.factor())
        return ("neg", node) if sign else node

    def begins_function(self) -> bool:
        name = self.next.lstrip("\\")
        return name in FUNCTIONS or name in ALIASES or name in ("sum", "prod")

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
