r"""Language in an answer: choices, "no solution", "1 and 19", "the series converges".

The text is as `normalize` spells it.
"""

from __future__ import annotations

import calendar
import re

from .conventions import DEFAULT, Conventions
from .normalize import split_top

MARKED = re.compile(r"\\text\s*\{([^{}]*)\}")
EMPTY = "\\emptyset"
NONE, UNDEFINED, DNE = "no solution", "does not exist", "dne"
_NOTHING = re.compile(
    r"(?:(?:there (?:is|are|exists?) )?no(?: (?:such|real|valid))*"
    r" (?:solutions?|values?|roots?|numbers?|answers?|triples?|pairs?|integers?|functions?)"
    r"(?: exists?)?|none|(?:the )?empty set|null set|\\emptyset|no one|nothing|impossible)(?: \w)?"
)
_NOWHERE = re.compile(
    r"(?:(?:the )?(?:limit|value|it|integral) )?(?:does not exist|is undefined|undefined|not defined|doesn't exist)"
)
_STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "are",
        "be",
        "it",
        "its",
        "that",
        "there",
        "this",
        "of",
        "will",
        "was",
        "does",
        "do",
        "true",
        "for",
        "in",
        "to",
        "by",
        "on",
        "at",
        "has",
        "have",
    ]
)
_GENERIC = frozenset(
    [
        "triangle",
        "series",
        "sequence",
        "function",
        "number",
        "equation",
        "curve",
        "shape",
        "graph",
        "figure",
        "type",
        "answer",
        "option",
        "choice",
        "statement",
        "day",
        "month",
        "system",
        "set",
        "case",
    ]
)
CHANGING = frozenset((
    "at", "most", "least", "less", "more", "than", "fewer", "greater", "not", "no", "none", "except", "incorrect",
    "wrong", "plus", "minus", "negative", "below", "above", "under", "over", "up", "to", "or", "nearly", "almost",
    "if", "when", "where", "unless", "but", "false", "untrue", "per", "and", "n't", "modulo", "mod", "factorial",
    "reciprocal", "inverse", "score", "gross", "base", "remainder",
))  # fmt: skip
"""Words that change what is said of a value: "at most 5", "less than x"."""
_NEGATIONS = frozenset(
    ["no", "not", "never", "neither", "nor", "non", "without", "cannot", "false", "isn't", "doesn't", "don't"]
)
_CALENDAR = {
    name[:length].lower(): name.lower()
    for names in (calendar.day_name, calendar.month_name)
    for name in names
    for length in (3, 4)
    if len(name) > length
} | {"thurs": "thursday"}
_ENDINGS = ("ences", "ence", "ents", "ent", "ings", "ing", "ed", "es", "s", "e")
_CHOICE = re.compile(
    r"\(\s*(?P<bracketed>[A-Ja-j])\s*\)(?:[.:]?\s+(?!(?:or|and)\b)[^,;+!^=-].*)?|(?P<bare>[A-Ja-j])\)?"
    r"|(?P<headed>[A-J])\s*[.:)](?:\s+(?!.*(?:\bor\b|\band\b|[A-J]\))).*)?",
    re.DOTALL,
)
_NAMED_A = re.compile(r"(?<=\w )A(?!\w)|^A \w+s\b")
_STATED = re.compile(
    r"(?:option |choice |answer |statement )?\(?(?P<stated>[A-J])\)?(?: is (?:true|correct|right|the answer))"
    r"|(?:option|choice|answer)\s*:?\s*\(?(?P<named>[A-J])\)?",
    re.IGNORECASE,
)
_CIRCLED = re.compile(r"[\u2460-\u2473]+")
_ASIDE = re.compile(r"\s*(?:\((?:i\.e\.|that is|none|all|no )|,\s*i\.e\.).*$", re.DOTALL)
_EQUIVALENTLY = re.compile(r",?\s+or,?\s+(?:equivalently|approximately|an equivalent form such as),?\s+")
_CONCLUSION = re.compile(r"^.*\b(?:is|are|equals?|equal to|be)\s+(?=[^A-Za-z]|\\[a-z]|[A-Za-z]\b|[a-z]+\()", re.DOTALL)
_QUALIFIER = re.compile(
    r"\b(?:at (?:most|least)|(?:more|less|greater|fewer) than|always|never|not|except)\b", re.IGNORECASE
)
_OR = re.compile(r"\s*,?\s*\\text\{(?:or|或|或者)\}\s*,?\s*", re.IGNORECASE)
_AND = re.compile(r"\s*,?\s*\\text\{(?:and|和|与|且|及)\}\s*,?\s*", re.IGNORECASE)


