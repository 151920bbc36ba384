r"""Language in an answer: units, choices, "no solution", "1 and 19", "x > 2 or x < 0".

All functions but `wordings` take text that `normalize` has spelled.
"""

from __future__ import annotations

import re

_TEXT = re.compile(r"\\(?:text|mathrm)\s*\{([^{}]*)\}")
_RUN = re.compile(r"(?<![A-Za-z\\{])(?<!_)[A-Za-z]+(?:['-][A-Za-z]+)*")
_SHORT = re.compile(
    "no|yes|is|or|and|the|all|for|of|to|at|in|by|an|on|as|it|be|not|are|any|one|two|odd"
    "|cm|mm|km|kg|mg|ml|ft|lb|mi|sq|hr|oz|mph"
)
_FUNCTIONS = frozenset(("lcm", "gcd", "mod", "arg", "det", "max", "adj", "rank", "deg", "dim", "sgn", "sign"))
_NOTHING = frozenset(
    ("no solution", "no real solution", "empty set", "the empty set", "none", "there is no solution", "no such value")
)
EMPTY = "\\emptyset"

_UNITS = {
    "cm": "cm centimeter centimetre", "mm": "mm millimeter millimetre", "km": "km kilometer kilometre",
    "m": "m meter metre", "in": "in inch inches", "ft": "ft foot feet", "mi": "mi mile", "yd": "yd yard",
    "kg": "kg kilogram", "g": "g gram", "mg": "mg milligram", "lb": "lb lbs pound", "oz": "oz ounce",
    "s": "s sec second", "min": "min minute", "h": "h hr hour", "day": "day", "week": "week", "month": "month",
    "year": "year yr", "l": "l L liter litre", "ml": "ml mL milliliter millilitre", "degree": "degree deg",
    "radian": "radian rad", "dollar": "dollar usd", "cent": "cent", "percent": "percent", "am": "am", "pm": "pm",
}  # fmt: skip
UNIT = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings.split()}

_CHOICE = re.compile(r"\(?([A-Ja-j])\)?(?:[.:)].*)?", re.DOTALL)
_OR = re.compile(r"\s*,?\s*(?<![A-Za-z])or(?![A-Za-z])\s*")
_AND = re.compile(r"\s*,?\s*(?<![A-Za-z])and(?![A-Za-z])\s*")
_ASIDE = re.compile(r"\s*(?:\((?:i\.e\.|that is|none|all|no )|,\s*i\.e\.).*$", re.DOTALL)
_EQUIVALENTLY = re.compile(r",?\s+or,?\s+(?:equivalently|approximately|an equivalent form such as),?\s+")
_CONCLUSION = re.compile(r"^.*\b(?:is|are|equals?|equal to|be)\s+(?=[^A-Za-z]|\\[a-z]|[A-Za-z]\b|[a-z]+\()", re.DOTALL)
_QUALIFIER = re.compile(
    r"\b(?:at (?:most|least)|(?:more|less|greater|fewer) than|always|never|not|except)\b", re.IGNORECASE
)


_VALUE_AND_WORDS = re.compile(
    r"(?P<value>.*?(?:[0-9!%})\]]|(?:(?<![A-Za-z\\])[a-zA-Z]|\\[a-z]+)(?![A-Za-z])))\s*"
    r"(?P<words>\(?(?:per |/)?[A-Za-z][A-Za-z .,'/-]*\)?)(?P<power>\s*\^?\s*\{?\s*[23]\s*\}?)?\s*",
    re.DOTALL,
)


def plain(text: str) -> str:
    r"""`text` with the content of ``\text{...}`` in its place, set off by spaces."""
    return " ".join(_TEXT.sub(lambda match: f" {match[1]} ", text).split())


