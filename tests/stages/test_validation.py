from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from einthoven.errors import TrainingError
from einthoven.stages.validation import ValidationLoss, record_losses, validation_metrics
from einthoven.training.distributed import Processes


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


def test_crops_and_masks_of_a_batch_are_drawn_apart_and_fixed() -> None:
    """Every batch has a key for its crops and another for what the objective draws."""
    draws: list[tuple[float, float]] = []

    class Source:
        def __len__(self) -> int:
            return 300

        def training_batch(self, rows: Any, generator: torch.Generator, augment: None) -> Any:
            return SimpleNamespace(signals=torch.rand(len(rows), 1, generator=generator))

    def model(x: torch.Tensor, *, generator: torch.Generator) -> Any:
        mask = torch.rand(len(x), 1, generator=generator)
        draws.append((x[0].item(), mask[0].item()))
        return SimpleNamespace(loss=x.mean(), metrics={"masked": mask.mean()})

    source: Any = Source()
    validation = ValidationLoss((source, source), ("a", "b"), (0.5, 0.5), Processes("cpu"))
    network: Any = model
    first = validation(network)
    assert len(draws) == 6  # 300 records of both sources, 128 at a time
    assert len({value for pair in draws for value in pair}) == 12
    assert validation(network) == first
    assert draws[6:] == draws[:6]
    assert {"validation_loss", "validation_masked", "validation_loss:a"} <= first.keys()
