"""The answer of a completion: which box, where, and in linear time."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdfast.evaluation.answers.boxed import last_boxed
from ssdfast.evaluation.extract import ExtractionRules, extract, outside_thinking

FALLBACKS = ExtractionRules(fallback_last_number=True, fallback_choice_letter=True)
_BALANCED = st.recursive(
    st.text("ab1+ \\", max_size=5).map(lambda text: text.replace("\\", "\\{")),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "".join(f"{{{part}}}" for part in parts)),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1}\boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {a\}b\{}", r"a\}b\{"),
        (r"\fbox{3}", "3"),
        (r"\\boxed{3}", "3"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"\boxed{1} \boxed{\frac{2}{3}", "1"),  # broken off
        (r"\boxed{ 1 \boxed{5}", "5"),  # the outer one never ends
        (r"\boxed{7} as asked in \boxed{}", "7"),
        (r"} {{ \boxed{6} }}", "6"),
        (r"\boxed", None),
        (r"\boxed{", None),
        (r"boxed{5}", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_counts(text, answer):
    assert last_boxed(text) == answer


@given(_BALANCED, _BALANCED)
def test_any_balanced_content_comes_back_whole(before, content):
    stripped = content.strip()
    assert last_boxed(rf"{before}\boxed{{zz}}x\boxed{{{content}}} and \boxed{{cut") == (stripped or "zz")


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>a</think>b<think>c", "b"),
        ("a<think>b", ""),
        ("a", "a"),
    ],
)
def test_thinking_is_left_out(text, outside):
    assert outside_thinking(text) == outside


def test_a_prompt_that_opened_the_thinking_part_leaves_nothing_outside_until_it_closes():
    rules = ExtractionRules(prompt_opens_thinking=True)
    assert extract(r"so \boxed{4}", rules) is None
    assert extract(r"so \boxed{4}</think>\boxed{5}", rules) == "5"
    assert extract(r"<think>\boxed{4}", ExtractionRules(strip_thinking=False)) == "4"
    assert extract(r"[T]\boxed{4}[/T]\boxed{5}", ExtractionRules(think_start="[T]", think_end="[/T]")) == "5"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (D).", "D"),
        ("answer: **B**", "B"),
        ("Answer: A. Later: the answer is C", "C"),
        ("so 3-5 = -2.", "-2"),
        ("it costs $1,234.50 in all", "1,234.50"),
        (r"x = \frac{3}{4}$", r"\frac{3}{4}"),
        (r"about 50\%", r"50\%"),
        ("3/4 of them", "3/4"),
        ("1, 2, 3", "3"),
        (r"The answer is (D), \boxed{7}", "7"),
        ("none", None),
    ],
)
def test_fallbacks_come_after_the_box_and_only_when_asked_for(text, answer):
    assert extract(text, FALLBACKS) == answer
    if "boxed" not in text:
        assert extract(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "{" * 10**6,
        "}" * 10**6,
        r"\boxed{" * 150_000,
        r"\boxed{" * 75_000 + "}" * 75_000,
        r"\boxed{ " * 75_000 + " }" * 75_000,
        "\\" * 10**6,
        r"\boxed" + " " * 10**6,
        "1" * 10**6,
        "1,111" * 200_000,
        "answer" + " " * 10**6,
        "answer is " * 100_000,
        "<think>" * 100_000,
        "(" * 3000 + ")" * 3000,
        r"\frac{" * 150_000,
    ],
    ids=lambda text: f"{text[:10]}*{len(text)}",
)
def test_a_megabyte_of_anything_is_read_in_linear_time(text):
    def stop(*_):
        raise AssertionError("not linear")  # a quadratic scan of any of these takes hours

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    try:
        extract(text, FALLBACKS)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The roots are $x=\boxed{2}$ and $x=\boxed{3}$.", "2, 3"),
        (r"$a = \boxed{1}$, $b = \boxed{-2}$, and $c = \boxed{5}$", "1, -2, 5"),
        (r"(\boxed{4}, \boxed{7})", "4, 7"),
        (r"$\boxed{A}$ 和 $\boxed{C}$", "A, C"),
        (
            r"first \boxed{9}; then, as roots, $\boxed{2}$ and $\boxed{3}$",
            "2, 3",
        ),  # the earlier box is of another answer
        (r"\boxed{11}, no: \boxed{12}", "12"),
        (r"First \boxed{3}, then $\boxed{7}$.", "7"),
        (r"\boxed{2}. So the answer is \boxed{3}", "3"),
        (r"\boxed{5} and, once more, \boxed{5}", "5"),
        (r"\boxed{5}, \boxed{5}", "5"),
        (r"\boxed 7$", "7"),
        (r"put it in \boxed form: \boxed{8}", "8"),
        (r"\framebox{7}", "7"),
        (r"\boxed{7}, in the form \boxed{answer}", "7"),
        (r"\boxed{7} as in \boxed{\text{your answer}}", "7"),
    ],
)
def test_several_boxes_are_one_answer_where_only_a_joint_stands_between_them(text, answer):
    assert extract(text) == answer
