"""Right and wrong answers: a table labelled by hand, the gold answers of CHAMP, and numbers of every spelling."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.evaluation.answers.grade import equal, is_parsable, quick_grade
from ssdfast.evaluation.answers.normalize import normalize
from ssdfast.evaluation.answers.numeric import number
from ssdfast.evaluation.extract import extract

pytest.importorskip("math_verify")
TABLE = [json.loads(line) for line in (Path(__file__).parent / "graded_pairs.jsonl").read_text("utf-8").splitlines()]


def grade(gold: str, text: str) -> str:
    answer = extract(text)
    return "no_answer" if answer is None else equal(gold, answer)


def test_the_labelled_table(capsys):
    """The last 200 cases were labelled apart from the code, which had 195 of them right before it was fixed."""
    misses = [(case, found) for case in TABLE if (found := grade(case["gold"], case["text"])) != case["grade"]]
    with capsys.disabled():
        print(f"\nlabelled answers: {len(TABLE) - len(misses)} of {len(TABLE)} right")
        for case, found in misses:
            print(f"  {case['kind']}: gold {case['gold']}, {case['text']} is {case['grade']}, graded {found}")
    assert len(TABLE) >= 400
    assert len(misses) <= 0.01 * len(TABLE)


def test_every_gold_answer_of_champ_verifies_itself():
    champ = pytest.importorskip("champ_dataset")
    del champ
    from ssdfast.problems.champ import load

    golds = [problem.answer for problem in load()]
    assert len(golds) == 270
    assert [gold for gold in golds if not is_parsable(gold)] == []
    # A space more, so that equal texts do not settle it.
    assert [gold for gold in golds if equal(gold, gold.replace(" ", "  ") + "\n.") != "correct"] == []


@given(st.fractions(max_denominator=10**6), st.integers(2, 9), st.sampled_from(["{}/{}", r"\frac{{{}}}{{{}}}"]))
def test_a_fraction_equals_every_spelling_of_itself_and_nothing_else(value, factor, form):
    spelled = form.format(value.numerator * factor, value.denominator * factor)
    assert quick_grade(str(value), spelled) == "correct"
    assert quick_grade(str(value), form.format(value.numerator * factor + 1, value.denominator * factor)) == "incorrect"


@settings(deadline=None, max_examples=60)
@given(
    st.one_of(st.integers(-(10**9), 10**9), st.fractions(-1000, 1000, max_denominator=99)),
    st.one_of(st.integers(-3, 3), st.fractions(-2, 2, max_denominator=3)),
    st.booleans(),
)
def test_the_short_cut_for_numbers_agrees_with_the_grammar(value, offset, decimal):
    gold, other = str(value), Fraction(value) + offset
    answer = f"{float(other):.9f}" if decimal else str(other)
    assert quick_grade(gold, answer) == equal(gold, f"x = {answer}")


@pytest.mark.parametrize("text", ["", "x", "1/0", r"\frac{1}{0}", "1.2.3", "--1", "٣", "1e", "1" * 5000, "5 5"])
def test_what_is_no_plain_number(text):
    assert number(normalize(text)) is None


@pytest.mark.parametrize("gold", [r"\frac{1}{", "((", "5 + + ) 3", "^^", "x" * 5000])
def test_gold_answers_that_cannot_be_read(gold):
    assert not is_parsable(gold)


@pytest.mark.parametrize("gold", ["No", "5", r"\{1, 2\}", "[0, 1)", "x = 2", r"\emptyset", "(D)"])
def test_gold_answers_that_can_be_read(gold):
    assert is_parsable(gold)
