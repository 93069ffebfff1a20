"""Metrics of predictions: AUROC and area under the precision-recall curve by label, and F-max.

A label is *defined* where the records hold at least one of its positives and one of its negatives;
both areas are NaN for other labels, and a policy of `estimate` determines how a mean treats them.

One computation serves the whole set and its bootstrap resamples. Both areas are sums over the
steps of a label's ranking, the groups of records with equal probability that hold a positive: only
there can recall change. In a resample every record counts as often as it was drawn, so a step
needs three weighted sums, which one sparse product takes for all steps and all resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from einthoven.errors import EvaluationError
from einthoven.predictions import Predictions
from einthoven.tasks.task import Matrix

Floats = NDArray[np.float64]

AuprcDefinition = Literal["average-precision", "trapezoid"]
THRESHOLDS = np.linspace(0.0, 1.0, 101)  # of F-max: 0, 0.01, ... 1
RESAMPLES_AT_A_TIME = 256  # their multiplicities and sums stay in the processor's cache


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
        If shapes disagree, a target is not 0, 1 or NaN, or a probability is outside [0, 1].
    """
    return point_metrics(_ranking(targets, probabilities))[0]


def average_precision(targets: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Average precision, the sum of (R_i - R_{i-1}) P_i over distinct thresholds, by label.

    Equal to scikit-learn's `average_precision_score`, except that a label without negatives is NaN
    here and 1 there. Parameters, result and errors are those of `auroc`.
    """
    return point_metrics(_ranking(targets, probabilities))[1]


def trapezoid_auprc(targets: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Area under the linearly interpolated precision-recall curve, by label.

    Equal to scikit-learn's `auc(recall, precision)`, and not to average precision (0.354 against
    0.371 for one PTB-XL network). The curve starts at recall 0, precision 1.
    """
    return point_metrics(_ranking(targets, probabilities), auprc="trapezoid")[1]


def f_max(targets: ArrayLike, probabilities: ArrayLike) -> float:
    """F-max, sample-centric, as in the PTB-XL benchmark (Strodthoff et al. 2021).

    At each threshold t of 0, 0.01, ... 1 a label is predicted where its probability is >= t.
    Precision is averaged over the records with at least one predicted label, recall over all
    records, F is their harmonic mean, and F-max the largest F. The threshold is thus chosen on
    the set it is reported on.

    Raises
    ------
    EvaluationError
        If a record has no true label, so that its recall is undefined; and as in `auroc`.
    """
    table = Predictions.from_arrays(targets, probabilities)
    true, scores = table.require_targets(), table.probabilities
    if np.isnan(true).any():
        raise EvaluationError(
            "some targets are not known, so that recall is undefined", remedy="leave out F-max"
        )
    empty = int((true.sum(axis=1) == 0).sum())
    if empty:
        raise EvaluationError(
            f"{empty} of {len(true)} records have no true label, so their recall is undefined",
            remedy="leave them out of F-max",
        )
    # A label is predicted at the first `passed` thresholds, and at none after them.
    passed = np.searchsorted(THRESHOLDS, scores, side="right")
    predicted = _count_predicted(passed, np.ones_like(true))
    hits = _count_predicted(passed, true)
    return _best_f(hits, predicted, true.sum(axis=1, keepdims=True))


def _count_predicted(passed: NDArray[np.intp], counted: NDArray[np.uint8]) -> Floats:
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


class LabelRanking(NamedTuple):
    """The records in descending order of a label's probability, cut into steps.

    `steps` is a sparse array of shape (3 x steps, records): rows 3 i, 3 i + 1 and 3 i + 2 mark the
    negatives ranked between steps i - 1 and i, the negatives tied with step i, and its positives.
    `has_target` marks the records whose target is known, shape (records,); None if all are.
    """

    steps: csr_array[Any]
    has_target: NDArray[np.bool_] | None

    def weighted(self, weights: Floats) -> Floats:
        """Weights of the records, (records, resamples), 0 where the target is not known."""
        return weights if self.has_target is None else weights * self.has_target[:, None]


Ranking = tuple[LabelRanking, ...]


def rank(targets: Matrix, probabilities: NDArray[np.float64]) -> Ranking:
    """Rank the records of every label.

    Parameters
    ----------
    targets : array, shape (records, labels)
        0 or 1; NaN where it is not known.
    probabilities : array of float64, shape (records, labels)
        In [0, 1].
    """
    if targets.dtype != np.uint8:
        return tuple(
            _rank_known(*columns) for columns in zip(targets.T, probabilities.T, strict=True)
        )
    order = np.lexsort((targets, -probabilities), axis=0)  # negatives first among equals
    ranked = (np.take_along_axis(table, order, axis=0) for table in (targets, probabilities))
    columns = zip(order.T, *(table.T for table in ranked), strict=True)
    return tuple(LabelRanking(_steps(*column), None) for column in columns)


def _rank_known(target: Floats, score: Floats) -> LabelRanking:
    """Rank the records in which a label is known."""
    has_target = ~np.isnan(target)
    places = np.flatnonzero(has_target)
    order = np.lexsort((target[has_target], -score[has_target]))
    steps = _steps(order, target[has_target][order].astype(np.uint8), score[has_target][order])
    return LabelRanking(
        csr_array(
            (steps.data, places[steps.indices], steps.indptr), shape=(steps.shape[0], target.size)
        ),
        has_target,
    )


def _steps(
    order: NDArray[np.intp], target: NDArray[np.uint8], score: NDArray[np.float64]
) -> csr_array[Any]:
    place = np.arange(score.size)
    opens = np.append(True, score[1:] != score[:-1])
    group = np.maximum.accumulate(np.where(opens, place, 0))  # where each record's group begins
    positives = np.flatnonzero(target == 1)
    begins, first, counts = np.unique(group[positives], return_index=True, return_counts=True)
    starts = positives[first]
    cuts = np.column_stack([begins, starts, starts + counts]).ravel()
    members = order[: cuts[-1]] if cuts.size else order[:0]
    return csr_array(
        (np.ones(members.size), members, np.append(0, cuts)), shape=(cuts.size, score.size)
    )


def _ranking(targets: ArrayLike, probabilities: ArrayLike) -> Ranking:
    table = Predictions.from_arrays(targets, probabilities)
    return rank(table.require_targets(), table.probabilities)


def point_metrics(
    ranking: Ranking, *, auprc: AuprcDefinition = "average-precision"
) -> tuple[Floats, Floats, Floats]:
    """The metrics of `resampled_metrics`, each of shape (labels,), every record counted once."""
    once = np.ones((1, ranking[0].steps.shape[1]), np.uint8)
    areas, precisions, leave_one_out = resampled_metrics(ranking, once, auprc=auprc)
    return areas[0], precisions[0], leave_one_out[0]


def resampled_metrics(
    ranking: Ranking,
    multiplicities: NDArray[np.integer[Any]],
    *,
    auprc: AuprcDefinition = "average-precision",
) -> tuple[Floats, Floats, Floats]:
    """AUROC, AUPRC and leave-one-out AUPRC of every label in every resample.

    The precision at a positive's threshold counts that positive itself. Among the other records at
    or above it, the expected share of positives is the precision in the population; the mean of
    these shares over the positives is the leave-one-out AUPRC. A resampled positive leaves out all
    of its copies; a positive with no other record at or above it counts as 1.

    Parameters
    ----------
    ranking : Ranking
    multiplicities : array of integers, shape (resamples, records)
        How often each record occurs in each resample.
    auprc : {"average-precision", "trapezoid"}
        Definition of the area under the precision-recall curve.

    Returns
    -------
    auroc, auprc, leave_one_out : arrays of float64, shape (resamples, labels)
        NaN where a resample holds no positive, or no negative, of the label.
    """
    shape = (len(multiplicities), len(ranking))
    areas, precisions, leave_one_out = np.empty(shape), np.empty(shape), np.empty(shape)
    for rows, weights in weight_blocks(multiplicities):
        for label, ranked in enumerate(ranking):
            areas[rows, label], precisions[rows, label], leave_one_out[rows, label] = _areas(
                ranked.steps, ranked.weighted(weights), auprc
            )
    return areas, precisions, leave_one_out


def weight_blocks(multiplicities: NDArray[np.integer[Any]]) -> Iterator[tuple[slice, Floats]]:
    """Blocks of resamples: their rows, and the weights of the records, (records, resamples)."""
    for start in range(0, len(multiplicities), RESAMPLES_AT_A_TIME):
        rows = slice(start, start + RESAMPLES_AT_A_TIME)
        yield rows, np.ascontiguousarray(multiplicities[rows].T, dtype=np.float64)


def known_mean(values: Floats, axis: int) -> Floats:
    """Mean over an axis of what is not NaN; NaN where nothing is."""
    has_value = ~np.isnan(values)
    count = has_value.sum(axis=axis)
    total = np.where(has_value, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


class StepCounts(NamedTuple):
    """Weighted counts of records at the steps of a label's ranking, shape (steps, resamples).

    `ties` are the negatives and `gains` the positives of a step itself, `misses` the negatives and
    `hits` the positives down to its end.
    """

    ties: Floats
    gains: Floats
    misses: Floats
    hits: Floats


def count_steps(steps: csr_array[Any], weights: Floats) -> StepCounts:
    """Count the records at the steps of one label; `weights` has shape (records, resamples)."""
    sums = (steps @ weights).reshape(-1, 3, weights.shape[1])
    ties, gains = sums[:, 1], sums[:, 2]
    return StepCounts(ties, gains, (sums[:, 0] + ties).cumsum(axis=0), gains.cumsum(axis=0))


def _areas(
    steps: csr_array[Any], weights: Floats, auprc: AuprcDefinition
) -> tuple[Floats, Floats, Floats]:
    # The areas of one label, shape (resamples,); `weights` has shape (records, resamples).
    ties, gains, misses, hits = count_steps(steps, weights)
    precision = hits / np.maximum(hits + misses, 1)
    own = gains / np.diff(steps.indptr)[2::3, None]  # mean weight of the step's positives
    others = hits + misses - own
    leave_one_out = np.divide(hits - own, others, out=np.ones_like(own), where=others > 0)
    if auprc == "trapezoid":
        ranked = hits - gains + misses - ties
        before = np.where(ranked > 0, (hits - gains) / np.maximum(ranked, 1), 1.0)
        precision = (precision + before) / 2
    positives = gains.sum(axis=0)
    negatives = weights.sum(axis=0) - positives
    defined = (positives > 0) & (negatives > 0)
    # Pairs in the wrong order: negatives above each positive, and half of those tied with it.
    wrong = (gains * (misses - ties / 2)).sum(axis=0)
    pairs = np.where(defined, positives * negatives, 1)
    auroc = np.where(defined, 1 - wrong / pairs, np.nan)
    positives = np.where(defined, positives, np.nan)
    area, unbiased = ((gains * values).sum(axis=0) for values in (precision, leave_one_out))
    return auroc, area / positives, unbiased / positives
