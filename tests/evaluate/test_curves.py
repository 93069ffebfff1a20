"""Curves against scikit-learn and against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from einthoven.evaluate import calibration_report, fit_calibration
from einthoven.evaluate.curves import (
    FALSE_POSITIVE_RATES,
    MANY_LABELS,
    MOST_LABELS,
    RECALLS,
    THRESHOLDS,
    Curves,
    curves,
)
from einthoven.evaluate.estimate import TOO_FEW, Bootstrap, BootstrapSettings
from einthoven.predictions import Calibration, Predictions


def table(
    records: int = 300, *, prevalence: float = 0.2, labels: int = 3, ties: bool = False
) -> Predictions:
    source = np.random.default_rng(4)
    targets = (source.random((records, labels)) < prevalence).astype(np.uint8)
    scores = 1 / (1 + np.exp(-(source.normal(size=targets.shape) + 1.5 * targets - 1)))
    patients = [f"p{i // 2}" for i in range(records)]
    scores = np.round(scores, 1) if ties else scores
    return Predictions.from_arrays(targets, scores, patients=patients)


def drawn(predictions: Predictions, resamples: int = 60) -> Curves:
    result = curves(predictions, calibration_report(predictions), resamples=resamples)
    assert result is not None
    return result


@pytest.mark.parametrize("ties", [False, True])
def test_curves_equal_those_of_scikit_learn(ties: bool) -> None:
    predictions = table(ties=ties)
    targets = predictions.require_targets()
    for i, (label, entry) in enumerate(drawn(predictions).labels.items()):
        assert label == predictions.labels[i]
        y, p = targets[:, i], predictions.probabilities[:, i]
        fpr, tpr, _ = roc_curve(y, p)
        # The highest sensitivity at a rate, and a straight line between thresholds.
        inside = np.nextafter(FALSE_POSITIVE_RATES, 2)
        np.testing.assert_allclose(entry.roc.value, np.interp(inside, fpr, tpr), atol=1e-9)
        precision, recall, _ = precision_recall_curve(y, p)
        # Recall falls along the arrays: the last entry that reaches a recall.
        expected = [precision[np.flatnonzero(recall >= r - 1e-9)[-1]] for r in RECALLS]
        np.testing.assert_allclose(entry.precision.value, expected, atol=1e-12)


def test_the_mean_precision_over_recalls_is_average_precision() -> None:
    """With 50 positives, the grid has the recall of each of them."""
    targets = np.repeat([1, 0], [50, 250])
    scores = np.random.default_rng(0).random(300) * 0.7 + 0.2 * targets
    entry = drawn(Predictions.from_arrays(targets, scores)).labels["0"]
    assert entry.precision.value.mean() == pytest.approx(average_precision_score(targets, scores))


def test_net_benefit_by_hand() -> None:
    """At a threshold of 0.36: one of four calls is wrong, six of ten records are not called."""
    targets = np.repeat([1, 0], [5, 5])
    scores = np.array([0.9, 0.8, 0.7, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1])
    entry = drawn(Predictions.from_arrays(targets, scores)).labels["0"]
    place = int(np.flatnonzero(np.isclose(THRESHOLDS, 0.36))[0])
    assert entry.net_benefit.value[place] == pytest.approx(0.3 - 0.1 * 0.36 / 0.64)
    assert entry.treat_all[place] == pytest.approx(0.5 - 0.5 * 0.36 / 0.64)
    below = int(np.flatnonzero(THRESHOLDS < 0.1)[-1])
    assert entry.net_benefit.value[below] == pytest.approx(entry.treat_all[below])


def test_net_benefit_is_of_calibrated_probabilities() -> None:
    predictions = table(labels=1)
    half = Calibration(temperatures=(1.0,), biases=(-2.0,), thresholds=(0.5,))
    result = curves(predictions, calibration_report(predictions, half), resamples=0)
    assert result is not None
    moved = Predictions.from_arrays(
        predictions.require_targets(), half.apply(predictions.probabilities)
    )
    expected = drawn(moved, 0).labels["0"]
    np.testing.assert_allclose(result.labels["0"].net_benefit.value, expected.net_benefit.value)
    np.testing.assert_allclose(
        result.labels["0"].roc.value, drawn(predictions, 0).labels["0"].roc.value
    )


def test_bands_are_percentiles_over_resampled_patients() -> None:
    """A resample is scored by scikit-learn with weights, the number of copies of each record."""
    predictions = table(records=80, labels=1)
    entry = drawn(predictions, 60).labels["0"]
    settings = BootstrapSettings(60, 0, "skip", by="patient")
    copies = Bootstrap.of(predictions, settings).draws.multiplicities
    assert (copies[:, ::2] == copies[:, 1::2]).all()  # the two records of a patient
    y, p = predictions.require_targets()[:, 0], predictions.probabilities[:, 0]
    inside, rocs, benefits = np.nextafter(FALSE_POSITIVE_RATES, 2), [], []
    for weights in copies:
        fpr, tpr, _ = roc_curve(y, p, sample_weight=weights, drop_intermediate=False)
        rocs.append(np.interp(inside, fpr, tpr))
        called = p[:, None] >= THRESHOLDS
        gains = np.where(y[:, None] == 1, 1, -THRESHOLDS / (1 - THRESHOLDS)) * called
        benefits.append(np.average(gains, axis=0, weights=weights))
    for band, curves_ in ((entry.roc, rocs), (entry.net_benefit, benefits)):
        expected = np.quantile(curves_, [0.025, 0.975], axis=0)
        np.testing.assert_allclose(band.limits, expected, atol=1e-5)
    assert drawn(predictions, 0).labels["0"].roc.limits is None


def test_unknown_patients_are_not_resampled() -> None:
    predictions = table()
    unnamed = Predictions.from_arrays(predictions.require_targets(), predictions.probabilities)
    assert drawn(unnamed).settings.by == "record"


def test_rare_labels_have_no_curves_and_many_are_cut_to_the_most_frequent() -> None:
    targets = np.zeros((200, MOST_LABELS + 3), dtype=np.uint8)
    for i in range(targets.shape[1]):
        targets[: 4 + i, i] = 1
    scores = np.random.default_rng(2).random(targets.shape)
    result = drawn(Predictions.from_arrays(targets, scores), 20)
    assert list(result.labels) == [str(i) for i in range(3, MOST_LABELS + 3)]
    assert result.left_out == {"0": TOO_FEW, "1": MANY_LABELS, "2": MANY_LABELS}
    assert result.averaged == MOST_LABELS + 2
    few = Predictions.from_arrays(targets[:, 0], scores[:, 0])
    assert curves(few, calibration_report(few)) is None
    # Ten positive records of two patients.
    patients = np.arange(200) // 5
    two = Predictions.from_arrays(targets[:, 6], scores[:, 6], patients=patients)
    assert curves(two, calibration_report(two)) is None


def test_the_mean_curve_is_the_mean_over_labels() -> None:
    result = drawn(table(), 20)
    mean = np.mean([entry.roc.value for entry in result.labels.values()], axis=0)
    np.testing.assert_allclose(result.roc.value, mean)


def test_bins_hold_every_record_and_follow_their_number() -> None:
    for records, bins in ((38, 3), (400, 8), (2000, 15)):
        predictions = table(records, prevalence=0.4, labels=1)
        fitted = calibration_report(predictions, fit_calibration(predictions), resamples=0)
        result = curves(predictions, fitted, resamples=0)
        assert result is not None, records
        entries = result.labels["0"].bins
        assert len(entries) == bins == fitted.bins
        assert sum(entry["records"] for entry in entries) == records
        low, high = entries[-1]["interval"]
        assert low < entries[-1]["observed"] < high


def test_json_has_the_grids_and_no_number_that_is_not_finite() -> None:
    stored = drawn(table()).to_dict()
    assert len(stored["false_positive_rates"]) == len(stored["macro"]["roc"]["low"])
    entry = stored["per_label"]["0"]
    assert len(entry["net_benefit"]["high"]) == len(stored["thresholds"]) == len(entry["treat_all"])
    assert (entry["positives"] + entry["negatives"], stored["unit"]) == (300, "patient")
