"""Every kind of answer on both sides: spellings of the gold answer, and near misses of it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from ssdfast.config import ConventionsConfig
from ssdfast.evaluation.answers import Conventions, Unparsable, equal, is_parsable

pytest.importorskip("latex2sympy2_extended")
LINES = [json.loads(line) for line in (Path(__file__).parent / "kinds.jsonl").read_text("utf-8").splitlines()]
KINDS = sorted({line["kind"] for line in LINES})


@pytest.mark.parametrize("kind", KINDS)
def test_spellings_are_equal_and_near_misses_are_not(kind):
    lines = [line for line in LINES if line["kind"] == kind]
    assert all(line["equal"] and line["different"] for line in lines)
    missed = [(line["gold"], a) for line in lines for a in line["equal"] if equal(line["gold"], a) != "correct"]
    fooled = [(line["gold"], a) for line in lines for a in line["different"] if equal(line["gold"], a) == "correct"]
    assert (missed, fooled) == ([], [])


def test_gold_answers_of_different_lines_differ():
    """Of the first gold answer of each kind, which have nothing to do with each other but "2" and "4"."""
    golds = list({line["kind"]: line["gold"] for line in LINES}.values())
    pairs = [(a, b) for a in golds for b in golds if a < b and equal(a, b) == "correct"]
    assert pairs == []


@pytest.mark.parametrize(
    ("setting", "value", "gold", "answer", "default"),
    [
        ("exact_decimals", 6, r"\frac{1}{3}", "0.333333", False),
        ("exact_decimals", 0, r"\frac{1}{3}", "0.333333333", True),
        ("round_to_gold", True, "0.67", r"\frac{2}{3}", False),
        ("round_to_gold", True, "3.14", r"\pi", False),
        ("percent_as_decimal", False, r"25\%", "0.25", True),
        ("percent_sign_optional", False, r"25\%", "25", True),
        ("units_optional", False, r"5\text{ cm}", "5", True),
        ("convert_units", False, r"5\text{ km}", r"5000\text{ m}", True),
        ("reduced_form", True, r"\frac{3}{4}", r"\frac{6}{8}", True),
        ("ordered_lists", True, "1, 2", "2, 1", True),
        ("ignore_case", False, r"\text{Evelyn}", r"\text{evelyn}", True),
        ("decimal_comma", False, "1.22", "1,22", True),
        ("positive_letters", False, "a", r"\sqrt{a^2}", True),
        ("log_base", "e", r"\ln 2", r"\log 2", False),
    ],
)
def test_each_convention_changes_what_it_says(setting, value, gold, answer, default):
    assert (equal(gold, answer) == "correct") is default
    assert (equal(gold, answer, Conventions(**{setting: value})) == "correct") is not default


def test_the_settings_are_the_conventions():
    settings = {name: field.default for name, field in ConventionsConfig.model_fields.items()}
    assert settings == dataclasses.asdict(Conventions())


def test_an_unreadable_gold_answer_raises():
    with pytest.raises(Unparsable):
        equal(r"\frac{1}{", "1")


VALID = r"""\left[k\pi, k\pi+\frac{\pi}{2}\right] (k\in\mathbb{Z}) | p\land q | A\cap B=\emptyset
\vec{a}+\vec{b} | 5'6'' | \begin{vmatrix}1&2\\3&4\end{vmatrix} | \text{C}_6\text{H}_{12} | AB\perp CD
\leftrightarrow | 中国 | 1\to2\to3 | >3 | f(n)=n^2\text{ for all }n | \{x\mid x\in\mathbb{Z}\}
GL_2(\mathbb{R}) | (2n-1)!! | \lim_{n\to\infty}a_n | 5:0 | 12:00 | P(x)=c\text{ or }P(x)=x
2\text{ if }n\text{ is even}, 1\text{ if }n\text{ is odd} | x=t, y=1-t | 1,2,\ldots,n | x\%
(a,b,c)=(1,1,1)\text{ and permutations} | \text{all odd integers greater than }1 | \frac{dy}{dx}=2x
(2,3)\times[0,1] | 0.\dot{6} | \frac\pi3 | x\neq\pm5 | \lg2 | \int_0^1 x^2\,dx | 10^{10^{10}} | \mathbb{Z}_5
\text{12/25/2023} | \uparrow"""


@pytest.mark.parametrize("gold", [gold.strip() for line in VALID.splitlines() for gold in line.split(" | ")])
def test_valid_gold_answers_are_read_and_equal_themselves(gold):
    assert is_parsable(gold)
    assert equal(gold, f" {gold} .") == "correct"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"2^{2^{100}}", r"2^{2^{100}}+1"),
        ("1", r"9^{9^{9^{9}}}"),
        ("7", r"\sum_{n=1}^{10^{12}} n!"),
        (r"1.6\times10^{-19}", r"10^{10^{10}}"),
        ("x", "(x+y+1)^{100000}"),
        ("0", r"\binom{10^9}{5\cdot10^8}"),
    ],
)
def test_large_numbers_are_told_apart_without_being_computed(gold, answer):
    start = time.process_time()
    assert equal(gold, answer) != "correct"
    assert time.process_time() - start < 3
