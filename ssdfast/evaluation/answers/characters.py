r"""Unicode characters as LaTeX and ASCII spell them: ``½``, ``x₂``, ``⩾``, ``５``, ``𝑥``, ``π``, ``，``.

What a character stands for is read off Python's `unicodedata` (the decomposition of fractions, raised, lowered, wide
and styled characters, and the names of Greek letters). Only signs that have no decomposition are listed here.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": "\\times ", "⋅": "\\cdot ", "·": "\\cdot ", "∙": "\\cdot ",
    "•": "\\cdot ", "∗": "*", "÷": "/", "∕": "/", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ",
    "⩾": "\\ge ", "≦": "\\le ", "≧": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ",
    "∉": "\\notin ", "±": "\\pm ", "∓": "\\mp ", "°": "^\\circ ", "º": "^\\circ ", "˚": "^\\circ ", "′": "'",
    "″": "''", "∅": "\\emptyset ", "ø": "\\emptyset ", "Ø": "\\emptyset ", "≈": "\\approx ", "≅": "\\cong ",
    "≡": "\\equiv ", "∼": "\\sim ", "～": "\\sim ", "∖": "\\setminus ", "⟨": "\\langle ", "⟩": "\\rangle ",
    "〈": "\\langle ", "〉": "\\rangle ", "∠": "\\angle ", "△": "\\triangle ", "⊂": "\\subset ", "⊆": "\\subseteq ",
    "⊥": "\\perp ", "∥": "\\parallel ", "→": "\\to ", "↔": "\\leftrightarrow ", "⌊": "\\lfloor ", "⌋": "\\rfloor ",
    "⌈": "\\lceil ", "⌉": "\\rceil ", "∣": "|", "√": "\\surd ", "∛": "\\cbrt ", "∑": "\\sum ", "∏": "\\prod ",
    "∫": "\\int ", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "\\ldots ", "⋯": "\\ldots ", "。": ".", "、": ",",
    "【": "[", "】": "]", "「": "", "」": "", "《": "", "》": "", "€": "\\euro ", "£": "\\pounds ", "¥": "\\yen ",
    "￥": "\\yen ", "¢": "\\cent ", "$": "$", "\u200b": "", "\ufeff": "", "\u2061": "", "\u2062": "", "¬": "\\neg ",
    "∧": "\\land ", "∨": "\\lor ", "⁄": "/", "ℤ": "\\mathbb{Z}",
}  # fmt: skip
_FRACTION = re.compile("([0-9]+)⁄([0-9]+)")
GREEK_LETTERS = frozenset(
    (
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
        "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta",
        "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
    )
)  # fmt: skip
"""as LaTeX spells them; other capitals are Latin letters"""
_SPELLING = {"LAMDA": "lambda", "FINAL SIGMA": "sigma", "THETA SYMBOL": "theta", "PHI SYMBOL": "phi"}


def to_latex(text: str) -> str:
    """`text` with every character that has a spelling in LaTeX or ASCII in that spelling."""
    if text.isascii():
        return text
    spelled = []
    for kind, run in groupby(text, _kind):
        if kind:
            inside = "".join(unicodedata.normalize("NFKC", character) for character in run).replace("−", "-")
            spelled.append(f"{kind}{{{inside}}}")
        else:
            spelled += map(_spell, run)
    return _FRACTION.sub(r"\\frac{\1}{\2}", "".join(spelled))


def _kind(character: str) -> str:
    """ "^" for a raised character, "_" for a lowered one."""
    if character in _SIGNS:
        return ""
    form = unicodedata.decomposition(character).partition(" ")[0]
    return {"<super>": "^", "<sub>": "_"}.get(form, "")


@lru_cache(maxsize=4096)
def _spell(character: str) -> str:
    if character.isascii() or character == "⁄":
        return character
    if (sign := _SIGNS.get(character)) is not None:
        return sign
    form = unicodedata.decomposition(character).partition(" ")[0]
    if form == "<fraction>":
        over, _, under = unicodedata.normalize("NFKC", character).partition("⁄")
        return f" \\frac{{{over}}}{{{under}}}"
    name = unicodedata.name(character, "")
    if "DOUBLE-STRUCK CAPITAL" in name:
        return f"\\mathbb{{{unicodedata.normalize('NFKC', character)}}}"
    if form == "<circle>":
        return character
    if form:
        plain = unicodedata.normalize("NFKC", character)
        return plain if len(plain) != 1 or plain == character else _spell(plain)
    return _greek(name) or character


def _greek(name: str) -> str:
    size, _, letter = name.removeprefix("GREEK ").partition(" LETTER ")
    if not name.startswith("GREEK ") or size not in ("SMALL", "CAPITAL"):
        return f"\\{_SPELLING[name[6:]]} " if name[6:] in _SPELLING else ""
    letter = _SPELLING.get(letter, letter.lower())
    letter = letter.capitalize() if size == "CAPITAL" else letter
    return f"\\{letter} " if letter in GREEK_LETTERS else ""
