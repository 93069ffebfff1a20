"""Simulated ECGs as arrays, and an encoder of a tiny network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.models import Model, save_model
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.store import Store

BACKBONE = "mtecg_tiny_100hz"
TINY = {"depth": 1, "width": 32, "heads": 1}


@dataclass(frozen=True)
class Arrays:
    """(records, leads, samples) mV at `rate`, (records, labels), patients, and what to pass."""

    x: np.ndarray
    y: np.ndarray
    patients: np.ndarray
    given: dict[str, Any]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pretraining leaves it."""
    file = tmp_path_factory.mktemp("encoder") / "model"
    network = create_backbone(BACKBONE, seed=7, **TINY)
    save_model(Model(network, network.preparation), file)
    return file


@pytest.fixture(scope="session")
def arrays(synthetic: Cohort, synthetic_store: Store, encoder: Path) -> Arrays:
    """The simulated cohort, 160 records of 10 s."""
    (chunk,) = synthetic_store.read(synthetic_store.rows(synthetic.ids()))
    assert synthetic_store.leads == STANDARD_LEADS
    x = (chunk.signals / 1000).astype(np.float32)
    given = {"weights": encoder, "options": TINY, "rate": chunk.rate, "leads": STANDARD_LEADS}
    return Arrays(x, synthetic.targets(), synthetic.patients(), {"backbone": BACKBONE, **given})
