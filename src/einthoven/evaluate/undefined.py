"""The one policy for labels of which a set, or a resample of it, holds only one class."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.predictions import listed

Floats = NDArray[np.float64]


class Absent(StrEnum):
    """What to do about a label that has no positive, or no negative.

    `RESAMPLE` draws again until every label has both, as the PTB-XL benchmark does; `SKIP`
    averages over the defined labels; `ZERO` counts an undefined label as 0, as torchmetrics does;
    `ERROR` refuses.
    """

    ERROR = "error"
    SKIP = "skip"
    ZERO = "zero"
    RESAMPLE = "resample"

    @classmethod
    def of(cls, name: str) -> Absent:
        """The policy of that name; an EvaluationError lists the names there are."""
        if name not in set(cls):
            raise EvaluationError(
                f"absent = {name!r} is no policy for undefined labels",
                remedy=f"use one of {', '.join(cls)}",
            )
        return cls(name)

    @property
    def strict(self) -> bool:
        """Whether every label of the whole set must be defined."""
        return self in (Absent.ERROR, Absent.RESAMPLE)


def macro(values: Floats, absent: Absent) -> Floats:
    """Mean over labels, the last axis, of values that are NaN where a label is undefined.

    NaN where a strict policy meets an undefined label, or `SKIP` meets no defined one.
    """
    if absent.strict:
        return np.asarray(values.mean(axis=-1))
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    if absent is Absent.ZERO:
        return np.asarray(total / values.shape[-1])
    count = defined.sum(axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def refuse_absent(targets: NDArray[np.uint8], labels: Sequence[str], absent: Absent) -> None:
    """Refuse labels that the policy needs defined and that no resample could define.

    Raises
    ------
    EvaluationError
        Under `error` and `resample`, naming the labels without a positive and those without a
        negative; under `skip`, when no label at all is defined.
    """
    positives = targets.sum(axis=0, dtype=np.int64)
    none, all_ = positives == 0, positives == len(targets)
    if not (none | all_).any() or (not absent.strict and not (none | all_).all()):
        return
    found = "; ".join(
        f"no {kind} among {len(targets)} records for {listed([labels[i] for i in where.tolist()])}"
        for kind, where in (("positive", np.flatnonzero(none)), ("negative", np.flatnonzero(all_)))
        if where.size
    )
    raise EvaluationError(
        f"{int((none | all_).sum())} of {len(labels)} labels are undefined: {found}",
        remedy='drop these labels, or average over the others with absent="skip"'
        if not (none | all_).all()
        else "score a set that holds positives and negatives of its labels",
    )


def refuse_gaps(values: Floats, labels: Sequence[str], absent: Absent) -> None:
    """Refuse resamples, shape (resamples, labels), with gaps that the policy does not allow."""
    gaps = np.isnan(values)
    if absent is not Absent.ERROR or not gaps.any():
        return
    worst = np.argsort(-gaps.sum(axis=0), kind="stable")
    names = [f"{labels[i]} in {int(gaps[:, i].sum())}" for i in worst if gaps[:, i].any()]
    raise EvaluationError(
        f"{int(gaps.any(axis=1).sum())} of {len(values)} resamples lack a label: {listed(names)}",
        remedy='draw such resamples again with absent="resample", or use absent="skip"',
    )
