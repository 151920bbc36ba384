"""Every vocabulary entry has the class that its text says."""

import pytest
import torch

from ssdfast.probing.token_classes import CLASS_NAMES, class_of, classify

from .. import tiny


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        (
            "self_correction",
            ["Wait", " Wait", "wait", "But", " However", "Hmm", " hmmm", "Actually", " Wait,", "Let's check"],
        ),
        ("digits", ["7", " 42", "007"]),
        ("operators", ["+", " =", " -", "<=", "**", "×"]),
        ("latex", ["\\", "\\frac", "\\frac{", " \\(", "$$", "\\]"]),
        ("whitespace", [" ", "\n", "\n\n", "\t  "]),
        ("declaration", ["So", " Therefore", " answer", "Thus,", "final"]),
        ("boxed", ["boxed", "\\boxed", "\\boxed{"]),
        ("think_open", ["<think>"]),
        ("think_close", ["</think>", "</think>\n\n"]),
        ("other", ["", "the", " waiting", "Butter", "solo", "x7", "{", "Ġ", "�", " Let"]),
    ],
)
def test_class_by_text(name, texts):
    assert {text: CLASS_NAMES[class_of(text)] for text in texts} == dict.fromkeys(texts, name)


def test_a_vocabulary():
    classes = classify(tiny.tokenizer(), tiny.VOCABULARY + 4)  # lm_head may have more rows than there are tokens
    assert classes.dtype == torch.uint8
    assert classes.shape == (tiny.VOCABULARY + 4,)
    named = {word: CLASS_NAMES[classes[i]] for i, word in enumerate(tiny.WORDS)}
    assert named == {
        "<unk>": "other",
        "</s>": "end_of_text",
        "Wait": "self_correction",
        "But": "self_correction",
        "7": "digits",
        "42": "digits",
        "+": "operators",
        "=": "operators",
        "so": "declaration",
        "\\frac": "latex",
        "</think>": "think_close",
        "the": "other",
    }
    assert (classes[tiny.VOCABULARY :] == 0).all()


def test_there_are_few_enough_classes():
    assert len(CLASS_NAMES) <= 12
