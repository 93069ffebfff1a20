from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from einthoven.errors import TrainingError
from einthoven.stages.validation import record_losses, validation_metrics


def test_macro_values_are_means_over_defined_labels() -> None:
    generator = np.random.default_rng(0)
    targets = (generator.random((60, 5)) < 0.3).astype(np.uint8)
    targets[:, 1], targets[:, 3] = 0, 1
    values = generator.random((60, 5)).round(1)  # with ties
    result = validation_metrics(targets, values)
    scored = [0, 2, 4]
    areas = [roc_auc_score(targets[:, i], values[:, i]) for i in scored]
    precisions = [average_precision_score(targets[:, i], values[:, i]) for i in scored]
    assert result["macro_auroc"] == pytest.approx(np.mean(areas))
    assert result["macro_auprc"] == pytest.approx(np.mean(precisions))
    assert result["defined_labels"] == 3


def test_undefined_metrics_are_refused() -> None:
    with pytest.raises(TrainingError, match="2 labels"):
        validation_metrics(np.zeros((4, 2), dtype=np.uint8), np.full((4, 2), 0.5))
    with pytest.raises(TrainingError, match="base_lr"):
        validation_metrics(np.eye(2, dtype=np.uint8), np.full((2, 2), np.nan))


def test_record_loss_is_the_mean_over_its_crops() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.0, 1.0], [-3.0, 4.0]])
    owner = torch.tensor([0, 0, 1])  # two crops of the first record, one of the second
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    result = record_losses(logits, owner, targets).numpy()
    wrong = np.log1p(np.exp([[-2.0, -1.0], [0.0, 1.0], [-3.0, -4.0]])).mean(axis=1)
    np.testing.assert_allclose(result, [wrong[:2].mean(), wrong[2]], rtol=1e-12)


def test_a_saturated_probability_has_a_finite_loss() -> None:
    result = record_losses(torch.tensor([[800.0]]), torch.tensor([0]), torch.tensor([[0.0]]))
    assert result.item() == 800.0
