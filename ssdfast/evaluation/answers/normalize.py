r"""One spelling for the many ways to write an answer, before it is parsed: ``\dfrac``, ``$``, ``½``, ``10{,}000``, …

Only spelling is changed here, never a value. Text in, text out; nothing is evaluated. Each word comes out as a
``\text{word}`` of its own, whether the answer had it in ``\text`` or not.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .characters import to_latex
from .marks import mark_words

_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge",
    "neq": "ne", "lt": "<", "gt": ">", "varnothing": "emptyset", "degree": "^\\circ ", "mid": "|", "vert": "|",
    "lvert": "|", "rvert": "|", "Vert": "|", "lVert": "|", "rVert": "|", "lbrace": "\\{", "rbrace": "\\}",
    "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "colon": ":", "dots": "ldots", "cdots": "ldots",
    "R": "\\mathbb{R}", "Z": "\\mathbb{Z}", "N": "\\mathbb{N}", "Q": "\\mathbb{Q}", "land": "\\text{and}",
    "wedge": "\\text{and}", "lor": "\\text{or}", "vee": "\\text{or}", "mathbf": "mathrm", "boldsymbol": "mathrm",
    "operatorname": "mathrm", "mathit": "mathrm", "mathsf": "mathrm", "bm": "mathrm", "rm": "mathrm", "infin": "infty",
    "textbf": "text", "textit": "text", "textrm": "text", "mbox": "text", "textnormal": "text", "hbox": "text",
    "textsf": "text", "texttt": "text", "ast": "*", "dbinom": "binom", "tbinom": "binom", "divide": "/",
    "div": "/", "times": "\\cdot ", "backslash": "\\setminus ", "sim": "\\approx ", "simeq": "\\approx ",
    "doteq": "\\approx ", "thickapprox": "\\approx ", "lcm": "\\mathrm{lcm}", "iff": "\\Leftrightarrow ",
    "pounds": "\\pound ",
    "prime": "'", "textdegree": "^\\circ ", "textdollar": "\\dollar ", "mathbbm": "mathbb", "varphi": "phi",
}  # fmt: skip
_DROPPED = re.compile(
    "left|right|middle|[bB]igg?[lr]?|displaystyle|textstyle|limits|nolimits|hfill|mathstrut|strut|implies|cancel"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)(\*(?=\{))?")
_SPACING = re.compile(r"(?<!\\)\\[ ;:>,]|~|\\q?quad|\\hspace\{[^{}]*\}|\\phantom\{[^{}]*\}")
_QUANTITY = re.compile(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|\\num\s*\{([^{}]*)\}")
_MATH_MARKS = re.compile(r"(?<!\\)\\[()\[\]]|(?<!\\)\$|\*\*")
_TEMPERATURE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*(?:\\(?:text|mathrm)\s*\{\s*([CF])\s*\}|([CF])(?![A-Za-z]))")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|\\!,|,\\!\s*|\\,|\\ |\\;|')(?=[0-9]{3}(?![0-9]))")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z0-9.])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]{1,6})(?![A-Za-z0-9.])")
_REPEATING = re.compile(
    r"(?<![0-9.])(?P<whole>[0-9]*)\.(?P<fixed>[0-9]*)(?:\\(?:overline|bar|dot)\s*(?:\{(?P<a>[0-9]+)\}|(?P<b>[0-9]))"
    r"(?:(?P<middle>[0-9]*)\\dot\s*\{?(?P<last>[0-9])\}?)?|\((?P<c>[0-9]+)\)(?![0-9]))"
    r"|(?<![0-9.])(?P<whole2>[0-9]*)\.(?P<fixed2>[0-9]{0,20}?)(?:(?P<d>[0-9])(?P=d){2,20}|(?P<e>[0-9]{2,9}?)(?P=e){1,9})(?:\.{3}|\\ldots)"
)
_MIXED = re.compile(
    r"(?<![0-9.,/^_{\\A-Za-z])(-?)\s*([0-9]+)\s*"
    r"(?:(?<=\s)([0-9]+)/([0-9]+)|\\frac\s*(?:\{([0-9]+)\}|([0-9]))\s*(?:\{([0-9]+)\}|([0-9])))(?![0-9^])"
)
_ORDINAL = re.compile(
    r"(?<=[0-9])\s*\^?\s*\{?\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?:st|nd|rd|th)\s*(?:\}\s*){0,2}(?![A-Za-z{}])"
)
_PLAIN_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:infty|infinity|inf|oo)(?![A-Za-z])", re.IGNORECASE)
_UNIT_FRACTION = re.compile(r"(?<=[0-9}])\s*\\frac\s*\{\s*(\\text\{[^{}]*\})\s*\}\s*\{\s*(\\text\{[^{}]*\}|[a-z])\s*\}")
_SPACES = re.compile(r"\s+")


def normalize(text: str) -> str:
    """`text` in one common spelling; two answers with the same spelling are the same answer."""
    if text.isdigit() and text.isascii():
        return text
    if "box" in text:
        text = re.sub(r"\\{1,2}(?:boxed|fbox|framebox)\s*(?=\{)", "", text)
    if "\\begin" not in text:  # where a doubled backslash is a row's end
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
    text = to_latex(text)
    text = _THOUSANDS.sub("", text)
    if "\\" in text:
        text = _QUANTITY.sub(lambda m: m[3] or f"{m[1]} \\text{{{m[2]}}}", text)
        text = text.replace("\\$", "\\dollar ")
    if "$" in text:
        text = re.sub(r"^\s*\$(?=\s*[0-9][^$]*$)", r"\\dollar ", text)
    text = re.sub(r"(?<=[0-9A-Za-z)])\*\*(?=[0-9A-Za-z(-])", "^", text)
    text = _MATH_MARKS.sub("", text)
    if "\\" in text:
        text = _SPACING.sub(" ", text).replace("\\!", "").replace("\\%", "%").replace("\\&", "&").replace("\\#", "#")
        text = _TEMPERATURE.sub(lambda m: f" \\text{{{'celsius' if 'C' in m.group() else 'fahrenheit'}}}", text)
        text = _COMMAND.sub(_command, text)
    text = text.replace("{:}", ":").replace("{,}", ",")
    text = _ORDINAL.sub("", text)
    text = text.replace(">=", "\\ge ").replace("<=", "\\le ").replace("!=", "\\ne ").replace("==", "=")
    text = _PLAIN_INFINITY.sub(r"\\infty ", text)
    text = _SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text)
    if "." in text:
        text = _REPEATING.sub(_repeating, text)
    text = _MIXED.sub(_mixed, text)
    text = mark_words(text)
    if "\\frac" in text:
        text = _UNIT_FRACTION.sub(r" \1/\2", text)
    text = _SPACES.sub(" ", text).strip()
    return _strip_ends(text)


def _command(match: re.Match[str]) -> str:
    name = match[1]
    if _DROPPED.fullmatch(name):
        return ""
    same = _SAME.get(name)
    if same is None:
        return f"\\{name}"
    return f"\\{same}" if same.isalpha() else same


def _repeating(match: re.Match[str]) -> str:
    whole, fixed = match["whole"] or match["whole2"] or "0", match["fixed"] or match["fixed2"] or ""
    period = match["a"] or match["b"] or match["c"] or match["d"] or match["e"]
    if match["last"]:
        period += match["middle"] + match["last"]
    if len(whole + fixed + period) > 100:
        return match.group()
    value = Fraction(int(whole + fixed + period) - int(whole + fixed), 10 ** len(fixed) * (10 ** len(period) - 1))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _mixed(match: re.Match[str]) -> str:
    sign, whole = match[1], match[2]
    over, under = match[3] or match[5] or match[6], match[4] or match[7] or match[8]
    if len(whole + over + under) > 300:
        return match.group()
    return f"{sign}\\frac{{{int(whole) * int(under) + int(over)}}}{{{under}}}"


def _strip_ends(text: str) -> str:
    """Without the punctuation that ends a sentence, and a brace pair around everything."""
    while text and (text[-1] in ".,;:" or text[0] in ":,;" or (text[0] == "=" and len(text) > 1)):
        text = text[:-1].rstrip() if text[-1] in ".,;:" else text[1:].lstrip()
    text = text.rstrip("\\ ") if text.endswith("\\\\") else text
    while (
        text.startswith("{") and closing(text, 0) == len(text) - 1 and "\\choose" not in text and "\\over" not in text
    ):
        text = text[1:-1].strip()
    return text


def closing(text: str, start: int) -> int:
    r"""Where the bracket at `start` closes, -1 if it does not. Brackets of any kind close each other: ``[0, 1)``."""
    depth = 0
    for index in range(start, len(text)):
        if text[index] in "([{":
            depth += 1
        elif text[index] in ")]}":
            depth -= 1
            if depth == 0:
                return index
    return -1


def split_top(text: str, separators: re.Pattern[str]) -> list[str]:
    """`text` split at the separators outside all brackets and environments."""
    depth, parts, start = 0, [], 0
    for match in re.finditer(
        rf"(?P<open>[(\[{{]|\\begin|\\langle)|(?P<close>[)\]}}]|\\end|\\rangle)|{separators.pattern}", text
    ):
        if match["open"]:
            depth += 1
        elif match["close"]:
            depth -= 1
        elif depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
    parts.append(text[start:])
    return [part.strip() for part in parts]