def find_words(text: str) -> list[str]:
    r"""The words in `text`: the content of ``\text``, and runs of letters that cannot be a product of variables."""
    in_text = [word for inner in _TEXT.findall(text) for word in re.findall(r"[A-Za-z]+", inner)]
    outside = re.sub(r"\\begin\{[^{}]*\}|\\end\{[^{}]*\}", " ", _TEXT.sub(" ", text))
    return [word for word in [*in_text, *_RUN.findall(outside)] if _is_word(word, word in in_text)]


def _is_word(run: str, in_text: bool) -> bool:
    lower = run.lower()
    if lower in _FUNCTIONS:
        return False
    return in_text or bool(_SHORT.fullmatch(lower)) or (len(run) >= 3 and lower in UNIT) or len(run) >= 4


def sentence(text: str) -> str:
    """`text` in the form in which words are compared: lower case, no punctuation, no plural, one space."""
    words = [word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word for word in _tokens(text)]
    if len(words) > 1 and words[0] in ("a", "an", "the") and len(words[1]) > 2 and words[1].isalpha():
        words = words[1:]
    joined = " ".join(words)
    return EMPTY if joined in _NOTHING else joined


def _tokens(text: str) -> list[str]:
    lower = plain(text).lower()
    # Every other character stays, so that "at most 5" is not "at most 5!" or "-5".
    return [token for token in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", lower) if token not in ".,;:'\"`*"]


def choice(text: str) -> str | None:
    """The letter of "D", "(D)", "D." or "(D) 42"; None for anything else."""
    match = _CHOICE.fullmatch(plain(text))
    return match[1].upper() if match and (len(plain(text)) > 1 or match[1].isupper()) else None


def split_conjunction(text: str) -> tuple[list[str], str]:
    """The parts of an answer that "and" or "or" joins, and which of the two joins them ("" for a single part)."""
    text_plain = plain(text)
    for word, pattern in (("or", _OR), ("and", _AND)):
        parts = [part for part in pattern.split(text_plain) if part.strip()]
        if len(parts) > 1:
            return parts, word
    return [text], ""


def split_unit(text: str) -> tuple[str, str]:
    """`text` without the words after its value, and the unit that they name ("" for no unit or an unknown unit).

    ``5 \\text{ cm}^2`` is ``5`` and ``cm2``; so is "5 square centimeters". Text without such words is returned as is.
    """
    match = _VALUE_AND_WORDS.fullmatch(plain(text))
    if not match or not find_words(_as_text(match["words"], text)):
        return text, ""
    words = re.findall(r"[A-Za-z]+", match["words"])
    power = re.sub(r"[^23]", "", match["power"] or "")
    if words[0].lower() in ("square", "sq", "cubic", "cu"):
        power = "2" if words[0].lower() in ("square", "sq") else "3"
        words = words[1:]
    name = words[0] if words else ""
    known = UNIT.get(name) or UNIT.get(name.lower()) or UNIT.get(name.lower().rstrip("s")) or ""
    if not known and match["value"].strip() in ("a", "A"):
        return text, ""  # "a circle", "A wins"
    return match["value"].strip(), f"{known}{power}" if known and len(words) == 1 else ""


def _as_text(words: str, text: str) -> str:
    in_text = {word for inner in _TEXT.findall(text) for word in re.findall(r"[A-Za-z]+", inner)}
    return " ".join(f"\\text{{{word}}}" if word in in_text else word for word in re.findall(r"[A-Za-z]+", words))


def wordings(gold: str) -> list[str]:
    """The correct answers that a gold answer states, with and without the words around them.

    "C(10, 5), or equivalently 252" states two; "100 (i.e., all values)" and "The limit exists and is equal to 3" state
    the value alone and the whole sentence.
    """
    without = _ASIDE.sub("", gold).strip() or gold
    texts = [gold, *_EQUIVALENTLY.split(without)]
    for text in texts[1:]:
        value = _CONCLUSION.sub("", text)
        if value != text and not _QUALIFIER.search(text):
            texts.append(value)
    return list(dict.fromkeys(text for text in texts if text.strip()))
