r"""Which runs of letters in an answer are words: each is marked as a ``\text{word}`` of its own."""

from __future__ import annotations

import re

from .units import unit_named

_TEXT = re.compile(r"\\(?P<style>text|mathrm)\s*\{(?P<inside>[^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|\\(?:begin|end)\{[^{}]*\}")
_IN_TEXT = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*\.?|\\[a-z]+")
_RUN = re.compile(r"(?<![A-Za-z\\])(?<!_)(?<!_\{)[A-Za-z]+(?:['-][A-Za-z]{2,}|'s)*|[^\W\d_a-zA-Z\u2460-\u24ff]+")
_SHORT = re.compile(
    "yes|per|pct|or|and|the|all|for|not|are|any|one|two|six|ten|odd|if|am|pm|no"
    "|cm|mm|km|kg|mg|ml|ft|lb|mi|sq|hr|oz|mph|kJ|kW|kN|nm|mL|Hz|USD|EUR|GBP|RMB|CNY|INR|JPY|Rs|DNE|YES|NO|TRUE|NONE|FALSE"
)
_SOFT = re.compile("is|of|to|at|in|by|an|on|as|it|be|we|he")
"""Words that may as well be a product of two letters: words only beside other words, or after a number."""
_UNIT_AFTER_NUMBER = re.compile(r"(?<=[0-9}] )([mgshLNJWVAKFT])(?=\s*(?:\^\s*\{?[23]\}?\s*)?(?:/\s*[a-z]+\s*)?$)")
_AFTER_NUMBER = re.compile(r"[0-9]\s+$")
_UNIT_LIKE = re.compile(r"[A-Za-z]+(?:\s*(?:[/·^*]|\\cdot)?\s*(?:[A-Za-z]+|\^?\{?-?[1-4]\}?))+")
_PLAIN = re.compile(
    "(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|sqrt|cbrt|floor|ceil|exp|log|ln|lg|gcd|lcm|min|max|mod|arg|det|adj|rank|deg"
    "|dim|sgn|sign|Re|Im|abs|cis|choose|asin|acos|atan"
)
_LETTERS = frozenset("ied")  # never a unit


def mark_words(text: str) -> str:
    r"""`text` with each of its words, and nothing else, in a ``\text`` of its own."""
    if not any(map(str.isalpha, text)):
        return text
    marked, start = [], 0
    for match in _TEXT.finditer(text):
        marked += [_mark_runs(text[start : match.start()]), _mark_styled(match, text)]
        start = match.end()
    return "".join((*marked, _mark_runs(text[start:])))


def _mark_styled(match: re.Match[str], text: str) -> str:
    inside = match["inside"]
    if inside is None:
        return match.group()
    inside = inside.strip()
    before = text[: match.start()].rstrip()
    if _PLAIN.fullmatch(inside) and (match["style"] == "mathrm" or inside not in ("min", "deg", "max", "mod")):
        return f"\\mathrm{{{inside}}}"
    if len(inside) == 1 and inside.isalpha():
        after_value = before[-1:].isdigit() or before[-1:] in (")", "}")
        return f"\\text{{{inside}}}" if after_value and inside not in _LETTERS else f" {inside} "
    if before.endswith(("_", "_{")):
        return f"{{{inside}}}" if before.endswith("_") else inside
    is_unit = _UNIT_LIKE.fullmatch(inside) and before != "" and before[-1] in "0123456789)}"
    return _IN_TEXT.sub(lambda m: _mark_in_text(m.group(), bool(is_unit)), f" {inside} ")


def _mark_in_text(run: str, is_unit: bool) -> str:
    word = run.rstrip(".")
    bare = run[0] == "\\" or (not is_unit and (len(word) == 1 or (word.isupper() and not _SHORT.fullmatch(word))))
    return run if bare and word.isascii() else f" \\text{{{word}}} "


def _mark_runs(text: str) -> str:
    text = _UNIT_AFTER_NUMBER.sub(r"\\text{\1}", text)
    runs = list(_RUN.finditer(text))
    words = [_is_word(run.group(), run) for run in runs]
    marked, start = [], 0
    for run, is_word in zip(runs, words, strict=True):
        soft = _SOFT.fullmatch(run.group()) and (any(words) or _AFTER_NUMBER.search(text, 0, run.start()))
        if is_word or soft:
            marked += [text[start : run.start()], f" \\text{{{run.group()}}} "]
            start = run.end()
    return "".join((*marked, text[start:]))


def _is_word(run: str, match: re.Match[str]) -> bool:
    if match.string[match.start() - 6 : match.start()].endswith(("\\text{", "egin{", "\\end{")):
        return False
    if run.isupper() and len(run) == 2 and run != match.string.strip():
        return False  # NO in a fraction is a segment
    if not run.isascii() or _SHORT.fullmatch(run) or _SHORT.fullmatch(run.lower()):
        return True
    if _PLAIN.match(run) and (_PLAIN.fullmatch(run) or _PLAIN.fullmatch(run[:-1])):
        return False
    if run.isupper() and len(run) <= 6:
        return False
    return len(run) >= 4 or (len(run) == 3 and unit_named(run) is not None)
