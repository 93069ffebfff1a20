"""Networks of our own reading learn: the loss of 64 simulated records falls at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.signals.batches import SignalSource
from einthoven.signals.store import Store

SMALL: dict[str, dict[str, Any]] = {
    "spacetime": {"width": 64, "depth": 2, "state": 32, "dropout": 0.0},
    "chimera": {"width": 16, "depth": 2},
    "msw_transformer": {"width": 64},
}


@pytest.mark.parametrize("name", SMALL)
def test_loss_falls_in_thirty_steps(name: str, synthetic: Cohort, synthetic_store: Store) -> None:
    model = create_classifier(name, labels=synthetic.labels, window=250, seed=0, **SMALL[name])
    rows = synthetic_store.rows(synthetic.ids())[:64]
    source = SignalSource(synthetic_store, rows, synthetic.targets()[:64], model.preparation)
    everyone = np.arange(64)
    x = source.crops(everyone, torch.zeros(64, dtype=torch.long)) / 0.25
    y = source.targets_of(everyone)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(30):
        loss = binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # What is left when the labels' frequencies are all that was learned.
    frequency = y.mean(0).clamp(1e-6, 1 - 1e-6)
    constant = binary_cross_entropy_with_logits(frequency.logit().expand_as(y), y).item()
    assert loss.item() < 0.75 * constant
