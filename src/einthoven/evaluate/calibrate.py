"""Fitting a calibration, on validation predictions and on nothing else.

A label's slope a = 1 / T is fitted by maximum likelihood on the logits of the validation split,
with a normal prior about the slope that all labels share; its standard deviation is `SPREAD` times
that slope. Where the records say more about a slope than the prior does, as they do with many
positives, the label goes its own way; with a handful it stays near the shared slope, and without a
positive or without a negative it is given the shared one itself. The objective is convex, so there
is one answer.

Five-fold cross-validation by patients within PTB-XL's fold 9, for four networks, had its lowest log
loss at a spread of 0.05 or 0.1 and rose to both sides; 0.1 is the default. A bias is not fitted
unless it is asked for.

A label's threshold is the one with the highest F1 on the same predictions, after calibration: half
way between the lowest probability that is called present and the highest that is not. Of
thresholds with equal F1 the highest wins, so that fewer records are called. With a handful of
positives the highest F1 is an accident: fitted on one half of fold 9 (four networks, halves by
patients), such thresholds called labels with fewer than five positives in 4 to 14 of a hundred
records of the other half, where 2 to 4 in a thousand had them. A label with fewer than `FEW`
positives is therefore called as often as it has positives (where precision equals recall), which
did as well by F1 there; or as near to that as equal probabilities allow. A label without a positive
or without a negative is given `NO_THRESHOLD`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einthoven.calibration import Calibration, sigmoid
from einthoven.errors import EvaluationError
from einthoven.evaluate.scores import checked_truth
from einthoven.predictions import checked_probabilities

Floats = NDArray[np.float64]

SPREAD = 0.1  # standard deviation of a label's slope, as a part of the shared slope
BIAS_SPREAD = 0.25  # of a label's bias about 0; chosen like SPREAD
SHARED_SPREAD = 1.0  # of the shared slope about 1: keeps it finite where nothing is told wrong
LIMIT = 10.0  # no temperature is more than this factor away from 1 (shared) or from the shared one
FEW = 5  # positives below which no F1 is maximised
NO_THRESHOLD = 0.5
SURE = 1e-15  # probabilities count as at least this far from 0 and from 1
STEPS, HALVINGS, SMALL = 100, 40, 1e-8  # of Newton's method
NOISE = 1e-12  # relative; below it two losses do not differ
PINNED = 1e12  # precision that leaves a parameter where its prior is


def fit_calibration(
    targets: ArrayLike,
    probabilities: ArrayLike,
    labels: Sequence[str],
    *,
    bias: bool = False,
    spread: float = SPREAD,
) -> Calibration:
    """Fit temperature and threshold, and a bias where asked for, of every label.

    Parameters
    ----------
    targets, probabilities : array, shape (records, labels)
        Of the validation split: 0 or 1, and what the network said, not calibrated.
    labels : sequence of str
        Names of the columns.
    bias : bool
        Fit a bias beside the temperature (Platt scaling), with a normal prior of standard
        deviation `BIAS_SPREAD` about 0.
    spread : float
        How far labels may go from the shared temperature; see the module. Near 0 all labels share
        one temperature.

    Returns
    -------
    Calibration

    Raises
    ------
    EvaluationError
        For a spread that is not above 0, and for tables that `score` would refuse.
    """
    if not spread > 0:
        raise EvaluationError(
            f"spread = {spread!r} is not above 0", remedy=f"pass spread={SPREAD}, the default"
        )
    truth = checked_truth(targets, labels)
    given = checked_probabilities(probabilities, truth.labels)
    if given.shape != truth.targets.shape:
        raise EvaluationError(
            f"targets have shape {truth.targets.shape}, probabilities {given.shape}",
            remedy="pass both for the same records, in the same order",
        )
    true = truth.targets.astype(np.float64)
    slopes, biases = _fit(logits(given), true, spread=spread, bias=bias)
    temperatures, shifts = tuple((1 / slopes).tolist()), tuple(biases.tolist())
    fitted = Calibration(temperatures, shifts, (NO_THRESHOLD,) * len(temperatures))
    thresholds = best_thresholds(truth.targets, fitted.apply(given))
    return Calibration(temperatures, shifts, thresholds)


def best_thresholds(targets: NDArray[np.uint8], calibrated: Floats) -> tuple[float, ...]:
    """The threshold of every label, by the rule of this module.

    Parameters
    ----------
    targets, calibrated : array, shape (records, labels)

    Returns
    -------
    tuple of float, one a label
        `NO_THRESHOLD` for a label without a positive or without a negative.
    """
    order = np.argsort(-calibrated, axis=0, kind="stable")
    ranked = np.take_along_axis(calibrated, order, axis=0)
    true = np.take_along_axis(targets, order, axis=0)
    below = np.concatenate([ranked[1:], np.zeros_like(ranked[:1])])
    called = np.arange(1, len(ranked) + 1)[:, None]
    positives = true.sum(axis=0, dtype=np.int64)
    f1 = 2 * true.cumsum(axis=0, dtype=np.int64) / (called + positives)
    worth = np.where(positives < FEW, -np.abs(called - positives), f1)
    # A threshold cannot part equal probabilities. The first of equal maxima calls the fewest.
    worth[:-1][ranked[:-1] == ranked[1:]] = -np.inf
    best = worth.argmax(axis=0)[None]
    lowest, next_ = (np.take_along_axis(x, best, axis=0)[0] for x in (ranked, below))
    half = (lowest + next_) / 2
    half = np.where(half > next_, half, lowest)
    defined = (positives > 0) & (positives < len(targets))
    return tuple(np.where(defined, half, NO_THRESHOLD).tolist())


def logits(probabilities: Floats) -> Floats:
    """log(p / (1 - p)), finite: p counts as at least `SURE` away from 0 and 1."""
    inside = np.clip(probabilities, SURE, 1 - SURE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _fit(z: Floats, true: Floats, *, spread: float, bias: bool) -> tuple[Floats, Floats]:
    # Slopes and biases, each of shape (labels,).
    labels = z.shape[1]
    everything = z.reshape(-1, 1), true.reshape(-1, 1)
    one = np.ones((1, 1))
    shared = _newton(*everything, centre=one, precision=one / SHARED_SPREAD**2).item()
    shared = float(np.clip(shared, 1 / LIMIT, LIMIT))
    centre = np.array([[shared, 0.0]]).repeat(labels, axis=0)
    precision = np.array([[(spread * shared) ** -2, BIAS_SPREAD**-2]]).repeat(labels, axis=0)
    positives = true.sum(axis=0)
    precision[(positives == 0) | (positives == len(true))] = PINNED
    kinds = 2 if bias else 1
    found = _newton(z, true, centre=centre[:, :kinds], precision=precision[:, :kinds])
    # A network that ranks a label backwards asks for a slope below 0, which no temperature has.
    limited = np.clip(found[:, 0], shared / LIMIT, shared * LIMIT)
    outside = limited != found[:, 0]
    if outside.any():
        centre[outside, 0], precision[outside, 0] = limited[outside], PINNED
        found = _newton(z, true, centre=centre[:, :kinds], precision=precision[:, :kinds])
    pinned = precision[:, 0] == PINNED
    slopes = np.where(pinned, centre[:, 0], found[:, 0])
    absent = precision[:, 1] == PINNED
    return slopes, np.where(absent, 0.0, found[:, 1]) if bias else np.zeros(labels)


def _newton(z: Floats, true: Floats, *, centre: Floats, precision: Floats) -> Floats:
    """Penalised logistic regressions, all labels at once.

    Parameters
    ----------
    z, true : array, shape (records, labels)
    centre, precision : array, shape (labels, kinds)
        Normal priors: of a slope, or of a slope and a bias.

    Returns
    -------
    array, shape (labels, kinds)
    """
    columns = [z, np.ones_like(z)][: centre.shape[1]]
    values = centre.copy()
    loss = _loss(columns, true, values, centre, precision)
    for _ in range(STEPS):
        step = _step(columns, true, values, centre, precision)
        size = np.ones(len(values))
        for _ in range(HALVINGS):
            tried = values - size[:, None] * step
            after = _loss(columns, true, tried, centre, precision)
            worse = after > loss + NOISE * np.abs(loss)
            if not worse.any():
                break
            size[worse] /= 2
        values = np.where(worse[:, None], values, tried)
        loss = np.where(worse, loss, after)
        if np.abs(step).max() < SMALL:
            break
    return values


def _loss(columns: list[Floats], true: Floats, values: Floats, *prior: Floats) -> Floats:
    # Negative log likelihood and log prior of every label, shape (labels,).
    score = _score(columns, values)
    centre, precision = prior
    penalty = (precision * (values - centre) ** 2).sum(axis=1) / 2
    return np.asarray((np.logaddexp(0, score) - true * score).sum(axis=0) + penalty)


def _step(columns: list[Floats], true: Floats, values: Floats, *prior: Floats) -> Floats:
    # Newton's step of every label, shape (labels, kinds).
    centre, precision = prior
    said = sigmoid(_score(columns, values))
    weight = said * (1 - said)
    slope = [((said - true) * column).sum(axis=0) for column in columns]
    curvature = [[(weight * a * b).sum(axis=0) for a in columns] for b in columns]
    gradient = np.stack(slope, axis=1) + precision * (values - centre)
    hessian = np.array(curvature).transpose(2, 0, 1)
    hessian = hessian + precision[:, :, None] * np.eye(len(columns))
    return np.asarray(np.linalg.solve(hessian, gradient[..., None])[..., 0])


def _score(columns: list[Floats], values: Floats) -> Any:
    return sum(column * value for column, value in zip(columns, values.T, strict=True))
