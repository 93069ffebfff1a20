"""The first screen: its numbers and names are those of the evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from einthoven.files import Json
from einthoven.report.card import model_card
from einthoven.report.overview import Overview, named, overview
from einthoven.report.tables import Phrase, Value

MODEL = {
    "descriptions": {"AFIB": "atrial fibrillation"}, "members": [], "backbone": "s4_small",
    "recipe": "general", "commercial_use": None, "cohort": {"name": "c", "version": "1"},
}  # fmt: skip
INTERVAL = {"sensitivity_interval": [0.7, 0.96]}


def entry(auroc: float, positives: int, low: float = 0.7) -> Json:
    return {"auroc": auroc, "auroc_interval": [low, 0.99], "positives": positives}


def score(**labels: Json) -> Json:
    return {"records": 120, "per_label": labels, "macro_auroc": 0.875, "macro_auroc_interval": None}


def numbers(value: Any) -> list[float]:
    """All numbers of an item."""
    if isinstance(value, Phrase):
        return [number for part in value.parts for number in numbers(part)]
    if isinstance(value, Value):
        return [each for each in (value.value, *(value.limits or ())) if each is not None]
    return []


def shown(first: Overview) -> list[float]:
    items = [value for panel in first.panels.values() for _, value in panel]
    return [number for value in [*items, *first.limits] for number in numbers(value)]


def test_one_label_has_its_rates_and_population() -> None:
    part = {"records": 120, "patients": 60, "positives": {"AFIB": {"records": 30, "share": 0.25}}}
    part |= {"age": {"median": 61.5, "lower_quartile": 47.0, "upper_quartile": 72.0}}
    part |= {"sex": {"female": {"records": 48, "share": 0.4}}}
    rates = {"sensitivity": 0.9, "specificity": 0.8, "precision": 0.6} | INTERVAL
    covered = {"present": {"covered": 0.91}, "absent": {"covered": 0.93}, "undecided": 0.125}
    evaluation = {
        "population": {"parts": {"test": part, "all": part | {"patients": 999}}},
        "calibration": {"decisions": {"AFIB": rates}},
        "coverage": {"coverage": 0.9, "overall": covered},
    }
    first = overview(MODEL, score(AFIB=entry(0.875, 30)), evaluation)
    assert shown(first) == [
        0.875, 0.9, 0.7, 0.96, 0.8, 0.6, 0.91, 0.93, 120, 60, 30, 0.25, 61.5, 47, 72, 0.4, 0.125,
    ]  # fmt: skip


def test_many_labels_have_the_best_and_the_worst_of_those_with_enough_positives() -> None:
    labels = {
        "A": entry(0.9, 40), "B": entry(0.8, 40), "C": entry(0.99, 3), "D": entry(0.6, 20, low=0.45)
    }  # fmt: skip
    first = overview(MODEL, score(**labels), {}, patients=77)
    extremes = [value for _, value in first.panels["How good"][1:]]
    assert [numbers(value)[0] for value in extremes] == [0.9, 0.6]
    assert {77, 3, 40} <= set(shown(first))  # patients, fewest and most positives
    limits = [str(sentence) for sentence in first.limits]
    assert [numbers(sentence) for sentence in first.limits if numbers(sentence)] == [[1]]
    assert [text.count("D") for text in limits if "chance" in text] == [1]


@pytest.mark.parametrize(("names", "others"), [(4, ""), (5, "2"), (71, "68")])
def test_long_lists_are_cut(names: int, others: str) -> None:
    text = named([f"l{place}" for place in range(names)])
    assert text.count(",") == (3 if names == 4 else 2)
    assert others in text


def test_numbers_have_errors_in_their_unit() -> None:
    lvef = {"unit": "%", "records": 3, "mae": 8.9, "rmse": 10.5, "r2": 0.2, "bias": 1.9, "sd": 10.3}
    values = {"kind": "regression", "records": 3, "per_label": {"lvef": lvef | {"pearson": 0.5}}}
    results = overview(MODEL, values, {}).panels["How good"]
    assert [numbers(value) for _, value in results] == [[8.9], [0.2], [1.9]]
    assert sum("%" in name for name, _ in results) == 2


def test_card_and_page_have_the_same_first_screen(evaluation: Json, report: Json) -> None:
    run = report["runs"][0]
    config = {"backbone": "st_mem_tiny", "id2label": dict(enumerate(run["score"]["per_label"]))}
    first = overview(run["model"], run["score"], evaluation)
    card = model_card(config, evaluation)
    for name, value in first.panels["How good"]:
        assert f"{name}: " in card
        assert str(numbers(value)[0])[:4] in card
    assert "<script" not in card
