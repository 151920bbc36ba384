"""Every vocabulary entry's class, from its text alone: what kind of token the mass moves to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import TokenClassConfig

# The first rule that matches all of a text without the spaces around it names the class. "Let" of "Let's check"
# declares: a token is at most one word.
_RULES = {
    "digits": r"\d+",
    # A sign, or a relation of several. "**", "--" and "====" are emphasis, dashes and rules far more often.
    "operators": r"[+\-*/=<>^%×÷·±∓−∘∗√∑∏∫∂∇∞≠≈≤≥∈∉∋⊂⊃⊆⊇∪∩∧∨¬→←↔↦⇒⇐⇔≡∼≅∝∥⊥∀∃]|[<>=!:]=|<=>|<->|<-|=?=>|->",
    # Commands by name: what else follows a backslash in a vocabulary is namespaces, paths and escapes. A few words of
    # LaTeX alone also without it, for tokenizers that part the two.
    "latex": r"[\[({})\]=+\-,^_|&]{0,2}\\(?:[\\()\[\]{}|,;:!%&_]?|(?:"
    r"[dt]?frac|[dt]?binom|sqrt|sum|prod|int|lim|log|ln|exp|sin|cos|tan|max|min|gcd|[cl]?dots?|times|div|pmod|mod|bmod|"
    r"pm|leq?|geq?|neq?|approx|equiv|sim|cong|to|mapsto|implies|iff|infty|in|notin|sub(?:set|seteq)|cup|cap|"
    r"forall|exists|partial|nabla|angle|triangle|circ|perp|parallel|"
    r"math(?:bb|bf|cal|frak|rm|it|sf)|text(?:bf|it|rm)?|operatorname|overline|underline|vec|hat|bar|left|right|begin|"
    r"end|quad|qquad|[Ll]eftarrow|[Rr]ightarrow|[Ll]eftrightarrow|alpha|beta|[Gg]amma|[Dd]elta|(?:var)?epsilon|zeta|"
    r"eta|(?:var)?[Tt]heta|kappa|[Ll]ambda|mu|nu|xi|pi|rho|[Ss]igma|tau|(?:var)?[Pp]hi|chi|[Pp]si|[Oo]mega)[({\[]?)"
    r"|[\[({]?\$\$?|[)}\]]{0,2}\$\$?[.,;:]?|\$\$?\\"
    r"|(?:[dt]?frac|[dt]?binom|sqrt|[cl]dots?|math(?:bb|bf|cal|frak|rm|sf)|infty|operatorname|pmod)\{?",
    "whitespace": r"\s+",
    "self_correction": r"(?i:wait|but|hmm+|actually|however|alternatively|let['’]s check)[,.!…]*",
    "declaration": r"(?i:let|suppose|supposing|assume|assuming|define|denote|consider|given|set|introduce)[,:]?",
    "conclusion": r"(?i:so|thus|therefore|hence|consequently|answer|final|result|finally|conclude|conclusion)[,:]?",
    "boxed": r"\\?boxed\{?",
    "think_open": r"<think>",
    "think_close": r"</think>",
}
BUILT_IN = ("other", *_RULES, "end_of_text")
MOST_CLASSES = 255

# What ends a text or a turn in Qwen, SmolLM2, Llama-3 and Gemma-3, beside what the tokenizer itself calls its end. Not
# "</s>": a vocabulary with HTML in it has that as a tag.
_ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>")


@dataclass(frozen=True, eq=False)
class TokenClasses:
    """The class of each vocabulary entry."""

    of_token: Tensor
    """uint8 [V], an index into `names`"""
    names: tuple[str, ...]

    def ids(self, *names: str) -> list[int]:
        """The entries of these classes, by id."""
        wanted = torch.tensor([self.names.index(name) for name in names], dtype=torch.uint8)
        return torch.isin(self.of_token, wanted).nonzero().flatten().tolist()


def texts(tokenizer: Any, vocabulary: int) -> list[str]:
    """What each of `vocabulary` ids adds to a text that it continues; empty for rows of lm_head that no token names.

    A token that is part of a character is "�". Those apart, the texts of a sequence make up the text of the sequence.
    """
    entries = tokenizer.get_vocab()
    ids = sorted(i for i in entries.values() if i < vocabulary)
    # Many tokenizers drop the space before a text's first token, so a plain word goes first and is taken off again.
    plain = min((i for token, i in entries.items() if token.isascii() and token.isalnum()), default=None)
    before = [] if plain is None else [plain]
    prefix, *decoded = tokenizer.batch_decode(
        [before, *([*before, i] for i in ids)], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    found = [""] * vocabulary
    for token_id, text in zip(ids, decoded, strict=True):
        found[token_id] = text.removeprefix(prefix)
    return found


def classify(tokenizer: Any, of_token: Sequence[str], custom: Mapping[str, TokenClassConfig]) -> TokenClasses:
    """The class of each entry of a vocabulary whose `texts` are given.

    custom: classes that are tried before the built-in ones, in their order. One with the name of a built-in class takes
    its place, a new name comes after the built-in ones. Words and patterns must match all of a text without the spaces
    around it, or a text of nothing else as it is. What fits nowhere, and rows that no token names, are `other`.
    Raises ValueError that names the class: for one without words or a pattern, for a pattern that is none, and for the
    first one too many.
    """
    names = (*BUILT_IN, *(name for name in custom if name not in BUILT_IN))
    if len(names) > MOST_CLASSES:
        raise ValueError(
            f"token_classes.{names[MOST_CLASSES]} is one too many: {len(BUILT_IN)} built-in classes and your own may be"
            f" {MOST_CLASSES} together, leave some out"
        )
    own = [(name, _own_rule(name, given)) for name, given in custom.items()]
    ends = set() if "end_of_text" in custom else _ends(tokenizer)
    built_in = re.compile("|".join(f"(?P<{name}>{rule})" for name, rule in _RULES.items() if name not in custom))

    def class_of(token_id: int, text: str) -> str:
        bare = _bare(text)
        if text and (mine := next((name for name, fits in own if fits(bare)), None)):
            return mine
        if token_id in ends:
            return "end_of_text"
        found = built_in.fullmatch(bare)
        return found.lastgroup or "other" if found else "other"

    index = {name: i for i, name in enumerate(names)}
    classes = [index[class_of(token_id, text)] for token_id, text in enumerate(of_token)]
    return TokenClasses(torch.tensor(classes, dtype=torch.uint8), names)


def _bare(text: str) -> str:
    return text.strip() or text


def _own_rule(name: str, given: TokenClassConfig) -> Callable[[str], object]:
    if not given.words and not given.regex:
        raise ValueError(f"token_classes.{name} has neither words nor a regex, so nothing would belong to it: give one")
    try:
        pattern = re.compile(given.regex)
    except re.error as error:
        raise ValueError(
            f"token_classes.{name}.regex is no regular expression, correct it: {error} (got {given.regex!r})"
        ) from None
    words = {_bare(word).casefold() for word in given.words}

    def fits(bare: str) -> bool:
        return bare.casefold() in words or bool(given.regex and pattern.fullmatch(bare))

    return fits


def _ends(tokenizer: Any) -> set[int]:
    ids = tokenizer.get_vocab()
    named = {ids[token] for token in _ENDS if token in ids}
    return named if tokenizer.eos_token_id is None else named | {tokenizer.eos_token_id}
