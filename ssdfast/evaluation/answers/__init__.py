r"""Are two mathematical answers equal? Usable alone: two texts in, a grade out.

    >>> grade_answer(r"\frac{1}{2}", "0.5")
    'correct'
    >>> grade_answer("3", last_boxed(r"so the sum is \boxed{4}"))
    'incorrect'

`grade_answer` compares plain numbers by itself and everything else with math-verify. It has no time limit: grade a
model's answers through `ssdfast.evaluation.grader_pool.GraderPool`.
"""

from .boxed import last_boxed
from .equal import Grade, grade_answer, is_parsable

__all__ = ["Grade", "grade_answer", "is_parsable", "last_boxed"]
