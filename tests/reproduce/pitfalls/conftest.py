"""A simulated PTB-XL, an untrained network's answers, and features of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from einthoven.backbones.classifier import create_classifier
from einthoven.bundle import Bundle
from einthoven.cohorts import open_cohort
from einthoven.reproduce.pitfalls.features import Singles, window_features
from einthoven.reproduce.pitfalls.material import Material, answers, cohort_for
from einthoven.signals.store import Store

RESAMPLES = 40


@pytest.fixture(scope="session")
def model(synthetic_path: Path) -> Bundle:
    labels = open_cohort(synthetic_path, min_records=4).labels
    network = create_classifier(
        "mtecg_tiny_100hz", labels=labels, seed=0, depth=1, width=32, heads=1
    )
    preparation = network.preparation.with_window(seconds=2.5).with_evaluation_crops(4)
    return Bundle(network.eval(), labels, preparation)


@pytest.fixture(scope="session")
def material(synthetic_path: Path, synthetic_store: Store, model: Bundle) -> Material:
    cohort = cohort_for(synthetic_path, synthetic_store, model)
    validation, test = (
        answers(model, cohort, synthetic_store, split) for split in ("validation", "test")
    )
    return Material(
        cohort, synthetic_store, model, "`untrained`", validation, test, resamples=RESAMPLES
    )


@pytest.fixture(scope="session")
def features(material: Material) -> Singles:
    rows = material.store.rows(material.cohort.ids())
    return window_features(material.store, rows, kernels=4)
