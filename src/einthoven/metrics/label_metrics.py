"""Metrics of a set of predictions: each label's ranking, and F-max over records.

A label is *defined* where the set holds at least one of its positives and one of its negatives;
every metric of another label is NaN, and `undefined` says what a mean does about it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError
from einthoven.metrics.ranking import Integers, Ranking, rank
from einthoven.predictions import checked_probabilities, checked_targets

Floats = NDArray[np.float64]

AUPRC = ("average-precision", "trapezoid")
THRESHOLDS = np.linspace(0.0, 1.0, 101)  # of F-max: 0, 0.01, ... 1


def auroc(targets: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Area under the receiver operating characteristic, P(s+ > s-) + P(s+ = s-) / 2, by label.

    Parameters
    ----------
    targets, probabilities : array, shape (records, labels)
        One column for each label; a vector is one label.

    Returns
    -------
    array of float64, shape (labels,)
        NaN for a label without positives or without negatives.

    Raises
    ------
    EvaluationError
        For shapes that disagree, targets that are not 0 or 1, probabilities outside [0, 1].
    """
    return point_metrics(_ranked(targets, probabilities))[0]


def average_precision(targets: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Average precision, the sum of (R_i - R_{i-1}) P_i over distinct thresholds, by label.

    This is what scikit-learn's `average_precision_score` returns. Parameters, result and errors
    are those of `auroc`; so is the NaN of a label without negatives, where scikit-learn says 1.
    """
    return point_metrics(_ranked(targets, probabilities))[1]


def trapezoid_auprc(targets: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Area under the linearly interpolated precision-recall curve, by label.

    This is scikit-learn's `auc(recall, precision)`; it is another number than average precision
    (0.354 against 0.371 for one PTB-XL network). The curve starts at recall 0, precision 1.
    """
    return point_metrics(_ranked(targets, probabilities), auprc="trapezoid")[1]


def f_max(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """F-max, sample-centric, as in the PTB-XL benchmark (Strodthoff et al. 2021).

    At each threshold t of 0, 0.01, ... 1 a label is predicted where its probability is >= t.
    Precision is averaged over the records with at least one predicted label, recall over all
    records, F is their harmonic mean, and F-max the largest F. The threshold is thus chosen on
    the set it is reported on.

    Raises
    ------
    EvaluationError
        For a record without any true label, whose recall is undefined; and as in `auroc`.
    """
    true, scores = _checked(targets, probabilities)
    empty = int((true.sum(axis=1) == 0).sum())
    if empty:
        raise EvaluationError(
            f"{empty} of {len(true)} records have no true label, so their recall is undefined",
            remedy="leave them out of F-max",
        )
    # A label is predicted at the first `passed` thresholds, and at none after them.
    passed = np.searchsorted(THRESHOLDS, scores, side="right")
    predicted = _predicted(passed, np.ones_like(true))
    hits = _predicted(passed, true)
    return _best_f(hits, predicted, true.sum(axis=1, keepdims=True))


def _predicted(passed: NDArray[np.intp], counted: NDArray[np.uint8]) -> Floats:
    # (records, thresholds): how many of the counted labels are predicted at each threshold.
    records, slots = len(passed), THRESHOLDS.size + 1
    cell = passed + np.arange(records)[:, None] * slots
    counts = np.bincount(cell.ravel(), weights=counted.ravel(), minlength=records * slots)
    return counts.reshape(records, slots)[:, :0:-1].cumsum(axis=1)[:, ::-1]


def _best_f(hits: Floats, predicted: Floats, true: NDArray[np.integer]) -> float:
    some = (predicted > 0).sum(axis=0)
    precision = (hits / np.maximum(predicted, 1)).sum(axis=0) / np.maximum(some, 1)
    recall = (hits / true).mean(axis=0)
    total = precision + recall
    return float((2 * precision * recall / np.where(total > 0, total, 1)).max())


def point_metrics(ranking: Ranking, *, auprc: str = "average-precision") -> tuple[Floats, Floats]:
    """AUROC and AUPRC of every label, each of shape (labels,), every record counted once."""
    pairs = [
        _label_metrics(*ranking.steps(label), ranking.records, auprc == "trapezoid")
        for label in range(ranking.labels)
    ]
    areas, precisions = np.array(pairs).T
    return areas, precisions


def _label_metrics(
    first: Integers, positive: Integers, end: Integers, records: int, trapezoid: bool
) -> tuple[float, float]:
    gained = (end - positive).astype(np.float64)
    positives = gained.sum()
    negatives = records - positives
    if not positives or not negatives:
        return np.nan, np.nan
    found = gained.cumsum()
    precision = found / end
    if trapezoid:
        precision = (precision + _precision_before(first, found - gained)) / 2
    # Negatives ranked above a step's positives, those tied with them counted one half.
    above = end - found - (positive - first) / 2
    return (
        float(1 - (gained * above).sum() / (positives * negatives)),
        float((gained * precision).sum() / positives),
    )


def _precision_before(first: Integers, found: Floats) -> Floats:
    return np.where(first > 0, found / np.maximum(first, 1), 1.0)


def _ranked(targets: ArrayLike, probabilities: ArrayLike) -> Ranking:
    return rank(*_checked(targets, probabilities))


def _checked(
    targets: ArrayLike, probabilities: ArrayLike
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    true, scores = _columns(targets), _columns(probabilities)
    labels = [str(i) for i in range(true.shape[-1] if true.ndim else 0)]
    if true.shape != scores.shape:
        raise EvaluationError(
            f"targets have shape {true.shape}, probabilities {scores.shape}",
            remedy="pass both as (records, labels), or both as vectors of one label",
        )
    return checked_targets(true, labels), checked_probabilities(scores, labels)


def _columns(values: ArrayLike) -> NDArray[np.generic]:
    array = np.asarray(values)
    return array[:, None] if array.ndim == 1 else array
