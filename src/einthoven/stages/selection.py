"""The numbers by which an epoch is chosen, on the validation split."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.errors import TrainingError
from einthoven.evaluate.metrics import point_metrics, rank

SELECT, LOSS = "macro_auroc", "validation_loss"


def validation_metrics(
    targets: NDArray[np.uint8], probabilities: NDArray[np.float64]
) -> dict[str, float]:
    """Macro AUROC and macro average precision over the labels that validation can score.

    A label without a positive or without a negative is left out, never counted as zero.

    Raises
    ------
    TrainingError
        When no label can be scored, or a probability is not finite.
    """
    if not np.isfinite(probabilities).all():
        raise TrainingError(
            "the network's validation outputs are not finite",
            remedy="lower base_lr, or use precision = 'fp32'",
        )
    positives = targets.sum(axis=0)
    defined = np.flatnonzero((positives > 0) & (positives < len(targets)))
    if not len(defined):
        raise TrainingError(
            f"none of {targets.shape[1]} labels has both positives and negatives among the "
            f"{len(targets)} validation records",
            remedy="use a larger cohort, or folds stratified by label",
        )
    ranking = rank(targets[:, defined], probabilities[:, defined])
    areas, precisions = point_metrics(ranking)
    return {
        SELECT: float(areas.mean()),
        "macro_auprc": float(precisions.mean()),
        "defined_labels": len(defined),
    }


def record_losses(logits: Tensor, owner: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of every record: mean over labels, then over its evaluation crops.

    What training minimises, on the crops that the record is judged by and before they are joined:
    it does not depend on `data.aggregate`, and a saturated probability costs what its logit says.

    Parameters
    ----------
    logits : Tensor
        `(crops, labels)`.
    owner : Tensor
        `(crops,)` record of each crop.
    targets : Tensor
        `(records, labels)` 0 and 1.

    Returns
    -------
    Tensor
        `(records,)` float64.
    """
    each = binary_cross_entropy_with_logits(
        logits.double(), targets.double()[owner], reduction="none"
    ).mean(dim=1)
    losses = torch.zeros(len(targets), dtype=torch.float64)
    return losses.scatter_reduce(0, owner, each, "mean", include_self=False)
