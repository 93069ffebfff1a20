"""Scoring a predictions table: its targets, and what to do about labels it cannot define."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.scores import Score, score
from einthoven.predictions import Predictions


def score_predictions(
    predictions: Predictions, *, absent: str | None = None, by: str = "record", **options: Any
) -> Score:
    """Score a predictions table.

    Without `absent`, resamples that lack a label are drawn again, as in PTB-XL's benchmark; where
    the whole table lacks a label that is impossible, and undefined labels are left out instead
    (the score says how many labels are defined).
    """
    return score(
        known_targets(predictions),
        predictions.probabilities,
        labels=predictions.labels,
        absent=absent or suitable_absent(predictions),
        groups=predictions.patients if by == "patient" else None,
        **options,
    )


def suitable_absent(predictions: Predictions) -> str:
    """`resample` where every label has a positive and a negative, `skip` otherwise."""
    positives = known_targets(predictions).sum(axis=0)
    defined = (positives > 0) & (positives < len(predictions.records))
    return "resample" if defined.all() else "skip"


def known_targets(predictions: Predictions) -> NDArray[np.uint8]:
    """The table's targets.

    Raises
    ------
    EvaluationError
        When the table has none.
    """
    if predictions.targets is None:
        raise EvaluationError(
            "the predictions table holds no targets",
            remedy="add the columns target:LABEL, or evaluate a bundle on a labelled cohort",
        )
    return predictions.targets
