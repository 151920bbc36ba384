"""Numbers in words, English and Chinese: "twenty-five", "three fourths", "2 million", "百分之二十".

word2number was the library to take and does not fit: it reads "two three" as 2, skips every word that it does not know,
and has no fractions. text2num is compiled code.
"""

from __future__ import annotations

import re
from fractions import Fraction

_SMALL = {
    word: number
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
_TENS = {
    word: 10 * n
    for n, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "万": 10**4, "亿": 10**8, "百万": 10**6,
}  # fmt: skip
_ORDINAL_STEMS = {
    "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10, "eleventh": 11,
    "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15, "sixteenth": 16, "twentieth": 20,
    "thirtieth": 30, "hundredth": 100, "thousandth": 1000, "millionth": 10**6,
}  # fmt: skip
PARTS = {"half": 2, "halve": 2, "quarter": 4, **_ORDINAL_STEMS}
"""The words of a denominator, in the singular."""
_ORDINALS = {"first": 1, "second": 2, **_ORDINAL_STEMS}

_CHINESE_DIGITS = {character: n for n, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_CHINESE_SCALES = {"十": 10, "百": 100, "千": 1000}
_CHINESE = "零〇一二两三四五六七八九十百千万亿"
_CHINESE_NUMBER = re.compile(f"负?[{_CHINESE}]+(?:点[{_CHINESE}]+)?")
_CHINESE_FRACTION = re.compile(f"([{_CHINESE}]+)分之([{_CHINESE}]+)")


def denominator(word: str) -> int:
    """What "thirds" divides by, 0 for a word that is no denominator."""
    lower = word.lower()
    return PARTS.get(lower, 0) or PARTS.get(lower.removesuffix("s"), 0)


def words_to_number(text: str) -> Fraction | None:
    """The number that `text` spells out and nothing besides; None for anything else."""
    words = re.findall(r"[a-z]+|[^\sa-z-]", text.lower())
    if not words:
        return None
    if words[0] in ("negative", "minus") and len(words) > 1:
        value = words_to_number(" ".join(words[1:]))
        return None if value is None else -value
    if len(words) == 1 and words[0] in _ORDINALS:
        return Fraction(_ORDINALS[words[0]])
    if words == ["half"]:
        return Fraction(1, 2)
    if len(words) > 1 and (under := denominator(words[-1])):
        return _fraction(words[:-1], under)
    return _cardinal(words)


def _fraction(words: list[str], under: int) -> Fraction | None:
    """ "three fourths", "one half", "a third", "two and a half"."""
    if "and" in words:
        place = len(words) - 1 - words[::-1].index("and")
        whole, over = _cardinal(words[:place]), _cardinal(words[place + 1 :])
        return None if whole is None or over is None or over >= under else whole + over / under
    over = _cardinal(words)
    return None if over is None else over / under


def _cardinal(words: list[str]) -> Fraction | None:
    if words in (["a"], ["an"]):
        return Fraction(1)
    total = group = 0
    last = ""  # the kind of the word before
    for place, word in enumerate(words):
        if word in _SMALL and last not in ("small", "zero") and not (last == "tens" and not 0 < _SMALL[word] < 10):
            group, last = group + _SMALL[word], "small"
        elif word in _TENS and last not in ("small", "tens"):
            group, last = group + _TENS[word], "tens"
        elif word == "hundred" and last in ("small", "article"):
            group, last = 100 * max(group, 1), "scale"
        elif word in SCALES and word != "hundred" and last:
            total, group, last = total + max(group, 1) * SCALES[word], 0, "scale"
        elif word == "and" and last == "scale" and place + 1 < len(words):
            continue
        elif word in ("a", "an") and place == 0:
            last = "article"
        else:
            return None
    return Fraction(total + group) if last not in ("", "article") else None


def chinese_number(text: str) -> tuple[Fraction, bool] | None:
    """The number that Chinese numerals spell out, and whether it counts percents."""
    percent = text.startswith("百分之")
    body = text.removeprefix("百分之")
    if match := _CHINESE_FRACTION.fullmatch(body):
        under, over = _chinese_whole(match[1]), _chinese_whole(match[2])
        return (Fraction(over, under), percent) if under else None
    if not _CHINESE_NUMBER.fullmatch(body):
        return None
    whole, _, places = body.removeprefix("负").partition("点")
    value = Fraction(_chinese_whole(whole))
    for place, digit in enumerate(places, 1):
        value += Fraction(_CHINESE_DIGITS.get(digit, 0), 10**place)
    return (-value if body.startswith("负") else value), percent


def _chinese_whole(text: str) -> int:
    if all(character in _CHINESE_DIGITS for character in text):
        return int("".join(str(_CHINESE_DIGITS[character]) for character in text))
    total = section = digit = 0
    for character in text:
        if character in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[character]
        elif character in _CHINESE_SCALES:
            section += (digit or 1) * _CHINESE_SCALES[character]
            digit = 0
        else:
            total = (total + section + digit) * SCALES[character]
            section = digit = 0
    return total + section + digit
