"""Every vocabulary entry's class, from its text alone: what kind of token the mass moves to."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

CLASS_NAMES = (
    "other",
    "digits",
    "operators",
    "latex",
    "whitespace",
    "self_correction",
    "declaration",
    "boxed",
    "think_open",
    "think_close",
    "end_of_text",
)
SELF_CORRECTION = CLASS_NAMES.index("self_correction")

# The first rule that matches the stripped text names the class; only first words, because a token is at most one.
# "Let" opens both "Let's check" and "Let x": it says neither, and stays in `other`.
_RULES = (
    ("think_open", re.compile(r"<think>")),
    ("think_close", re.compile(r"</think>")),
    ("boxed", re.compile(r"\\?boxed\{?")),
    ("self_correction", re.compile(r"(wait|but|hmm+|actually|however|alternatively|let's check)[,.!…]*", re.I)),
    ("declaration", re.compile(r"(so|thus|therefore|hence|answer|final|result|finally)[,:]?", re.I)),
    ("latex", re.compile(r"\\[a-zA-Z]*[{(\[]?|\\[\])]|\$\$?")),
    ("digits", re.compile(r"[0-9]+")),
    ("operators", re.compile(r"[+\-*/=<>^%×÷·±≤≥≠≈−]+")),
)


def classify(tokenizer: Any, vocabulary: int) -> Tensor:
    """uint8 [V]: an index into CLASS_NAMES for each id; rows of lm_head that no token names are `other`."""
    classes = torch.zeros(vocabulary, dtype=torch.uint8)
    ids = sorted(i for i in tokenizer.get_vocab().values() if i < vocabulary)
    for token_id, text in zip(ids, tokenizer.batch_decode([[i] for i in ids]), strict=True):
        classes[token_id] = class_of(text)
    for token_id in _ends(tokenizer):
        if token_id < vocabulary:
            classes[token_id] = CLASS_NAMES.index("end_of_text")
    return classes


def class_of(text: str) -> int:
    """The class of a decoded token, by its text; the end of a text is known to the tokenizer alone."""
    if text and text.isspace():
        return CLASS_NAMES.index("whitespace")
    stripped = text.strip().replace("’", "'")
    return next((CLASS_NAMES.index(name) for name, rule in _RULES if rule.fullmatch(stripped)), 0)


def _ends(tokenizer: Any) -> set[int]:
    ids = tokenizer.get_vocab()
    named = {ids[token] for token in ("<|endoftext|>", "<|im_end|>") if token in ids}
    return named if tokenizer.eos_token_id is None else named | {tokenizer.eos_token_id}
