r"""Sets that have a name: ``\mathbb{R}^+``, "all real numbers", "all even integers"."""

from __future__ import annotations

import re
from fractions import Fraction

from .regions import INFINITY, REALS, Pieces, interval
from .types import Answer, Progression, Region, Symbols

_ZERO = Fraction(0)
_POSITIVE, _NEGATIVE = interval(_ZERO, INFINITY, False, False), interval(-INFINITY, _ZERO, False, False)
_PARTS: dict[str, Pieces] = {
    "positive": _POSITIVE, "negative": _NEGATIVE, "nonnegative": interval(_ZERO, INFINITY, True, False),
    "nonpositive": interval(-INFINITY, _ZERO, False, True), "": REALS,
}  # fmt: skip
_WORDS = re.compile(
    r"(?:(?:the )?set of )?(?:all |every |any |the )?"
    r"(?P<part>positive |negative |non-?negative |non-?positive |even |odd )?"
    r"(?P<set>real numbers?|reals?|integers?|natural numbers?|naturals?|numbers?|real values?)"
    r"(?P<variable> [a-z]| of [a-z])?"
)
_SYMBOL = re.compile(
    r"\\mathbb\s*\{?\s*(?P<set>[RZNQC])\s*\}?\s*(?P<marks>(?:[\^_]\s*\{?\s*(?:[-+*0]|[<>]\s*0|\\[gl]e\s*0)\s*\}?\s*)*)"
)


def in_words(text: str) -> Answer | None:
    """The set that `text` names in words, None where it names none."""
    match = _WORDS.fullmatch(text.lower())
    if not match or (match["set"].startswith("number") and not match["part"]):
        return None
    part = (match["part"] or "").strip().replace("-", "")
    if match["set"].startswith("real"):
        return None if part in ("even", "odd") else Region(_PARTS[part])
    if part in ("even", "odd"):
        even = ("mul", ("num", Fraction(2)), ("name", "k"))
        return Progression(even if part == "even" else ("add", even, ("num", Fraction(1))), "k")
    natural = match["set"].startswith("natural")
    return Symbols("\\mathbb{N}") if natural else Region(_PARTS[part], domain="Z")


def in_symbols(text: str) -> Answer | None:
    r"""The set that ``\mathbb{R}`` with its marks is, None for anything else."""
    match = _SYMBOL.fullmatch(text)
    if not match:
        return None
    marks = re.sub(r"[\s{}^_]", "", match["marks"]).replace("\\ge", "ge").replace("\\le", "le")
    parts = {"": "", "+": "positive", "-": "negative", ">0": "positive", "<0": "negative", "ge0": "nonnegative",
             "le0": "nonpositive", "+0": "nonnegative", "0+": "nonnegative"}  # fmt: skip
    if match["set"] in "RZ" and marks in parts:
        return Region(_PARTS[parts[marks]], domain="" if match["set"] == "R" else "Z")
    return Symbols("".join(text.split()))


def within(answer: Answer, domain: str) -> Answer:
    """A set of numbers with the domain that its definition names, Z for whole numbers."""
    if isinstance(answer, Region) and domain in ("Z", "N"):
        return Region(answer.pieces, answer.name, domain)
    return answer
