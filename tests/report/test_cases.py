"""Examples and wrong calls: which records are chosen, in which order, and that none is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import EvaluationError
from einthoven.evaluate import fit_calibration
from einthoven.explain import Attribution, Shares, shares_of
from einthoven.files import Json, read_json, write_json
from einthoven.predictions import Calibration, Predictions
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.report import cases
from einthoven.report.cases import (
    CLOSE,
    OVER,
    RIGHT,
    UNDER,
    WRONG,
    Calls,
    calls_of,
    examples_of,
    explain_examples,
    gallery_of,
    wrong_classes,
)
from einthoven.report.page import MOST_ERRORS, write_report

# Targets and calibrated probabilities of labels A, B and C; the thresholds are 0.5, 0.2 and none.
TABLE: dict[str, tuple[list[int], list[float]]] = {
    "hit A": ([1, 0, 1], [0.9, 0.1, 0.1]),
    "surer hit A": ([1, 0, 0], [0.95, 0.1, 0.9]),
    "hit B": ([0, 1, 0], [0.1, 0.25, 0.9]),
    "missed A": ([1, 0, 0], [0.4, 0.1, 0.9]),
    "surely missed A": ([1, 0, 0], [0.01, 0.1, 0.9]),
    "missed B": ([0, 1, 0], [0.1, 0.15, 0.9]),
    "alarm A, missed B": ([0, 1, 0], [0.6, 0.1, 0.9]),
    "alarm B": ([0, 0, 0], [0.1, 0.2, 0.9]),
    "right": ([0, 0, 0], [0.1, 0.1, 0.1]),
}


@pytest.fixture
def calls() -> Calls:
    targets, probabilities = zip(*TABLE.values(), strict=True)
    names = [f"folder/{name}" for name in TABLE]
    table = Predictions(("A", "B", "C"), names, ["p"] * len(names), targets, probabilities)
    return Calls(table, np.tile([0.5, 0.2, np.nan], (len(names), 1)), True)


def named(entries: list[Json]) -> list[tuple[str, str]]:
    return [(entry["record"], entry["label"]) for entry in entries]


def test_wrong_calls_are_complete_and_missed_labels_come_first(calls: Calls) -> None:
    """The most confident one of each label comes before the second of any."""
    gallery, records = gallery_of(calls, lambda row: None)
    assert named(gallery["errors"]) == [
        ("surely missed A", "A"),
        ("alarm A, missed B", "B"),
        ("missed A", "A"),
        ("missed B", "B"),
        ("alarm A, missed B", "A"),
        ("alarm B", "B"),
    ]
    kinds = [error["call"] for error in gallery["errors"]]
    assert kinds == ["missed"] * 4 + ["false alarm"] * 2
    assert (gallery["missed"], gallery["false_alarms"], gallery["records"]) == (4, 2, 5)
    assert (gallery["labels"], gallery["pairs"]) == (2, 18)
    assert gallery["errors"][0].items() >= {
        "patient": "p", "probability": 0.01, "threshold": 0.5, "predicted": "absent",
        "truth": "present", "quality": None,
    }.items()  # fmt: skip
    assert gallery["drawn"] == records == []


def test_examples_are_misses_then_false_alarms_then_hits(
    calls: Calls, make_record: Callable[..., Record]
) -> None:
    """A record is shown once, and one that cannot be read is passed over."""
    names = list(TABLE)
    unreadable = names.index("surely missed A")
    examples = examples_of(
        calls.table, calls, lambda row: None if row == unreadable else make_record()
    )
    assert [entry["record"] for entry, _ in examples] == [
        "alarm A, missed B", "missed A", "alarm B", "surer hit A", "hit B",
    ]  # fmt: skip
    entries = {entry["record"]: entry for entry, _ in examples}
    (hit,) = (x for x in entries["surer hit A"]["labels"] if x["label"] == "A")
    assert (hit["call"], hit["predicted"], hit["truth"]) == ("hit", "present", "present")
    (unknown,) = (x for x in entries["surer hit A"]["labels"] if x["label"] == "C")
    assert (unknown["call"], unknown["predicted"], unknown["threshold"]) == (None, None, None)


def test_examples_of_classes_are_wrong_and_right_ones_by_confidence(
    make_record: Callable[..., Record],
) -> None:
    table = Predictions(
        labels=("AF", "SR", "other"),
        records=["sure right", "unsure wrong", "sure wrong", "unknown", "unsure right"],
        patients=[""] * 5,
        targets=[[1, 0, 0], [1, 0, 0], [0, 0, 1], [np.nan] * 3, [0, 1, 0]],
        probabilities=[
            [0.9, 0.1, 0.0], [0.4, 0.5, 0.1], [0.8, 0.2, 0.0], [0.0, 0.0, 1.0], [0.3, 0.4, 0.3],
        ],
        metadata={"kind": "multiclass"},
    )  # fmt: skip
    examples = [entry for entry, _ in examples_of(table, None, lambda row: make_record())]
    assert [(entry["record"], entry["kind"], entry["label"]) for entry in examples] == [
        ("sure wrong", WRONG, "AF"),
        ("unsure wrong", WRONG, "SR"),
        ("sure right", RIGHT, "AF"),
        ("unsure right", RIGHT, "SR"),
    ]
    answers = examples[0]["labels"]
    assert [answer["label"] for answer in answers] == ["AF", "SR", "other"]
    assert [answer["predicted"] for answer in answers] == ["present", "absent", "absent"]
    assert [answer["truth"] for answer in answers] == ["absent", "absent", "present"]


def test_examples_of_numbers_are_the_largest_errors_and_the_closest_estimates(
    make_record: Callable[..., Record],
) -> None:
    """Errors are compared relative to the spread of each number."""
    errors = np.array([[5.0, 0.2], [-30.0, 0.0], [1.0, 0.9], [np.nan, -0.3], [0.5, -0.1]])
    truth = np.array([[40.0, 1.0], [80.0, 2.0], [60.0, 3.0], [np.nan, 2.0], [50.0, 1.0]])
    table = Predictions(
        labels=("age", "potassium"),
        records=list("abcde"),
        patients=[""] * 5,
        targets=truth,
        probabilities=np.nan_to_num(truth + errors, nan=70.0),
        metadata={"kind": "regression"},
    )
    examples = [entry for entry, _ in examples_of(table, None, lambda row: make_record())]
    assert [(entry["record"], entry["kind"], entry["label"]) for entry in examples] == [
        ("c", OVER, "potassium"),
        ("a", OVER, "age"),
        ("b", UNDER, "age"),
        ("d", UNDER, "potassium"),
        ("e", CLOSE, "age"),
    ]
    assert [answer["error"] for answer in examples[2]["labels"]] == pytest.approx([-30.0, 0.0])


def test_one_example_of_each_kind_is_explained(calls: Calls) -> None:
    """What cannot be explained has the reason."""
    record = sample_record()
    examples = [entry for entry, _ in examples_of(calls.table, calls, lambda row: record)]
    asked = []

    def explain(ecg: Record, label: str) -> tuple[Attribution, Shares]:
        asked.append(label)
        if len(asked) == 2:
            raise EvaluationError("no <captum>", remedy="install it")
        values = np.zeros(ecg.signal.shape, dtype=np.float32)
        values[STANDARD_LEADS.index("V2"), 100:110] = 1
        names = (label, "integrated-gradients", "lead-mean", 2.0, -1.0, 0.125)
        made = Attribution(
            values, STANDARD_LEADS, ecg.rate, *names, ("lead", "beat", "wave"), is_for_label=True
        )
        return made, shares_of(made, ecg)

    attributions = explain_examples(examples, [record] * len(examples), explain)
    firsts = list({entry["kind"]: entry for entry in examples[::-1]}.values())[::-1]
    assert [entry["kind"] for entry in firsts] == ["missed", "false alarm", "hit"]
    assert asked == [entry["label"] for entry in firsts]
    assert list(attributions) == [firsts[0]["row"], firsts[2]["row"]]
    reason = firsts[1]["not_explained"]
    assert reason.partition("(")[0].strip() == "no <captum>"
    assert "install it" in reason
    explanation = firsts[0]["explanation"]
    assert explanation["by_lead"]["V2"] == pytest.approx(1)
    assert explanation["completeness_error"] == 0.125
    assert sum("explanation" in entry for entry in examples) == 2


def test_records_with_errors_are_drawn_once_up_to_a_limit(
    calls: Calls, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = make_record()
    monkeypatch.setattr(cases, "MOST_DRAWINGS", 2)
    example = list(TABLE).index("surely missed A")
    gallery, records = gallery_of(calls, lambda row: flat, [example])
    assert [entry["record"] for entry in gallery["drawn"]] == ["alarm A, missed B", "missed A"]
    assert [error["call"] for error in gallery["drawn"][0]["errors"]] == ["missed", "false alarm"]
    assert records == [flat, flat]
    assert all("II" in error["quality"] for error in gallery["errors"])


def test_wrong_classes_are_those_of_known_records() -> None:
    truth = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [np.nan] * 3, [0, 1, 0]]
    shares = [[0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.2, 0.7, 0.1]]
    names = ["a", "x/b", "c", "d", "e"]
    table = Predictions(("N", "AF", "VT"), names, names, truth, shares, {"kind": "multiclass"})
    first, second = wrong_classes(table)
    assert (first["record"], first["truth"], first["predicted"]) == ("c", "VT", "AF")
    assert (first["probability"], first["probability_of_truth"]) == (0.8, 0.1)
    assert (second["row"], second["record"], second["patient"]) == (1, "b", "b")


def test_calls_of_folds_are_those_of_the_evaluation(tmp_path: Path) -> None:
    """The probabilities of a fold are calibrated, and called, by what the other folds fitted."""
    random = np.random.default_rng(0)
    targets = random.random((90, 2)) < 0.4
    values = 1 / (1 + np.exp(1 - 2.0 * targets - random.normal(size=targets.shape)))
    names = [f"r{i}" for i in range(90)]
    table = Predictions(("A", "B"), names, names, targets, values, {"folds": "3"})
    folds = np.arange(90) % 3
    write_json(
        tmp_path / "model" / "config.json", {"calibration": fit_calibration(table).to_dict()}
    )
    assert calls_of(tmp_path, table) is None
    for fold in range(3):
        part = tmp_path / "folds" / str(fold + 1) / "predictions" / "test.parquet"
        table.select(folds == fold).save(part)
    calls = calls_of(tmp_path, table)
    assert calls is not None
    for fold in range(3):
        others: Calibration = fit_calibration(table.select(folds != fold))
        rows = folds == fold
        assert calls.table.probabilities[rows] == pytest.approx(others.apply(values[rows]))
        assert (calls.thresholds[rows] == others.thresholds).all()


def test_all_wrong_calls_are_in_a_file_beside_the_page(
    runs: dict[str, Path], labels: tuple[str, ...], tmp_path: Path
) -> None:
    """The page and its JSON list the first ones."""
    run = tmp_path / "run"
    table = Predictions.load(runs["post-training"] / "predictions" / "test.parquet")
    table.save(run / "predictions" / "test.parquet")
    for name in ("run.json", "metrics.json"):
        write_json(run / name, read_json(runs["post-training"] / name))
    neutral = [1.0] * len(labels), [0.0] * len(labels), [0.1] * len(labels)
    calibration = dict(zip(("temperatures", "biases", "thresholds"), neutral, strict=True))
    write_json(run / "model" / "config.json", {"calibration": calibration})
    page = write_report([run], tmp_path / "page.html", resamples=40)
    wrong = (table.probabilities >= 0.1) != (table.require_targets() == 1)
    assert wrong.sum() > MOST_ERRORS
    file = pd.read_csv(tmp_path / "page.errors.csv")
    assert len(file) == wrong.sum()
    places = {record: row for row, record in enumerate(table.records)}
    for record, label, call in zip(file["record"], file["label"], file["call"], strict=True):
        row, column = places[record], labels.index(label)
        assert wrong[row, column]
        assert table.require_targets()[row, column] == (call == "missed")
    data = read_json(page.with_suffix(".json"))
    gallery = data["gallery"]
    assert data["recalibrated"] is False  # all temperatures are 1
    assert len(gallery["errors"]) == MOST_ERRORS
    assert "page.errors.csv" in page.read_text()