def plain(text: str) -> str:
    r"""`text` with its words unmarked and set off by single spaces."""
    return " ".join(MARKED.sub(r" \1 ", text).split())


def sentence(text: str, conventions: Conventions = DEFAULT) -> str:
    """The content of a sentence, in the form in which two are compared.

    Articles, "is" and general nouns ("triangle", "series") are left out unless nothing else is there, and endings are
    cut ("converges" and "convergent" are the same). The order of two words does not count ("odd x"), that of more does.
    """
    words = plain(text).replace(" .", ".")
    lower = words.lower().rstrip(".")
    if _NOTHING.fullmatch(lower):
        return NONE
    if lower == DNE:
        return DNE
    if _NOWHERE.fullmatch(lower):
        return UNDEFINED
    tokens = re.findall(r"[^\W_]+(?:'[a-z]+)?|[^\s\w]|_", lower if conventions.ignore_case else words)
    tokens = [token for token in tokens if token not in ".,;:'\"`*$"]
    if _NAMED_A.search(words):
        tokens = ["A" if token == "a" else token for token in tokens]  # "A wins", "team A"
    long = [token for token in tokens if token not in _STOP]
    content = [token for token in long if token not in _GENERIC] or long or tokens
    letters = [_stem(token) for token in content]
    numeric = any(not token.isalpha() for token in letters)
    return " ".join(letters if numeric or len(letters) > 2 else sorted(letters))


def same_sentence(gold: str, answer: str) -> bool:
    """Whether two sentences, as `sentence` gives them, say the same. "DNE" is both "no solution" and "undefined"."""
    return gold == answer or (DNE in (gold, answer) and {gold, answer} <= {NONE, UNDEFINED, DNE})


def _stem(word: str) -> str:
    word = _CALENDAR.get(word, word)
    if word in _NEGATIONS or not word.isalpha():
        return word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending)
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word


def choice(text: str, conventions: Conventions = DEFAULT) -> str | None:
    """The letter of "D", "(D)", "D." or "(D) 42", "A is true"; None for anything else."""
    words = plain(text)
    match = _CHOICE.fullmatch(words) or _STATED.fullmatch(words)
    if not match or (len(words) == 1 and not words.isupper()):
        return None
    letter = next(group for group in match.groups() if group)
    return letter.upper() if conventions.ignore_case else letter


def choices(text: str, conventions: Conventions = DEFAULT) -> frozenset[str] | None:
    """The letters of "A, C", "A and C", "ACD", or the circled numbers of "①③"; None for anything else."""
    bare = re.sub(r"[\s,;()]|\\text\{(?:and|和|与)\}", "", text)
    bare = MARKED.sub(r"\1", bare)
    if _CIRCLED.fullmatch(bare):
        return frozenset(bare)
    if not re.fullmatch(r"[A-J]{2,10}", bare) or len(set(bare)) < len(bare):
        return None
    return frozenset(bare)


def split_conjunction(text: str) -> tuple[list[str], str]:
    """The parts of an answer that "and" or "or" joins, and which of the two joins them ("" for a single part)."""
    for word, pattern in (("or", _OR), ("and", _AND)):
        parts = [part for part in split_top(text, pattern) if part.strip()]
        if len(parts) > 1:
            return parts, word
    return [text], ""


def wordings(gold: str) -> list[str]:
    """The correct answers that a gold answer states, with and without the words around them.

    "C(10, 5), or equivalently 252" states two; "100 (i.e., all values)" and "The limit exists and is equal to 3" state
    the value alone and the whole sentence.
    """
    if gold.isascii() and not any(map(str.isalpha, gold)):
        return [gold]
    without = _ASIDE.sub("", gold).strip() or gold
    texts = [gold, *_EQUIVALENTLY.split(without)]
    for text in texts[1:]:
        value = _CONCLUSION.sub("", text)
        if value != text and not _QUALIFIER.search(text):
            texts.append(value)
    return list(dict.fromkeys(text for text in texts if text.strip()))
