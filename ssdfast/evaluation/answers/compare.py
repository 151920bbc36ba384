"""Whether two parsed answers are equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from .compare_values import equal_value, nodes_equal
from .constants import equal_progressions
from .containers import as_matrices, as_pieces, named_tuple
from .conventions import Conventions
from .equations import as_products, beside_letters, tuple_names
from .identity import names
from .numeric import Number
from .ratios import equal_ratios
from .regions import equal_regions, union
from .solutions import defines_function, marks, same_solutions, with_argument
from .types import (
    Answer,
    Based,
    Choices,
    Clock,
    Equation,
    Items,
    Progression,
    Ratio,
    Region,
    Relations,
    Residue,
    Symbols,
    Value,
    Words,
)
from .wording import NONE, same_sentence

_NAMES_IN_ORDER = frozenset("xyz")


def equal_answers(gold: Answer, answer: Answer, conventions: Conventions) -> bool:
    """Whether two parsed answers are equal."""
    if isinstance(gold, Value) and isinstance(answer, Value):
        return equal_value(gold, answer, conventions)
    for kind, compare in _COMPARISONS:
        if isinstance(gold, kind) or isinstance(answer, kind):
            return compare(gold, answer, conventions)
    return _equal_items(gold, answer, conventions)


def _equal_words(gold: Answer, answer: Answer, _: Conventions) -> bool:
    if isinstance(gold, Words) and isinstance(answer, Words):
        return same_sentence(gold.text, answer.text)
    words, other = (gold, answer) if isinstance(gold, Words) else (answer, gold)
    assert isinstance(words, Words)
    if isinstance(other, Items) and other.kind == "list":
        return sorted(words.text.split()) == sorted(
            " ".join(getattr(item, "text", "?") for item in other.items).split()
        )
    if isinstance(other, Region):
        return words.text == NONE and not other.pieces
    return isinstance(other, Value) and words.text == NONE and other.text in ("\\emptyset",)


def _equal_based(gold: Answer, answer: Answer, _: Conventions) -> bool:
    if isinstance(gold, Based) and isinstance(answer, Based):
        return gold == answer
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    return (
        isinstance(gold, Based)
        and isinstance(based, Based)
        and isinstance(other, Value)
        and other.text.lstrip("0") == based.digits
    )


def _equal_residue(gold: Answer, answer: Answer, _: Conventions) -> bool:
    if isinstance(gold, Residue) and isinstance(answer, Residue):
        other_name = gold.name and answer.name and gold.name != answer.name
        same = (gold.value - answer.value) % gold.modulus == 0
        return not other_name and gold.modulus == answer.modulus and same
    residue, other = (gold, answer) if isinstance(gold, Residue) else (answer, gold)
    if not isinstance(residue, Residue) or not isinstance(other, Value) or other.unit or other.label:
        return False
    return not (residue is gold and residue.name) and other.number == Number(Fraction(residue.value))


def _equal_equation(gold: Answer, answer: Answer, conventions: Conventions) -> bool:
    if isinstance(gold, Equation) and isinstance(answer, Equation):
        return _equal_two_equations(gold, answer, conventions)
    equation, other = (gold, answer) if isinstance(gold, Equation) else (answer, gold)
    assert isinstance(equation, Equation)
    states = equation.kind in ("name", "quantity") or (equation.kind == "requested" and equation is gold)
    identity = bool(
        equation.left
        and equation.right
        and isinstance(other, Value)
        and nodes_equal(equation.left, equation.right, conventions)
    )
    if not (states or identity):
        return False
    stated = named_tuple(equation)
    ours, theirs = (stated, other) if equation is gold else (other, stated)
    return equal_answers(ours, theirs, conventions)


def _equal_two_equations(gold: Equation, answer: Equation, conventions: Conventions) -> bool:
    if gold.name and gold.name == answer.name and gold.parameters == answer.parameters:
        if equal_answers(gold.value, answer.value, conventions):
            return True
    elif defines_function(gold) and defines_function(answer) and marks(gold) == marks(answer):
        ours, theirs = with_argument(gold), with_argument(answer)
        if ours is not None and theirs is not None and nodes_equal(ours, theirs, conventions):
            return True
    if tuple_names(gold.name) or tuple_names(answer.name):
        return gold.name == answer.name and equal_answers(named_tuple(gold), named_tuple(answer), conventions)
    if None in (gold.left, gold.right, answer.left, answer.right):
        in_words = gold.kind == answer.kind == "name" and (
            gold.in_words or answer.in_words
        )  # "Area = 12" beside S = 12
        return in_words and gold.name != answer.name and equal_answers(gold.value, answer.value, conventions)
    ours, theirs = ("add", gold.left, ("neg", gold.right)), ("add", answer.left, ("neg", answer.right))
    if same_solutions(ours, theirs, conventions):
        return True
    if not beside_letters(names(ours), names(theirs)):
        return False
    ours_split, theirs_split = as_products(gold.text), as_products(answer.text)
    return bool(ours_split and theirs_split and same_solutions(ours_split, theirs_split, conventions))


def _equal_relations(gold: Answer, answer: Answer, conventions: Conventions) -> bool:
    if not (isinstance(gold, Relations) and isinstance(answer, Relations)):
        return False
    left = list(answer.relations)
    for strict, node in gold.relations:
        match = next(
            (other for other in left if other[0] == strict and same_solutions(node, other[1], conventions, True)), None
        )
        if match is None:
            return False
        left.remove(match)
    return not left


def _equal_progression(gold: Answer, answer: Answer, conventions: Conventions) -> bool:
    if isinstance(gold, Items) or isinstance(answer, Items):
        return _equal_items(gold, answer, conventions)
    ours, theirs = _as_progression(gold, answer), _as_progression(answer, gold)
    if ours is None or theirs is None:
        return False
    shifts = not (ours.natural or theirs.natural)
    return equal_progressions(ours.node, theirs.node, ours.index, theirs.index, conventions, shifts)


def _as_progression(side: Answer, other: Answer) -> Progression | None:
    """An expression of one more letter, beside a progression that says "for all whole numbers", is one too."""
    if isinstance(side, Progression):
        return side
    if isinstance(side, Value) and isinstance(other, Progression):
        index = sorted(names(side.node) & frozenset("knmlj"))
        return Progression(side.node, index[0]) if len(index) == 1 else None
    return None


def _equal_region(gold: Answer, answer: Answer, _: Conventions) -> bool:
    if isinstance(gold, Region) and isinstance(answer, Region):
        if gold.name and answer.name and gold.name != answer.name:
            return False
        return gold.domain == answer.domain and equal_regions(union([gold.pieces]), union([answer.pieces]))
    ours, theirs = as_pieces(gold), as_pieces(answer)
    return ours is not None and theirs is not None and equal_regions(union([ours]), union([theirs]))


def _equal_items(gold: Answer, answer: Answer, conventions: Conventions) -> bool:
    if not isinstance(gold, Items) or not isinstance(answer, Items):
        return _equal_single(gold, answer, conventions)
    kinds = {gold.kind, answer.kind}
    if kinds == {"tuple", "set"} or (gold.kind == "set" == answer.kind and gold.brackets != answer.brackets):
        return False
    if "tuple" in kinds or (conventions.ordered_lists and kinds == {"list"}):
        return _equal_in_order(gold, answer, conventions)
    if kinds == {"list"} and gold.names and answer.names and gold.names != answer.names:
        return False
    ours, theirs = gold.items, answer.items
    if "set" in kinds or len(ours) == len(_distinct(ours, conventions)):
        ours, theirs = _distinct(ours, conventions), _distinct(theirs, conventions)
    return len(ours) == len(theirs) and _equal_in_any_order(ours, theirs, conventions)


def _equal_in_order(gold: Items, answer: Items, conventions: Conventions) -> bool:
    if len(gold.items) != len(answer.items):
        return False
    if gold.names and answer.names:
        if set(gold.names) != set(answer.names):
            return False
        by_name = dict(zip(answer.names, answer.items, strict=True))
        return all(
            equal_answers(item, by_name[name], conventions) for name, item in zip(gold.names, gold.items, strict=True)
        )
    if (
        {gold.kind, answer.kind} == {"tuple", "list"}
        and "[]" in (gold.brackets, answer.brackets)
        and len(gold.items) == 2
    ):
        return False  # [2, 5] is an interval
    if "or" in (gold.brackets, answer.brackets) and "tuple" in (gold.kind, answer.kind):
        return False  # x = 1 or x = 2 is no point (1, 2)
    bracketed = "" not in (gold.brackets, answer.brackets) and "=" not in (gold.brackets, answer.brackets)
    if bracketed and gold.brackets != answer.brackets:
        return False
    ours, theirs = _in_order(gold), _in_order(answer)
    return all(equal_answers(a, b, conventions) for a, b in zip(ours, theirs, strict=True))


def _in_order(items: Items) -> Sequence[Answer]:
    """The values in the order of a point's coordinates where their names are x, y, z, else as stated."""
    if items.names and _NAMES_IN_ORDER.issuperset(items.names):
        return [value for _, value in sorted(zip(items.names, items.items, strict=True), key=lambda pair: pair[0])]
    return items.items


