r"""A value and the words beside it: units, scales ("2 million"), parts ("3 quarters"), percent, nouns, money.

The words are read, never dropped. Where one of them changes what is said ("at most", "less than") the answer is no
value but a sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from .numerals import SCALES, denominator, words_to_number
from .units import Unit, parse_unit, singular
from .wording import CHANGING, MARKED, plain

_NEUTRAL = frozenset(
    [
        "approximately",
        "approx",
        "about",
        "roughly",
        "around",
        "exactly",
        "only",
        "just",
        "total",
        "altogether",
        "of",
        "the",
        "a",
        "an",
        "in",
        "all",
        "different",
        "distinct",
        "possible",
        "such",
        "correct",
    ]
)
_GENERAL = frozenset(
    [
        "way",
        "arrangement",
        "possibility",
        "solution",
        "value",
        "unit",
        "number",
        "answer",
        "outcome",
        "combination",
        "choice",
        "time",
        "one",
        "ones",
        "item",
        "object",
        "result",
        "case",
        "个",
        "种",
        "次",
        "人",
        "个数",
    ]
)
"""Nouns that say nothing about what is counted."""
_CHINESE_SCALE = re.compile("百万|万|亿")
_UNIT_POWER = re.compile(r"\b(units?)\s*\^\s*\{?[23]\}?")
_PER_CENT = re.compile(r"per\s+cent\b", re.IGNORECASE)
_POWERS = {"squared": 2, "cubed": 3}
_LEADING = re.compile(
    r"(?:(?:a\s*)?\\text\{total\}\s*\\text\{of\}\s*|\\text\{(?:approximately|approx|about|roughly|around|exactly|only|just|answer|ans|the|final|is|equals|总共|共|约|答案|答|solution|result|some)\}\s*|\\text\{(?:all|every)\}\s*(?=[a-z]\s*\\)|\\approx\s*|:\s*)+",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\s*[(,]?\s*\\text\{(?:approximately|approx|about|roughly|rounded|exactly)\}[^()]*\)?\s*$", re.IGNORECASE
)
_CURRENCY = {"dollar": "dollar", "euro": "euro", "pound": "gbp", "yen": "yen", "cent": "cent"}
_MONEY = re.compile(r"(?P<sign>-?)\s*\\(?P<currency>dollar|euro|pound|yen)(?![a-z])\s*(?P<rest>.+)", re.DOTALL)
_MONEY_AFTER = re.compile(r"(?P<rest>.+?)\s*\\(?P<currency>dollar|euro|pound|yen|cent)(?![a-z])\s*", re.DOTALL)
_TAIL = re.compile(r"(?P<value>.*?[^\s\\(/])\s*(?P<words>\(?\s*(?:/\s*)?\\text\{.*)", re.DOTALL)
_PLAIN_TAIL = re.compile(r"[^\W\d_]|[\s.,'/()^*·{}-]|[1-4]|°|¢", re.DOTALL)


@dataclass(frozen=True)
class Measure:
    """What the words after a value say: multiply the value, raise it to a power, count percents, a unit, a noun."""

    factor: Fraction = Fraction(1)
    power: int = 1
    percent: bool = False
    unit: Unit | None = None
    label: tuple[str, ...] = ()


def without_asides(text: str) -> str:
    """`text` without "the answer is", "approximately" and the like at its ends."""
    stripped = _LEADING.match(text)
    rest = text[stripped.end() :].strip() if stripped else text
    return (_ASIDE.sub("", rest).strip() or rest) or text


def split_money(text: str) -> tuple[str, Unit | None]:
    """An amount without the sign of its currency, and the currency; `text` and None where there is none."""
    if match := _MONEY.fullmatch(text):
        return match["sign"] + match["rest"].strip(), parse_unit(_CURRENCY[match["currency"]])
    if match := _MONEY_AFTER.fullmatch(text):
        return match["rest"].strip(), parse_unit(_CURRENCY[match["currency"]])
    return text, None


def split_tail(text: str) -> tuple[str, str] | None:
    """A value and the words after it; None where no words end the text or something else stands among them."""
    match = _TAIL.fullmatch(text)
    if not match or MARKED.search(match["value"]):
        return None
    words = plain(re.sub(r"\\cdot", "*", match["words"]))
    return (match["value"].strip(), words) if all(_PLAIN_TAIL.fullmatch(character) for character in words) else None


def measure(words: str) -> Measure | None:
    """What the words after a value say; None where they change it in a way that is not known."""
    words = _UNIT_POWER.sub(r"\1", words)
    if not _PER_CENT.match(words) and (unit := parse_unit(words.replace("{", "").replace("}", ""))):
        return Measure(unit=unit)
    tokens = [token.strip(".,()") for token in words.split()]
    tokens = [token for token in tokens if token and token.lower() not in _NEUTRAL]
    if tokens and (scaled := _CHINESE_SCALE.match(tokens[0])):
        tokens[:1] = [part for part in (scaled.group(), tokens[0][scaled.end() :]) if part]
    factor, power = Fraction(1), 1
    while tokens and tokens[0].lower() in SCALES:
        factor *= SCALES[tokens.pop(0).lower()]
    if tokens and (under := denominator(tokens[0])):
        factor /= under
        tokens.pop(0)
    elif tokens and tokens[0] in _POWERS:
        power = _POWERS[tokens.pop(0)]
    lower = [token.lower() for token in tokens]
    if lower[:2] == ["per", "cent"] or lower[:1] in (["percent"], ["pct"], ["percentage"]):
        tokens = tokens[2 if lower[0] == "per" else 1 :]
        lower = [token.lower() for token in tokens]
        return None if CHANGING.intersection(lower) else Measure(factor, power, True)
    if not tokens:
        return Measure(factor, power)
    if unit := parse_unit(" ".join(tokens)):
        return Measure(factor, power, unit=unit)
    if (
        CHANGING.difference(("per",)).intersection(lower)
        or not all(len(token) > 1 or not token.isascii() for token in tokens)
        or not all(re.fullmatch(r"[^\W\d_]+(?:['-][^\W\d_]+)*", token) for token in tokens)
    ):
        return None
    if any(word in SCALES or denominator(word) or words_to_number(word) is not None for word in lower):
        return None
    copula = {"is", "are"}.intersection(lower)
    label = tuple(sorted(name for name in map(singular, tokens) if name not in _GENERAL and name not in ("is", "are")))
    if copula and label:
        return None
    return Measure(factor, power, label=label)
