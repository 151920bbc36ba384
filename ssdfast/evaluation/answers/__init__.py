r"""Are two mathematical answers equal? Usable alone: two texts in, a grade out.

    >>> equal(r"\frac{1}{2}", "0.5")
    'correct'
    >>> equal("3", boxed_answer(r"so the sum is \boxed{4}"))
    'incorrect'
    >>> equal("0.67", r"\frac{2}{3}", Conventions(round_to_gold=True))
    'correct'

`equal` reads both texts with a grammar of answers, of which `expression` is the part for expressions, and compares the
trees. It has no time limit: grade a model's answers through `ssdfast.evaluation.grader_pool.GraderPool`.
"""

from .boxed import boxed_answer, last_boxed
from .conventions import Conventions
from .errors import Unparsable
from .grade import Grade, equal, is_parsable

__all__ = ["Conventions", "Grade", "Unparsable", "boxed_answer", "equal", "is_parsable", "last_boxed"]
