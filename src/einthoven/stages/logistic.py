"""Penalised linear model of features: the linear probe of a small cohort.

For features x, targets y and weights v of the rows, the weight matrix W and the biases b minimise

    sum v * loss(x W + b, y)  +  penalty / 2 * |W|^2,

on standardised features and without a penalty on b: logistic regression for labels, multinomial
logistic regression for classes, and ridge regression for numbers. It is convex and is solved to its
optimum.
A label without positives (or without negatives) has no weights, and the log odds of half a record.
All labels share one penalty: on PTB-XL's folds 9 and 10, a penalty of its own for each label had a
mean log loss 6 % higher with 50 training records, 2 to 3 % with 100 and 200, and the same with 500
(`studies/small-cohorts/probes.py`), because a handful of positives does not determine it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from sklearn.model_selection import GroupKFold

from einthoven.errors import RecipeError
from einthoven.evaluate.metrics import Floats
from einthoven.tasks import Criterion

PENALTIES = tuple(float(10 ** (exponent / 2)) for exponent in range(7, -3, -1))
"""Penalties that are compared, from 3,162 down to 0.1."""
_STOP = 1.02  # relative log loss from which a smaller penalty is no longer tried
_TOLERANCE = 1e-5  # largest gradient at the optimum, in units of the root of the curvature
_FLAT = 1e-6  # features of a smaller standard deviation count as constant


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted linear model.

    Attributes
    ----------
    weight : numpy.ndarray
        `(labels, features)`, for features as they are, not standardised.
    bias : numpy.ndarray
        `(labels,)`.
    """

    weight: Floats
    bias: Floats

    def logits(self, features: ArrayLike) -> Floats:
        """Logits of `(rows, features)`, as `(rows, labels)`."""
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias)


@dataclass(frozen=True, eq=False)
class PenaltySearch:
    """Result of a cross-validation over penalties.

    Attributes
    ----------
    penalty : float
        Penalty of the lowest loss.
    losses : dict of float to float
        Mean loss of the left-out rows by penalty, for the penalties that were tried.
    logits : numpy.ndarray
        `(rows, labels)` logits of every row by the model that was fitted without its group, at
        `penalty`.
    """

    penalty: float
    losses: dict[float, float]
    logits: Floats


def fit_logistic(
    features: ArrayLike,
    targets: ArrayLike,
    penalty: float,
    *,
    criterion: Criterion | None = None,
    row_weights: ArrayLike | None = None,
) -> Logistic:
    """Fit a linear model to its optimum.

    Parameters
    ----------
    features : array, shape (rows, features)
    targets : array, shape (rows, labels)
        NaN where not known.
    penalty : float
        Above 0.
    criterion : Criterion, optional
        Loss; cross-entropy of labels by default. Of absolute values, which have no derivative at 0,
        Huber's loss is minimised.
    row_weights : array, shape (rows,), optional
        Weight of each row, such as one over the number of crops of its record; 1 by default.
    """
    return _Problem(features, targets, row_weights, _smooth(criterion)).solve(penalty)


def search_penalty(
    features: ArrayLike,
    targets: ArrayLike,
    groups: Sequence[object] | NDArray[np.generic],
    *,
    criterion: Criterion | None = None,
    folds: int = 5,
    seed: int = 0,
    row_weights: ArrayLike | None = None,
) -> PenaltySearch:
    """Choose the penalty by cross-validated loss; rows of a group stay together.

    Penalties are tried from the largest to the smallest, until the loss has clearly risen.

    Parameters
    ----------
    features, targets, criterion, row_weights
        As for `fit_logistic`.
    groups : sequence of length rows
        Patient of each row.
    folds : int
        Number of folds; fewer if there are fewer groups.
    seed : int
        Seed of the assignment of groups to folds.

    Raises
    ------
    RecipeError
        If all rows belong to one group.
    """
    x, y, weights = _arrays(features, targets, row_weights)
    criterion = _smooth(criterion)
    names = np.asarray(groups).astype(str)
    folds = min(folds, len(np.unique(names)))
    if folds < 2:
        raise RecipeError(
            "a single patient cannot be divided for cross-validation",
            remedy="add patients, or set stage1.penalty to a number",
        )
    splits = list(GroupKFold(folds, shuffle=True, random_state=seed).split(x, groups=names))
    problems = [_Problem(x[train], y[train], weights[train], criterion) for train, _ in splits]
    losses: dict[float, float] = {}
    best = PenaltySearch(PENALTIES[0], losses, np.empty_like(y))
    for penalty in PENALTIES:
        logits = np.empty_like(y)
        for problem, (_, left_out) in zip(problems, splits, strict=True):
            logits[left_out] = problem.solve(penalty).logits(x[left_out])
        losses[penalty] = mean_loss(logits, y, weights, criterion)
        if losses[penalty] <= losses[best.penalty]:
            best = PenaltySearch(penalty, losses, logits)
        elif losses[penalty] > _STOP * losses[best.penalty]:
            break
    return best


