r"""One spelling for the many ways to write the same answer, before it is parsed: ``\dfrac``, ``$``, ``\text``, ``½``, …

Only spelling is changed here, never a value. Text in, text out; nothing is evaluated.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .boxed import last_boxed

_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": "\\times ", "⋅": "\\cdot ", "·": "\\cdot ", "∙": "\\cdot ", "÷": "/", "∕": "/",
    "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ",
    "±": "\\pm ", "∓": "\\mp ", "°": "^\\circ ", "∅": "\\emptyset ", "ø": "\\emptyset ", "θ": "\\theta ",
    "α": "\\alpha ", "β": "\\beta ", "λ": "\\lambda ", "φ": "\\phi ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}",
    "≈": "\\approx ", "∖": "\\setminus ", "⟨": "\\langle ", "⟩": "\\rangle ", "’": "'", "“": '"', "”": '"',
    "…": "\\ldots ",
    "½": " \\frac{1}{2}", "⅓": " \\frac{1}{3}", "⅔": " \\frac{2}{3}", "¼": " \\frac{1}{4}", "¾": " \\frac{3}{4}",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "％": "%", "，": ",", "（": "(", "）": ")",
}  # fmt: skip
_SYMBOL = re.compile("|".join(map(re.escape, _SYMBOLS)))
_RAISED = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_RAISED_DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\w+))")

_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge",
    "neq": "ne", "lt": "<", "gt": ">", "varnothing": "emptyset", "degree": "^\\circ ", "mid": "|", "vert": "|",
    "lvert": "|",
    "rvert": "|", "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "colon": ":", "dots": "ldots", "cdots": "ldots", "R": "\\mathbb{R}", "Z": "\\mathbb{Z}", "land": "\\text{and}",
    "wedge": "\\text{and}", "lor": "\\text{or}", "vee": "\\text{or}", "mathbf": "mathrm", "boldsymbol": "mathrm",
    "operatorname": "mathrm", "mathit": "mathrm", "mathsf": "mathrm", "bm": "mathrm", "rm": "mathrm", "infin": "infty",
    "textbf": "text", "textit": "text", "textrm": "text", "mbox": "text", "textnormal": "text", "hbox": "text",
    "ast": "\\cdot ", "approx": "\\approx ", "implies": "", "dbinom": "binom", "tbinom": "binom",
    "lcm": "\\mathrm{lcm}", "divide": "/", "div": "/", "times": "\\cdot ", "backslash": "\\setminus ",
}  # fmt: skip
_DROPPED = re.compile(
    "left|right|middle|[bB]igg?[lr]?|displaystyle|textstyle|limits|nolimits|quad|qquad|hfill|mathstrut|strut"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SPACING = re.compile(r"(?<!\\)\\[ ;:>]|~|\\hspace\{[^{}]*\}|\\phantom\{[^{}]*\}")
_MATH_MARKS = re.compile(r"(?<!\\)\\[()\[\]]|(?<!\\)\$|\\\$|\*\*|[€£¥]")
_TEXT_NUMBER = re.compile(
    r"\\(?:text|mathrm)\s*\{\s*([-+0-9.,/]+)\s*\}|(?<![0-9)}] )(?<![0-9)}])\\(?:text|mathrm)\s*\{([A-Za-z])\}"
)
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|\\!,|,\\!|\\,|\\ |\\;)(?=[0-9]{3}(?![0-9]))")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z0-9.])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]{1,6})(?![A-Za-z0-9.])")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar)\s*(?:\{([0-9]+)\}|([0-9]))")
_MIXED = re.compile(
    r"(?<![0-9.,/^_{\\A-Za-z])(-?)\s*([0-9]+)\s*"
    r"(?:(?<=\s)([0-9]+)/([0-9]+)|\\frac\s*(?:\{([0-9]+)\}|([0-9]))\s*(?:\{([0-9]+)\}|([0-9])))(?![0-9^])"
)
_AM_PM = re.compile(
    r"(?<=[0-9])\s*(?:\\text\s*\{\s*([APap])\.?\s*[Mm]\.?\s*\}|(?<=:[0-9]{2})\s*([APap])\.?\s*[Mm](?![A-Za-z])\.?)"
)
_COMBINATIONS = re.compile(r"(?<![A-Za-z\\])C\(([^(),]+),([^(),]+)\)")
_PLAIN = re.compile(r"(?<![A-Za-z\\])(sqrt|floor|ceil|sum_|prod_)\(")
_PLAIN_SPELLING = {
    "sqrt": ("\\sqrt{", "}"),
    "floor": ("{\\lfloor ", "\\rfloor }"),
    "ceil": ("{\\lceil ", "\\rceil }"),
    "sum_": ("\\sum_{", "}"),
    "prod_": ("\\prod_{", "}"),
}
_PLAIN_COMMANDS = re.compile(
    r"(?<![A-Za-z\\])(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|pi|infty|infinity|inf|oo)(?![A-Za-z])"
)
_INFINITY = frozenset(("infty", "infinity", "inf", "oo"))
_SPACES = re.compile(r"\s+")


def normalize(text: str) -> str:
    """`text` in one common spelling; two answers with the same spelling are the same answer."""
    if "boxed" in text or "fbox" in text:
        text = last_boxed(text) or text
    if "\\begin" not in text:  # where a doubled backslash is a row's end
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
    text = _SYMBOL.sub(lambda match: _SYMBOLS[match.group()], text)
    text = _RAISED.sub(lambda match: f"^{{{match.group().translate(_RAISED_DIGITS)}}}", text)
    text = _ROOT.sub(lambda match: f"\\sqrt{{{match[1] or match[2]}}}", text)
    text = _THOUSANDS.sub("", text)
    text = re.sub(r"(?<=[0-9A-Za-z)])\*\*(?=[0-9A-Za-z(-])", "^", text)
    text = _MATH_MARKS.sub("", text)
    text = (
        re.sub(r"(?<!\\)\\[,!]", "", _SPACING.sub(" ", text))
        .replace("\\%", "%")
        .replace("\\&", "&")
        .replace("\\#", "#")
    )
    text = _COMMAND.sub(_command, text)
    text = text.replace("{:}", ":")
    text = _AM_PM.sub(lambda match: f" \\text{{{(match[1] or match[2]).lower()}m}}", text)
    text = _TEXT_NUMBER.sub(lambda match: f" {match[1] or match[2]} ", text)
    text = text.replace(">=", "\\ge ").replace("<=", "\\le ").replace("!=", "\\ne ").replace("==", "=")
    text = _plain_functions(text)
    text = _SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text)
    text = _REPEATING.sub(_repeating, text)
    text = _MIXED.sub(_mixed, text)
    text = _SPACES.sub(" ", text).strip()
    return _strip_ends(text)


def _command(match: re.Match[str]) -> str:
    name = match[1]
    if _DROPPED.fullmatch(name):
        return ""
    same = _SAME.get(name)
    if same is None:
        return match.group()
    return f"\\{same}" if same.isalpha() else same


def _plain_functions(text: str) -> str:
    r"""``sqrt(2)``, ``C(n, 2)``, ``floor(n/2)``, ``sin x``, ``pi`` as LaTeX writes them."""
    text = _COMBINATIONS.sub(r"\\binom{\1}{\2}", text)
    text = _PLAIN_COMMANDS.sub(lambda match: "\\infty " if match[1] in _INFINITY else f"\\{match[1]} ", text)
    for _ in range(20):
        match = _PLAIN.search(text)
        end = closing(text, match.end() - 1) if match else -1
        if match is None or end < 0:
            break
        before, after = _PLAIN_SPELLING[match[1]]
        text = f"{text[: match.start()]}{before}{text[match.end() : end]}{after}{text[end + 1 :]}"
    for _ in range(20):
        start = text.find("^(")
        end = closing(text, start + 1) if start >= 0 else -1
        if end < 0:
            break
        text = f"{text[:start]}^{{{text[start + 2 : end]}}}{text[end + 1 :]}"
    return text


def _repeating(match: re.Match[str]) -> str:
    whole, fixed, period = match[1] or "0", match[2], match[3] or match[4]
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
    while text and (text[-1] in ".,;:" or text[0] in ":,;"):
        text = text[:-1].rstrip() if text[-1] in ".,;:" else text[1:].lstrip()
    while text.startswith("{") and closing(text, 0) == len(text) - 1:
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
