r"""A grammar of expressions: LaTeX, and the plain notation of programs, as a tree of tuples.

    >>> parse_expression(r"\\frac\\pi6 + 1")
    ('add', ('div', ('const', 'pi'), ('num', Fraction(6, 1))), ('num', Fraction(1, 1)))

A number that divides takes nothing with it (``1/2 x`` is half of x), a letter takes the factors after it (``a/bc`` is
a over bc). Nothing is evaluated here, and no text is ever run as Python.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from .errors import Unparsable
from .notation import Notation
from .scanner import Node, tokenize

MAX_CHARACTERS = 2000
_MAX_DEPTH = 150
_MAX_FACTORS = 120
"""The factors of one term, which nest in the tree."""
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_ENDS = frozenset(
    ("\\rfloor", "\\rceil", "\\right", "\\}", "\\end", "\\cdot", "\\times", "\\div", "\\\\", "\\choose", "\\over")
)


@lru_cache(maxsize=8192)
def parse_expression(text: str, joined: bool = True) -> Node:
    """The tree of `text`. Raises Unparsable.

    With `joined`, a run of capitals (``AB``) is one name, as of a segment; else it is a product.
    """
    if len(text) > MAX_CHARACTERS:
        raise Unparsable("too long")
    return _Parser(tokenize(text, joined)).whole()


class _Parser(Notation):
    def parse_index(self, text: str) -> Node:
        return parse_expression(text)

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
        for _ in range(_MAX_FACTORS):
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
        raise Unparsable("too many factors")

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
        if not token or token in _ENDS:
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
