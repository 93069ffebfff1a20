"""Numbers, intervals and durations as text."""

from __future__ import annotations

import pytest

from einthoven.report import format as form
from einthoven.report.format import without_folder
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


def test_values_keep_full_precision_in_html() -> None:
    value = metric(0.1 + 0.2, (0.25, 0.5))
    assert str(value) == "0.300 (0.250 to 0.500)"
    assert value.__html__().startswith('<data value="0.30000000000000004">0.300</data>')
    assert value.__html__().count("<data") == 3
    for undefined in (metric(None, [None, None]), metric(float("nan"))):
        assert str(undefined) == undefined.__html__() == "–"


@pytest.mark.parametrize(
    ("argument", "bare"),
    [
        ("/home/ann/a=b/ward.csv", "ward.csv"),
        ("--out=/home/ann/runs/mine/", "--out=mine"),
        ("stage2.drop_path=0.2", "stage2.drop_path=0.2"),
        ("C:\\Users\\ann\\ecg.hea", "ecg.hea"),
        ("my data/01.hea", "01.hea"),
        ("/", ""),
    ],
)
def test_paths_lose_their_folders(argument: str, bare: str) -> None:
    assert without_folder(argument) == bare
