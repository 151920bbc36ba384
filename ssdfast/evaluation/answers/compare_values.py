"""Whether two values are equal, with their units, percent signs, degrees and decimals."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from mpmath import mp

from .constants import equal_up_to_constants
from .conventions import Conventions
from .equations import beside_letters
from .errors import Unparsable
from .expression import parse_expression
from .identity import equal_nodes, kinds, names, number_value
from .numeric import equal_number, rounds_to, stands_for
from .scanner import Node
from .types import Value
from .units import DEGREE, Unit, compatible_labels

_MAX_BITS = 300
"""A decimal is compared with no irrational number that is larger or smaller than so many bits allow."""
_RADIAN = (("radian", 1),)
_ANGLES = (DEGREE.dimension, _RADIAN)
_HUNDRED: Node = ("num", Fraction(100))


def nodes_equal(gold: Node, answer: Node, conventions: Conventions) -> bool:
    """Whether two expressions are equal, a degree being 1 or, where π is on one side alone, π/180."""
    if equal_nodes(gold, answer, conventions):
        return True
    marked = "deg" in kinds(gold), "deg" in kinds(answer)
    if marked[0] != marked[1] and "pi" in kinds(answer if marked[0] else gold):
        return equal_nodes(gold, answer, conventions, degree=True)
    return False


def equal_value(gold: Value, answer: Value, conventions: Conventions) -> bool:
    """Whether two values are equal."""
    if not compatible_labels(gold.label, answer.label):
        return False
    if gold.unit or answer.unit or gold.label or answer.label:
        return _equal_with_units(gold, answer, conventions)
    if gold.number and answer.number:
        return equal_number(gold.number, answer.number, conventions)
    if gold.percent != answer.percent:
        return _equal_percent(gold, answer, conventions)
    if _equal_decimal(gold, answer, conventions):
        return True
    if nodes_equal(gold.node, answer.node, conventions) or equal_up_to_constants(gold.node, answer.node, conventions):
        return True
    return _equal_products(gold, answer, conventions) or _identity_matrix(gold.node, answer.node)


def _equal_with_units(gold: Value, answer: Value, conventions: Conventions) -> bool:
    ours, theirs = _bare(gold), _bare(answer)
    if gold.unit is None or answer.unit is None:
        if (gold.unit and answer.label) or (answer.unit and gold.label):
            return False
        unit = gold.unit or answer.unit
        other = answer if gold.unit else gold
        if unit and (other.percent or (unit.dimension not in _ANGLES and "deg" in kinds(other.node))):
            return False
        compound = unit is not None and unit.name.endswith("and parts")
        missing = unit is not None or not (gold.label and answer.label)
        if compound or (missing and not conventions.units_optional):
            return False
        if _is_angle(unit) and not equal_value(ours, theirs, conventions):
            return _angle(gold, conventions, answer) or _angle(answer, conventions, gold)
        return equal_value(ours, theirs, conventions)
    if _same_unit(gold.unit, answer.unit):
        return equal_value(ours, theirs, conventions)
    if not conventions.convert_units or gold.unit.dimension != answer.unit.dimension:
        radian = {gold.unit.dimension, answer.unit.dimension} == set(_ANGLES)
        return radian and (_angle(gold, conventions, answer) or _angle(answer, conventions, gold))
    return equal_value(_in_base_units(ours, gold.unit), _in_base_units(theirs, answer.unit), conventions)


def _same_unit(gold: Unit, answer: Unit) -> bool:
    """Whether the units are one, or may be: pounds are money as well as mass."""
    same = gold.dimension == answer.dimension and gold.size == answer.size
    return same or (
        {gold.dimension, answer.dimension} == {(("gbp", 1),), (("kg", 1),)}
        and Fraction("0.45359237") in (gold.size, answer.size)
    )


def _is_angle(unit: Unit | None) -> bool:
    return unit is not None and unit.dimension == DEGREE.dimension


def _bare(value: Value) -> Value:
    return dataclasses.replace(value, unit=None, label=())


def _in_base_units(value: Value, unit: Unit) -> Value:
    number = None if value.number is None else dataclasses.replace(value.number, value=value.number.value * unit.size)
    return dataclasses.replace(value, number=number, node=("mul", ("num", unit.size), value.node))


def _angle(degrees: Value, conventions: Conventions, other: Value) -> bool:
    """Whether an angle in degrees is `other` in radians, which must have π in it."""
    if not _is_angle(degrees.unit) or "pi" not in kinds(other.node):
        return False
    return equal_nodes(("deg", degrees.node), other.node, conventions, degree=True)


def _equal_percent(gold: Value, answer: Value, conventions: Conventions) -> bool:
    percent, other = (gold, answer) if gold.percent else (answer, gold)
    if "deg" in kinds(other.node):
        return False
    if conventions.percent_as_decimal and nodes_equal(percent.node, ("mul", _HUNDRED, other.node), conventions):
        return True
    return conventions.percent_sign_optional and nodes_equal(percent.node, other.node, conventions)


def _equal_decimal(gold: Value, answer: Value, conventions: Conventions) -> bool:
    """Whether one is a decimal that, by the conventions, stands for the irrational number that the other is."""
    decimal, other = (gold, answer) if gold.number else (answer, gold)
    if decimal.number is None or decimal.number.places is None or other.number is not None or names(other.node):
        return False
    rounded = conventions.round_to_gold and decimal is gold
    if not rounded and not 0 < conventions.exact_decimals <= decimal.number.places:
        return False
    try:
        value = number_value(other.node)
    except Unparsable:
        return False
    if isinstance(value, Fraction):
        exact = value
    elif mp.isinf(value) or abs(mp.mag(value)) > _MAX_BITS:
        return False
    else:
        exact = Fraction(mp.nstr(value, 40))
    if rounded and rounds_to(exact, decimal.number.value, decimal.number.places):
        return True
    return stands_for(decimal.number, exact, conventions)


def _equal_products(gold: Value, answer: Value, conventions: Conventions) -> bool:
    """Two letters side by side are a product where one of them also stands alone: ``PV`` beside ``P``."""
    if not beside_letters(names(gold.node), names(answer.node)):
        return False
    try:
        nodes = [parse_expression(side.text, joined=False) for side in (gold, answer)]
    except Unparsable:
        return False
    return equal_nodes(nodes[0], nodes[1], conventions)


def _identity_matrix(gold: Node, answer: Node) -> bool:
    """The letter I for the identity matrix of two or more rows."""
    matrix, name = (gold, answer) if gold[0] == "matrix" else (answer, gold)
    if matrix[0] != "matrix" or name[0] != "name" or name[1] not in ("I", f"I_{len(matrix[1])}"):
        return False
    return all(
        cell == ("num", Fraction(row == column))
        for row, cells in enumerate(matrix[1])
        for column, cell in enumerate(cells)
    ) and all(len(cells) == len(matrix[1]) for cells in matrix[1])
