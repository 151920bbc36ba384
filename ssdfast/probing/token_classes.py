"""The class of every vocabulary entry, from its text alone: the kinds of token that probability mass shifts to."""

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
MAX_CLASSES = 255

# Tokens that end a text or a turn in Qwen, SmolLM2, Llama-3 and Gemma-3, beside the tokenizer's own EOS token. Not
# "</s>": in a vocabulary with HTML that is a tag.
_ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>")


@dataclass(frozen=True, eq=False)
class TokenClasses:
    """The class of each vocabulary entry."""

    of_token: Tensor
    """uint8 [V], an index into `names`"""
    names: tuple[str, ...]

    def ids(self, *names: str) -> list[int]:
        """The entries of these classes, by id."""
        codes = torch.tensor([self.names.index(name) for name in names], dtype=torch.uint8)
        return torch.isin(self.of_token, codes).nonzero().flatten().tolist()


def token_texts(tokenizer: Any, vocabulary: int) -> list[str]:
    """The text that each of `vocabulary` ids adds when it continues a text; empty for rows of lm_head without a token.

    A token that is part of a character is "�". Without such tokens, the texts of a sequence make up its text.
    """
    entries = tokenizer.get_vocab()
    ids = sorted(i for i in entries.values() if i < vocabulary)
    # Many tokenizers drop the space before a text's first token, so each is decoded behind a plain word.
    plain = min((i for token, i in entries.items() if token.isascii() and token.isalnum()), default=None)
    before = [] if plain is None else [plain]
    prefix, *decoded = tokenizer.batch_decode(
        [before, *([*before, i] for i in ids)], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    texts = [""] * vocabulary
    for token_id, text in zip(ids, decoded, strict=True):
        texts[token_id] = text.removeprefix(prefix)
    return texts


def classify(tokenizer: Any, texts: Sequence[str], custom: Mapping[str, TokenClassConfig]) -> TokenClasses:
    """The class of each vocabulary entry, from their `token_texts`.

    custom: classes that are tried before the built-in ones, in their order. One with the name of a built-in class
    replaces it, a new name comes after the built-in ones. Words and patterns must match all of a text without the
    spaces around it; a text of spaces alone is matched as it is. Entries that match no class, and rows without a token,
    are `other`.
    Raises ValueError that names the class: without words or a pattern, with an invalid pattern, or the first one beyond
    the limit.
    """
    names = (*BUILT_IN, *(name for name in custom if name not in BUILT_IN))
    if len(names) > MAX_CLASSES:
        raise ValueError(
            f"token_classes.{names[MAX_CLASSES]} is one class too many: the limit is {MAX_CLASSES}, of which"
            f" {len(BUILT_IN)} are built in. Remove some"
        )
    own = [(name, _own_rule(name, rule)) for name, rule in custom.items()]
    ends = set() if "end_of_text" in custom else _ends(tokenizer)
    built_in = re.compile("|".join(f"(?P<{name}>{rule})" for name, rule in _RULES.items() if name not in custom))

    def class_of(token_id: int, text: str) -> str:
        bare = _bare(text)
        if text and (match := next((name for name, matches in own if matches(bare)), None)):
            return match
        if token_id in ends:
            return "end_of_text"
        built_in_match = built_in.fullmatch(bare)
        return built_in_match.lastgroup or "other" if built_in_match else "other"

    index = {name: i for i, name in enumerate(names)}
    classes = [index[class_of(token_id, text)] for token_id, text in enumerate(texts)]
    return TokenClasses(torch.tensor(classes, dtype=torch.uint8), names)


def _bare(text: str) -> str:
    return text.strip() or text


def _own_rule(name: str, rule: TokenClassConfig) -> Callable[[str], object]:
    if not rule.words and not rule.regex:
        raise ValueError(f"token_classes.{name} has neither words nor a regex: give one")
    try:
        pattern = re.compile(rule.regex)
    except re.error as error:
        raise ValueError(
            f"token_classes.{name}.regex is no regular expression, correct it: {error} (got {rule.regex!r})"
        ) from None
    words = {_bare(word).casefold() for word in rule.words}

    def matches(bare: str) -> bool:
        return bare.casefold() in words or bool(rule.regex and pattern.fullmatch(bare))

    return matches


def _ends(tokenizer: Any) -> set[int]:
    ids = tokenizer.get_vocab()
    named = {ids[token] for token in _ENDS if token in ids}
    return named if tokenizer.eos_token_id is None else named | {tokenizer.eos_token_id}
