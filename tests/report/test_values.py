"""Numbers as people read them."""

from __future__ import annotations

import pytest

from einthoven.report.values import (
    count,
    data,
    decimal,
    duration,
    estimate,
    limits_text,
    percent,
    with_limits,
)


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.9454, False, "0.945"),
        (-0.9454, False, "−0.945"),
        (0.047, True, "+0.047"),
        (-0.0002, True, "−0.000"),
        (0.0, True, "0.000"),
        (None, True, "–"),
    ],
)
def test_decimal_keeps_the_sign_that_a_verdict_rests_on(
    value: float | None, signed: bool, text: str
) -> None:
    assert decimal(value, signed=signed) == text


def test_intervals_and_shares() -> None:
    assert limits_text((0.938, 0.951)) == "0.938–0.951"
    assert limits_text((-0.04, 0.055), signed=True) == "−0.040 to +0.055"
    assert limits_text(None) == limits_text((None, None)) == "–"
    assert with_limits(0.9, None) == "0.900"
    assert percent(0.0523, signed=True) == "+5.2 %"
    assert count(2198) == "2,198"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.44, "8.44 s"), (59.6, "59.6 s"), (725, "12 min 5 s"), (5025, "1 h 23 min"), (None, "–")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_data_elements_keep_full_precision() -> None:
    assert data(0.1 + 0.2, "0.300") == '<data value="0.30000000000000004">0.300</data>'
    assert data(None, "–") == "–"
    assert estimate(None, [None, None]) == "–"
