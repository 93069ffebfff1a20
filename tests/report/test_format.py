"""Numbers, intervals and durations as text."""

from __future__ import annotations

import pytest

from einthoven.report import format as form
from einthoven.report.tables import metric


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.9454, False, "0.945"),
        (-0.9454, False, "−0.945"),
        (0.047, True, "+0.047"),
        (-0.0002, True, "−0.000"),
        (0.0, True, "0.000"),
        (None, True, "–"),
        (float("nan"), False, "–"),
    ],
)
def test_a_number_keeps_the_sign_of_its_value(value: float | None, signed: bool, text: str) -> None:
    assert form.number(value, signed=signed) == text


def test_intervals_shares_and_counts() -> None:
    assert form.interval((0.938, 0.951)) == "0.938 to 0.951"
    assert form.interval((-0.04, 0.055), signed=True) == "−0.040 to +0.055"
    assert form.interval(None) == form.interval((None, None)) == "–"
    assert form.with_interval(0.93949, (0.9312, 0.9456)) == "0.939 (0.931 to 0.946)"
    assert form.with_interval(0.9, None) == "0.900"
    assert form.with_interval(None, None) == "–"
    assert form.percent(0.0523, signed=True) == "+5.2 %"
    assert form.confidence(0.95) == "95 %"
    assert form.count(2198) == "2,198"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.44, "8.44 s"), (59.6, "59.6 s"), (725, "12 min 5 s"), (5025, "1 h 23 min"), (None, "–")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert form.duration(seconds) == text


def test_minutes() -> None:
    assert [form.minutes(each) for each in (30, 599, 600, 7230)] == ["0.5", "10.0", "10", "120"]


def test_values_keep_full_precision_in_html() -> None:
    value = metric(0.1 + 0.2, (0.25, 0.5))
    assert str(value) == "0.300 (0.250 to 0.500)"
    assert value.__html__().startswith('<data value="0.30000000000000004">0.300</data>')
    assert value.__html__().count("<data") == 3
    for undefined in (metric(None, [None, None]), metric(float("nan"))):
        assert str(undefined) == undefined.__html__() == "–"