def _equal_single(gold: Answer, answer: Answer, conventions: Conventions) -> bool:
    """A list or set of one value and the value; a tuple and a matrix of the same entries."""
    items, other = (gold, answer) if isinstance(gold, Items) else (answer, gold)
    if not isinstance(items, Items):
        return False
    distinct = _distinct(items.items, conventions) if items.kind != "tuple" else items.items
    if len(distinct) == 1:
        return equal_answers(distinct[0], other, conventions)
    if isinstance(other, Value) and items.kind == "tuple" and (matrices := as_matrices(items)):
        return any(nodes_equal(matrix, other.node, conventions) for matrix in matrices)
    return False


def _distinct(items: Sequence[Answer], conventions: Conventions) -> tuple[Answer, ...]:
    if all(isinstance(item, Value) and item.number and not item.number.percent and not item.unit for item in items):
        return tuple({item.number.value: item for item in items if isinstance(item, Value) and item.number}.values())
    distinct: list[Answer] = []
    for item in items:
        if not any(equal_answers(earlier, item, conventions) for earlier in distinct):
            distinct.append(item)
    return tuple(distinct)


def _equal_in_any_order(gold: Sequence[Answer], answer: Sequence[Answer], conventions: Conventions) -> bool:
    left = list(answer)
    for item in gold:
        index = next((index for index, other in enumerate(left) if equal_answers(item, other, conventions)), None)
        if index is None:
            return False
        left.pop(index)
    return True


def _equal_symbols(gold: Answer, answer: Answer, _: Conventions) -> bool:
    return gold == answer


_COMPARISONS: tuple[tuple[Any, Callable[[Answer, Answer, Conventions], bool]], ...] = (
    (Equation, _equal_equation),
    (Words, _equal_words),
    (Symbols | Choices, _equal_symbols),
    (Based, _equal_based),
    (Residue, _equal_residue),
    (Clock | Ratio, equal_ratios),
    (Relations, _equal_relations),
    (Progression, _equal_progression),
    (Region, _equal_region),
)
"""How two answers are compared of which one is of a kind, the first kind that fits."""
