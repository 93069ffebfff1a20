"""Fitting of a calibration to validation predictions.

A label's slope a = 1 / T is fitted by maximum likelihood on the logits of the validation split,
with a normal prior about the slope that all labels share; its standard deviation is `SPREAD` times
that slope. A label with many positives follows its data, one with a handful stays near the shared
slope, and one without a positive or without a negative has the shared slope itself. The objective
is convex, so the optimum is unique.

Five-fold cross-validation by patients within PTB-XL's fold 9, for four networks, had its lowest log
loss at a spread of 0.05 or 0.1 and rose to both sides; 0.1 is the default. A bias is fitted on
request only.

With fewer than `MIN_FOR_TEMPERATURES` positives or negatives, counted over all labels, temperatures
are 1: nothing is gained. For ten tasks on PTB-XL's folds 9 and 10 and logistic regressions of 50 to
1,000 records, temperatures fitted out of fold changed the mean log loss by +0.1 % with up to 10
records of the rarer class, by -0.3 % with 11 to 20, 0.0 % with 21 to 40, -0.2 % with 41 to 80 and
-0.3 % with more (`studies/small-cohorts/probes.py`).

A label's threshold maximises F1 on the same predictions, after calibration: half way between the
lowest probability called present and the highest that is not. Among thresholds with equal F1 the
highest wins, so that fewer records are called. With a handful of positives the highest F1 is an
accident: fitted on one half of fold 9, such thresholds called labels with fewer than five positives
in 4 to 14 of a hundred records of the other half, where 2 to 4 in a thousand had them. A label with
fewer than `MIN_FOR_F1` positives is therefore called as often as it has positives, or
as near to that as equal probabilities allow; its F1 on the other half was as high. A label without
a positive or without a negative has `NO_THRESHOLD`.

A calibration that is fitted again, to a few records of another hospital (`refit_calibration`), has
narrower priors about the present one: `REFIT_SPREAD` for the shared slope and `REFIT_BIAS_SPREAD`
for the biases; docs/uncertainty.md has the gain and the cost, measured with 50 to 400 records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from einthoven.errors import EvaluationError
from einthoven.evaluate.metrics import Floats
from einthoven.predictions import Calibration, ClassCalibration, Predictions
from einthoven.tasks import negatives, positives
from einthoven.tasks.task import Matrix

SPREAD = 0.1  # standard deviation of a label's slope, relative to the shared slope
BIAS_SPREAD = 0.25  # standard deviation of a label's bias about 0; chosen like SPREAD
SHARED_SPREAD = 1.0  # of the shared slope about 1; keeps it finite if all predictions are correct
REFIT_SPREAD, REFIT_BIAS_SPREAD = 0.25, 0.5
LIMIT = 10.0  # largest factor between a temperature and 1 (shared) or the shared one (label)
MIN_FOR_TEMPERATURES = 40
"""Fewest positives, and negatives, over all labels, for which temperatures are fitted."""
MIN_FOR_F1 = 5
"""Fewest positives of a label whose threshold maximises F1."""
NO_THRESHOLD = 0.5
PROBABILITY_MARGIN = 1e-15  # logits and log losses clip probabilities this far from 0 and 1
GRADIENT_TOLERANCE = 1e-8
LARGEST_STEP = 1e-4  # of Newton's method at an accepted optimum, in units of the coefficients


def fit_classes(predictions: Predictions) -> ClassCalibration:
    """Fit the temperature of classes, by the least log loss.

    With few records of the rarer classes, it is 1; see the module.

    Raises
    ------
    EvaluationError
        If the table has no targets.
    """
    targets, weights = predictions.require_targets(), predictions.weights
    unfitted = ClassCalibration(len(predictions.labels), 1.0, weights)
    has_target = ~np.isnan(targets).any(axis=1)
    if not has_enough(targets):
        return unfitted
    true, values = targets[has_target] == 1, predictions.probabilities[has_target]

    def loss(slope: float) -> float:
        own = replace(unfitted, temperature=float(np.exp(-slope))).apply(values)[true]
        return float(-np.log(np.clip(own, PROBABILITY_MARGIN, 1)).mean())

    limit = float(np.log(LIMIT))
    optimum = minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    return replace(unfitted, temperature=float(np.exp(-optimum.x)))


def fit_calibration(predictions: Predictions, *, bias: bool = False) -> Calibration:
    """Fit the temperature and threshold of every label, and optionally a bias.

    With few positives, temperatures are 1 and biases 0; see the module. If the loss of the network
    weighted positives, their weights are divided out of the odds first.

    Parameters
    ----------
    predictions : Predictions
        Uncalibrated validation predictions, with targets.
    bias : bool
        Fit a bias in addition to the temperature (Platt scaling), with a normal prior of standard
        deviation `BIAS_SPREAD` about 0.

    Raises
    ------
    EvaluationError
        If the table has no targets.
    """
    targets, uncalibrated = predictions.require_targets(), predictions.probabilities
    shift = np.log(predictions.weights or np.ones(targets.shape[1]))
    if not has_enough(targets):
        number = targets.shape[1]
        unfitted = Calibration((1.0,) * number, tuple((0.0 - shift).tolist()), (0.0,) * number)
        values = unfitted.apply(uncalibrated) if predictions.weights else uncalibrated
        return replace(unfitted, thresholds=best_thresholds(targets, values))
    z, true = logits(uncalibrated) - shift, targets.astype(np.float64)
    slopes, biases = _fit_labels(z, true, SHARED_SPREAD, BIAS_SPREAD if bias else 0.0)
    temperatures, shifts = tuple((1 / slopes).tolist()), tuple((biases - shift * slopes).tolist())
    fitted = Calibration(temperatures, shifts, (NO_THRESHOLD,) * len(temperatures))
    thresholds = best_thresholds(targets, fitted.apply(uncalibrated))
    return Calibration(temperatures, shifts, thresholds)


def refit_calibration(predictions: Predictions, thresholds: Sequence[float]) -> Calibration:
    """Fit a calibration that follows the present one, to a few records of another source.

    Parameters
    ----------
    predictions : Predictions
        Probabilities of the present calibration, with targets.
    thresholds : sequence of float
        Present thresholds. A label with fewer than `MIN_FOR_F1` positives or negatives keeps its
        own: the same records are called.

    Returns
    -------
    Calibration
        To apply to calibrated probabilities; `Calibration.after` makes one calibration of both.

    Raises
    ------
    EvaluationError
        If the table has no targets.
    """
    targets = predictions.require_targets()
    z, true = logits(predictions.probabilities), targets.astype(np.float64)
    slopes, biases = _fit_labels(z, true, REFIT_SPREAD, REFIT_BIAS_SPREAD)
    fitted = Calibration(tuple((1 / slopes).tolist()), tuple(biases.tolist()), tuple(thresholds))
    same = fitted.apply(np.array(thresholds))
    best = np.array(best_thresholds(targets, fitted.apply(predictions.probabilities)))
    is_kept = np.minimum(positives(targets), negatives(targets)) < MIN_FOR_F1
    return replace(fitted, thresholds=tuple(np.where(is_kept, same, best).tolist()))


def has_enough(targets: Matrix) -> bool:
    """Whether `(records, labels)` targets have enough positives and negatives for temperatures."""
    return rarer_class(targets) >= MIN_FOR_TEMPERATURES


def rarer_class(targets: Matrix) -> int:
    """Positives or negatives of `(records, labels)` targets, whichever are fewer, over labels."""
    return int(np.minimum(positives(targets), negatives(targets)).sum())


def best_thresholds(targets: Matrix, calibrated: Floats) -> tuple[float, ...]:
    """Choose the threshold of every label; see the module for the rule.

    Parameters
    ----------
    targets, calibrated : array, shape (records, labels)

    Returns
    -------
    tuple of float, one for each label
        `NO_THRESHOLD` for a label without a positive or without a negative.
    """
    has_target = ~np.isnan(targets)
    if not has_target.all():  # label by label, as each is known in other records
        columns = zip(targets.T, calibrated.T, has_target.T, strict=True)
        return tuple(
            best_thresholds(target[rows, None].astype(np.uint8), values[rows, None])[0]
            if rows.any()
            else NO_THRESHOLD
            for target, values, rows in columns
        )
    order = np.argsort(-calibrated, axis=0, kind="stable")
    ranked = np.take_along_axis(calibrated, order, axis=0)
    true = np.take_along_axis(targets, order, axis=0)
    below = np.concatenate([ranked[1:], np.zeros_like(ranked[:1])])
    called = np.arange(1, len(ranked) + 1)[:, None]
    counts = positives(true)
    f1 = 2 * true.cumsum(axis=0, dtype=np.int64) / (called + counts)
    quality = np.where(counts < MIN_FOR_F1, -np.abs(called - counts), f1)
    # A threshold cannot separate equal probabilities. The first of equal maxima calls the fewest.
    quality[:-1][ranked[:-1] == ranked[1:]] = -np.inf
    best = quality.argmax(axis=0)[None]
    lowest, next_ = (np.take_along_axis(x, best, axis=0)[0] for x in (ranked, below))
    half = (lowest + next_) / 2
    half = np.where(half > next_, half, lowest)
    defined = (counts > 0) & (counts < len(targets))
    return tuple(np.where(defined, half, NO_THRESHOLD).tolist())


def logits(probabilities: Floats) -> Floats:
    """log(p / (1 - p)), kept finite by `PROBABILITY_MARGIN`."""
    inside = np.clip(probabilities, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _fit_labels(
    z: Floats, true: Floats, shared_spread: float, bias_spread: float
) -> tuple[Floats, Floats]:
    """Slope and bias of every label, from logits and targets of shape (records, labels)."""
    has_target = ~np.isnan(true)
    pairs = z[has_target].reshape(-1, 1), true[has_target]
    (shared,) = _regression(*pairs, centre=[1.0], spread=[shared_spread])
    shared = np.clip(shared, 1 / LIMIT, LIMIT)
    slopes, biases = np.array(
        [
            _fit_label(label[rows], target[rows], shared=shared, bias_spread=bias_spread)
            for label, target, rows in zip(z.T, true.T, has_target.T, strict=True)
        ]
    ).T
    return slopes, biases


def _fit_label(
    z: Floats, true: Floats, *, shared: float, bias_spread: float
) -> tuple[float, float]:
    if true.all() or not true.any():  # or nothing is known
        return shared, 0.0
    ones = np.ones_like(z)
    columns, centre, spreads = z[:, None], [shared], [SPREAD * shared]
    if bias_spread:
        columns = np.column_stack([z, ones])
        centre, spreads = [shared, 0.0], [SPREAD * shared, bias_spread]
    slope, *shift = _regression(columns, true, centre=centre, spread=spreads)
    # A label ranked backwards has its optimum at a slope below 0, which no temperature has.
    limited = np.clip(slope, shared / LIMIT, shared * LIMIT)
    if bias_spread and limited != slope:
        shift = _regression(
            ones[:, None], true, centre=[0.0], spread=[bias_spread], offset=limited * z
        )
    return limited, shift[0] if bias_spread else 0.0


def _regression(
    columns: Floats,
    true: Floats,
    *,
    centre: Sequence[float],
    spread: Sequence[float],
    offset: Floats | float = 0.0,
) -> list[float]:
    """Logistic regression with normal priors (means `centre`, standard deviations `spread`).

    `columns` has shape (records, coefficients); `offset` is added to the linear predictor.
    """
    mean, precision = np.asarray(centre), np.asarray(spread) ** -2.0

    def loss(values: Floats) -> float:
        score = columns @ values + offset
        penalty = (precision * (values - mean) ** 2).sum() / 2
        return float((np.logaddexp(0, score) - true * score).sum() + penalty)

    def gradient(values: Floats) -> Floats:
        residual = expit(columns @ values + offset) - true
        return np.asarray(columns.T @ residual + precision * (values - mean))

    def hessian(values: Floats) -> Floats:
        probability = expit(columns @ values + offset)
        weight = probability * (1 - probability)
        return np.asarray((columns.T * weight) @ columns + np.diag(precision))

    optimum = minimize(
        loss,
        list(centre),
        jac=gradient,
        hess=hessian,
        method="trust-exact",
        options={"gtol": GRADIENT_TOLERANCE},
    )
    # The method also stops, without success, where rounding of the loss hides further progress.
    step = np.linalg.solve(hessian(optimum.x), gradient(optimum.x))
    if not optimum.success and not np.abs(step).max() < LARGEST_STEP:
        raise EvaluationError(
            f"the calibration did not converge: {optimum.message}",
            remedy="check the predictions: probabilities lie between 0 and 1",
        )
    return [float(value) for value in optimum.x]
