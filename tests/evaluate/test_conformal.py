"""Prediction sets: bounds, coverage, agreement with MAPIE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from einthoven.errors import CalibrationError, EvaluationError
from einthoven.evaluate.calibrate import fit_calibration
from einthoven.evaluate.conformal import fit_sets, measure_coverage
from einthoven.evaluate.estimate import CONSTANT
from einthoven.predictions import Calibration, ClassSets, LabelSets, Predictions, ValueIntervals
from einthoven.predictions.sets import read_sets
from einthoven.report.coverage import coverage_tables


def scored(
    rng: np.random.Generator, records: int, prevalence: float, shift: float = 2.0
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Targets, and probabilities of which those of positives lie higher."""
    targets = (rng.random((records, 1)) < prevalence).astype(np.uint8)
    return targets, 1 / (1 + np.exp(-(rng.normal(size=(records, 1)) + shift * targets)))


def table(
    targets: NDArray[np.uint8], values: NDArray[np.float64], kind: str = "multilabel"
) -> Predictions:
    return Predictions.from_arrays(targets, values, kind=kind)


def test_bounds_are_order_statistics_of_each_class() -> None:
    values = np.arange(1, 40)[:, None] / 40
    targets = (np.arange(39)[:, None] >= 20).astype(np.uint8)
    sets = fit_sets(table(targets, values))
    assert isinstance(sets, LabelSets)
    # 19 positives: k = floor(20 / 10) = 2, their second lowest. 20 negatives: k = 2 as well.
    assert sets.lowest == (22 / 40,)
    assert sets.highest == (19 / 40,)
    probabilities, called = [[0.4], [0.5], [0.6], [0.6], [0.4]], [[0], [0], [1], [0], [1]]
    assert sets.answers(probabilities, called).ravel().tolist() == [
        "absent",
        "absent",  # rare with the label and without it, and not called
        "present",
        "cannot tell",  # rare without the label, and not called
        "cannot tell",  # called, and usual without the label
    ]


@pytest.mark.parametrize(("positives", "has_set"), [(8, False), (9, True)])
def test_a_bound_needs_nine_records_at_ninety_per_cent(positives: int, has_set: bool) -> None:
    targets = (np.arange(60)[:, None] < positives).astype(np.uint8)
    values = np.linspace(0.9, 0.1, 60)[:, None]
    sets = fit_sets(table(targets, values))
    assert isinstance(sets, LabelSets)
    assert (sets.lowest[0] is not None) == has_set
    assert (sets.answers(values, values > 0.5) != "").all() == has_set


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_holds_for_both_kinds_of_record(coverage: float) -> None:
    """Mean coverage over calibration sets is at least the one asked for, whatever is called."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        sets = fit_sets(table(*scored(rng, 400, 0.15)), coverage=coverage)
        targets, values = scored(rng, 400, 0.15)
        present, absent = sets.contains(values, values > 0.5)  # type: ignore[union-attr, misc]
        shares.append((present[targets == 1].mean(), absent[targets == 0].mean()))
    means, errors = np.mean(shares, axis=0), np.std(shares, axis=0) / np.sqrt(len(shares))
    assert (means > coverage - 3 * errors).all()


def test_unknown_targets_are_left_out() -> None:
    rng = np.random.default_rng(1)
    targets, values = scored(rng, 300, 0.3)
    masked = np.where(rng.random(targets.shape) < 0.3, np.nan, targets)
    known = ~np.isnan(masked[:, 0])
    assert fit_sets(table(masked, values)) == fit_sets(table(targets[known], values[known]))


@pytest.mark.filterwarnings("ignore:WARNING. your conformalization dataset:UserWarning")
def test_label_bounds_are_those_of_mapie() -> None:
    """MAPIE's split conformal classifier, calibrated on the records of one class at a time."""
    mapie = pytest.importorskip("mapie.classification")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """Classifier whose input is the probability of the label."""

        classes_ = np.array([0, 1])
        n_features_in_ = 1

        def fit(self, x: object, y: object) -> Given:
            return self

        def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.column_stack([1 - x[:, 0], x[:, 0]])

        def predict(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
            return (x[:, 0] >= 0.5).astype(np.int64)

        def __sklearn_is_fitted__(self) -> bool:
            return True

    rng = np.random.default_rng(2)
    targets, values = scored(rng, 500, 0.3)
    sets = fit_sets(table(targets, values))
    _, later = scored(rng, 400, 0.3)
    for kind, other in ((1, 0), (0, 1)):
        own = targets[:, 0] == kind
        # A call of the other answer adds nothing to this one's set.
        side = sets.contains(later, np.full(later.shape, other))[other]  # type: ignore[union-attr, misc]
        reference = mapie.SplitConformalClassifier(
            Given(), confidence_level=0.9, conformity_score="lac", prefit=True
        )
        reference.conformalize(values[own], targets[own, 0])
        _, expected = reference.predict_set(later)
        np.testing.assert_array_equal(side[:, 0], expected[:, kind, 0])


def test_intervals_of_numbers_are_those_of_mapie() -> None:
    mapie = pytest.importorskip("mapie.regression")
    from sklearn.dummy import DummyRegressor

    rng = np.random.default_rng(3)
    targets = rng.normal(60, 10, 200)
    constant = DummyRegressor(strategy="constant", constant=58.0).fit(targets[:, None], targets)
    reference = mapie.SplitConformalRegressor(constant, confidence_level=0.9, prefit=True)
    reference.conformalize(targets[:, None], targets)
    _, expected = reference.predict_interval(targets[:1, None])
    sets = fit_sets(Predictions.from_arrays(targets, np.full(200, 58.0), kind="regression"))
    assert isinstance(sets, ValueIntervals)
    np.testing.assert_allclose(np.ravel(sets.bounds([58.0])), np.ravel(expected))


def test_class_sets_cover_every_class() -> None:
    rng = np.random.default_rng(4)

    def draw(records: int) -> Predictions:
        true = rng.choice(3, records, p=[0.7, 0.2, 0.1])
        logits = rng.normal(size=(records, 3)) + 1.5 * np.eye(3)[true]
        values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return table(np.eye(3, dtype=np.uint8)[true], values, "multiclass")

    covered = []
    for _ in range(100):
        sets, later = fit_sets(draw(500)), draw(500)
        assert isinstance(sets, ClassSets)
        inside = sets.contains(later.probabilities)
        true = later.require_targets() == 1
        covered.append((inside & true).sum(axis=0) / true.sum(axis=0))
    assert (np.mean(covered, axis=0) > 0.89).all()


def test_measured_coverage_counts_records_groups_and_answers() -> None:
    targets = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=np.uint8)[:, None]
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.5, 0.3, 0.1, 0.1, 0.1])[:, None]
    sets = LabelSets(0.9, (0.45,), (0.45,))
    sex = np.array(["f"] * 5 + ["m"] * 5)
    calibration = Calibration((1.0,), (0.0,), (0.3,))
    report = measure_coverage(
        table(targets, values), calibration, sets, {"sex": sex}, resamples=100
    )
    overall = report["overall"]
    assert (overall["present"]["covered"], overall["absent"]["covered"]) == (0.8, 0.8)
    assert overall["undecided"] == 0.1  # 0.3 is called, and usual without the label
    female, male = report["attributes"]["sex"]
    assert (female["present"]["covered"], female["absent"]["covered"]) == (0.8, None)
    assert (male["records"], male["undecided"]) == (5, 0.2)
    assert report["per_label"]["0"]["present"]["records"] == 5
    assert overall["present"]["interval"] is not None


