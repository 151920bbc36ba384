"""Numbers as people read them."""

import math

import pytest

from ssdfast.number_format import format_bytes, format_duration, format_interval, format_names, format_p_value


@pytest.mark.parametrize(
    ("ends", "options", "text"),
    [
        ((0.0123, 0.0041, 0.0212), {"signed": True}, "+0.012 [0.004, 0.021]"),
        ((-0.5, -0.62, -0.38), {}, "−0.50 [−0.62, −0.38]"),
        ((0.659, 0.629, 0.688), {"percent": True}, "65.9\u00a0% [62.9, 68.8]"),
        ((1e-9, -1e-3, 1e-3), {}, "0.0000 [−0.0010, 0.0010]"),
        ((1.0, None, None), {}, "1.00"),
        ((None, None, None), {}, "undefined"),
        ((0.0, 0.0, 0.0), {}, "0.000 [0.000, 0.000]"),
        ((-2e-7, -3e-7, -1e-7), {}, "−2.0e−7 [−3.0e−7, −1.0e−7]"),
        ((12345.0, 12000.0, 12700.0), {}, "12345 [12000, 12700]"),
    ],
)
def test_an_interval_has_two_digits_of_its_width(ends, options, text):
    assert format_interval(dict(zip(("value", "ci_low", "ci_high"), ends, strict=True)), **options) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min 00 s"), (90, "1 min 30 s"), (7500, "2 h 05 min"), (3 * 86_400 + 7200, "3 d 02 h")],
)
def test_a_duration_has_two_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1.5e9, "1.5 GB"), (2e15, "2,000 TB")])
def test_bytes(count, text):
    assert format_bytes(count) == text


def test_names_and_p_values():
    assert format_names(list("abcde")) == "a, b, c and 2 more"
    assert format_names(list("abc")) == "a, b, c"
    assert format_p_value(0.012345) == "0.012"
    assert format_p_value(None) == "–"
    assert not math.isnan(float(format_p_value(1e-30)))
