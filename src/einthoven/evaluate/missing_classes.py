"""Policies for labels of which a set of records, or a resample of it, holds one class only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.predictions import listed

Floats = NDArray[np.float64]


POLICIES = ("resample", "skip", "zero", "error")
"""Treatments of a label that has no positive, or no negative.

`resample` draws again until every label has both, as the PTB-XL benchmark does; `skip` averages
over the defined labels; `zero` counts an undefined label as 0, as torchmetrics does; `error`
refuses.
"""
STRICT = ("resample", "error")
"""Policies under which every label of the whole set must be defined."""


def macro(values: Floats, policy: str) -> Floats:
    """Mean over labels, the last axis, of values that are NaN where a label is undefined.

    NaN where a strict policy meets an undefined label, or `skip` meets no defined one.
    """
    if policy in STRICT:
        return np.asarray(values.mean(axis=-1))
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    if policy == "zero":
        return np.asarray(total / values.shape[-1])
    count = defined.sum(axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def refuse_undefined(targets: NDArray[np.uint8], labels: Sequence[str], policy: str) -> None:
    """Refuse labels that the policy needs defined and that no resample could define.

    Raises
    ------
    EvaluationError
        Under `error` and `resample`, if a label has no positive or no negative; under `skip` and
        `zero`, if no label is defined.
    """
    positives = targets.sum(axis=0, dtype=np.int64)
    no_positive, no_negative = positives == 0, positives == len(targets)
    undefined = no_positive | no_negative
    if not undefined.any() or (policy not in STRICT and not undefined.all()):
        return
    gaps = "; ".join(
        f"no {kind} among {len(targets)} records for {listed([labels[i] for i in where.tolist()])}"
        for kind, where in (
            ("positive", np.flatnonzero(no_positive)),
            ("negative", np.flatnonzero(no_negative)),
        )
        if where.size
    )
    raise EvaluationError(
        f"{int(undefined.sum())} of {len(labels)} labels are undefined: {gaps}",
        remedy='drop these labels, or average over the others with undefined_labels="skip"'
        if not undefined.all()
        else "score a set that holds positives and negatives of its labels",
    )


def refuse_gaps(values: Floats, labels: Sequence[str], policy: str) -> None:
    """Refuse resamples, shape (resamples, labels), with gaps that the policy does not allow."""
    gaps = np.isnan(values)
    if policy != "error" or not gaps.any():
        return
    worst = np.argsort(-gaps.sum(axis=0), kind="stable")
    names = [f"{labels[i]} in {int(gaps[:, i].sum())}" for i in worst if gaps[:, i].any()]
    raise EvaluationError(
        f"{int(gaps.any(axis=1).sum())} of {len(values)} resamples lack a label: {listed(names)}",
        remedy='use undefined_labels="resample" to draw such resamples again, or "skip"',
    )