def mean_loss(logits: Floats, targets: Floats, weights: Floats, criterion: Criterion) -> float:
    """Weighted mean over rows of the mean loss over what is known of them."""
    losses, _ = criterion.task.behaviour.objective(logits, targets, criterion)
    known = ~np.isnan(targets)
    if losses.shape != known.shape:
        known = np.all(known, axis=1, keepdims=True)
    count = np.sum(known, axis=1)
    return float(
        np.average(losses.sum(axis=1) / np.maximum(count, 1), weights=weights * (count > 0))
    )


def _smooth(criterion: Criterion | None) -> Criterion:
    criterion = criterion or Criterion()
    return replace(criterion, loss="huber") if criterion.loss == "l1" else criterion


class _Problem:
    """Standardised features on their principal axes; a solution starts from the previous one.

    The axes leave the optimum as it is and make the curvature nearly diagonal, so that dividing
    every coefficient by the root of its curvature leaves a problem of a few dozen iterations.
    """

    def __init__(
        self,
        features: ArrayLike,
        targets: ArrayLike,
        row_weights: ArrayLike | None,
        criterion: Criterion,
    ) -> None:
        self.criterion, kind = criterion, criterion.task.behaviour
        x, self.targets, weights = _arrays(features, targets, row_weights)
        self.weights = weights[:, None]
        self.total = weights.sum()
        self.mean = weights @ x / self.total
        deviation = np.sqrt(weights @ (x - self.mean) ** 2 / self.total)
        self.scale = np.where(deviation > _FLAT, deviation, np.inf)
        standard = (x - self.mean) / self.scale
        _, sizes, axes = np.linalg.svd(np.sqrt(self.weights) * standard, full_matrices=False)
        sizes, axes = sizes[sizes > _FLAT * sizes[0]], axes[sizes > _FLAT * sizes[0]]
        self.axes = axes.T
        self.x = np.column_stack([standard @ self.axes, np.ones(len(x))])
        biases, curvature = kind.start(self.targets, self.weights, criterion.task)
        self.defined = curvature > 0
        curvature = np.where(self.defined, curvature, 1.0)
        self.curvature = np.append(sizes**2, self.total)[:, None] * curvature
        self.start = np.zeros_like(self.curvature)
        self.start[-1] = biases

    def solve(self, penalty: float) -> Logistic:
        penalties = np.full((len(self.start), 1), penalty)
        penalties[-1] = 0
        kind = self.criterion.task.behaviour
        units = np.sqrt(self.curvature + penalties)

        def objective(scaled: Floats) -> tuple[float, Floats]:
            values = scaled.reshape(units.shape) / units
            logits = self.x @ values
            losses, residuals = kind.objective(logits, self.targets, self.criterion)
            if losses.shape == residuals.shape:
                losses = self.defined * losses
            losses, residuals = self.weights * losses, self.weights * self.defined * residuals
            gradient = (self.x.T @ residuals + penalties * values) / units
            return float(losses.sum() + (penalties * values**2).sum() / 2), gradient.ravel()

        optimum = minimize(
            objective,
            (self.start * units).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "ftol": 0.0, "gtol": _TOLERANCE * self.total**0.5},
        )
        self.start = optimum.x.reshape(units.shape) / units
        weight = (self.axes @ self.start[:-1] / self.scale[:, None]).T
        return Logistic(weight, self.start[-1] - weight @ self.mean)


def _arrays(
    features: ArrayLike, targets: ArrayLike, row_weights: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    x = np.asarray(features, dtype=np.float64)
    weights = np.ones(len(x)) if row_weights is None else np.asarray(row_weights, dtype=np.float64)
    return x, np.asarray(targets, dtype=np.float64), weights