def test_a_coverage_that_does_not_vary_has_no_interval() -> None:
    targets = np.repeat([1, 0], 6).astype(np.uint8)[:, None]
    sets = LabelSets(0.9, (0.5,), (0.5,))
    calibration = Calibration((1.0,), (0.0,), (0.5,))
    options: Any = {"calibration": calibration, "sets": sets, "resamples": 100}
    report = measure_coverage(table(targets, 0.8 * targets + 0.1), attributes={}, **options)
    assert report["overall"]["present"] == {"covered": 1.0, "interval": None, "labels": 1}
    shown = coverage_tables(report)[0].cells[0]
    assert CONSTANT in str(shown[2])
    none = measure_coverage(
        table(targets, targets),
        attributes={},
        **options | {"sets": LabelSets(0.9, (None,), (None,))},
    )
    assert coverage_tables(none) == []


def test_folds_are_answered_by_bounds_of_the_other_folds() -> None:
    rng = np.random.default_rng(5)
    targets, values = scored(rng, 200, 0.4)
    predictions, folds = table(targets, values), np.arange(200) % 4
    calibration = fit_calibration(predictions)
    options = {"folds": folds, "resamples": 0}
    report = measure_coverage(predictions, calibration, fit_sets(predictions), {}, **options)
    hits = 0
    for fold in range(4):
        rows, others = folds == fold, predictions.select(folds != fold)
        own = fit_calibration(others)
        sets = fit_sets(replace(others, probabilities=own.apply(others.probabilities)))
        calibrated = own.apply(values[rows])
        present, _ = sets.contains(calibrated, own.decide(calibrated))  # type: ignore[union-attr, misc]
        hits += (present & (targets[rows] == 1)).sum()
    assert report["cross_fitted"]
    assert report["overall"]["present"]["covered"] == pytest.approx(hits / (targets == 1).sum())


@pytest.mark.parametrize(
    "sets",
    [
        LabelSets(0.9, (0.2, None), (0.1, 0.7)),
        ClassSets(0.8, (0.2, None, 0.5)),
        ValueIntervals(0.9, (2.5, None)),
    ],
)
def test_sets_are_read_as_they_were_written(sets: LabelSets | ClassSets | ValueIntervals) -> None:
    assert read_sets(sets.to_dict()) == sets


def test_wrong_values_are_refused() -> None:
    with pytest.raises(CalibrationError):
        LabelSets(1.5, (0.2,), (0.1,))
    with pytest.raises(CalibrationError):
        LabelSets(0.9, (0.2,), (0.1, 0.3))
    with pytest.raises(CalibrationError):
        LabelSets(0.9, (0.2,), (0.1,)).answers([[0.2, 0.3]], [[0, 1]])
    with pytest.raises(EvaluationError):
        fit_sets(Predictions(("A",), np.array(["r"]), np.array(["p"]), None, np.array([[0.5]])))
