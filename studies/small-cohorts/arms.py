"""Arms of the study: what is trained on a cohort, and its predictions of the test records."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from einthoven.cohorts import Cohort
from einthoven.experiment.posttrain import plan_training
from einthoven.experiment.run import MODEL, run_experiment
from einthoven.models import load_model
from einthoven.predictions.table import run_table
from einthoven.signals.store import Store
from einthoven.training.distributed import Processes

Result = dict[str, Any]


@dataclass(frozen=True)
class Material:
    """Cohort, packed records, features `(records, width)` by record name, and a work folder."""

    cohort: Cohort
    store: Store
    features: dict[str, NDArray[np.float32]]
    folder: Path


def logistic_regression(material: Material) -> Result:
    """scikit-learn's logistic regression on the features of `EcgEmbedder`, called from 0.5."""
    cohort = material.cohort

    def arrays(*splits: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        ids = np.concatenate([cohort.ids(split) for split in splits])
        targets = np.concatenate([cohort.targets(split) for split in splits])[:, 0]
        return np.stack([material.features[name] for name in ids.tolist()]), targets

    start = time.monotonic()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(*arrays("train", "validation"))
    features, targets = arrays("test")
    probabilities = model.predict_proba(features)[:, 1]
    return scores(targets, probabilities, 0.5) | {"seconds": time.monotonic() - start}


def recipe(name: str | None, backbone: str = "einthoven-small", *overrides: str) -> Any:
    """Arm that trains by a recipe, as the command `posttrain` does."""

    def train(material: Material) -> Result:
        plan = plan_training(backbone, None, name, overrides)
        folder = material.folder / "run"
        shutil.rmtree(folder, ignore_errors=True)
        start = time.monotonic()
        run_experiment(
            material.cohort,
            material.store,
            plan.start.backbone,
            recipe=plan.recipe,
            out=folder,
            weights=plan.start.weights,
            options=plan.start.options,
            resamples=0,
            processes=Processes("cpu"),
        )
        seconds = time.monotonic() - start
        model, table = load_model(folder / MODEL), run_table(folder, "test")
        assert model.calibration is not None
        probabilities = model.calibration.apply(table.probabilities)[:, 0]
        threshold = model.calibration.thresholds[0]
        result = scores(table.require_targets()[:, 0], probabilities, threshold)
        shutil.rmtree(folder)
        kept = model.config["provenance"]["kept_stage"]
        return result | {"seconds": seconds, "kept_stage": kept}

    return train


ARMS: dict[str, Callable[[Material], Result]] = {
    "logistic regression": logistic_regression,
    "auto": recipe(None),
    "linear-probe": recipe("s4-100hz-cpu/linear-probe"),
    "fine-tuning": recipe("s4-100hz-cpu/fine-tuning"),
    "post-training": recipe("s4-100hz-cpu/post-training", "einthoven-small", "stage2.keep=always"),
    "scratch": recipe("s4-100hz-cpu/scratch", "s4_small"),
    "xresnet1d50": recipe(None, "xresnet1d50"),
}


def scores(
    targets: NDArray[np.uint8], probabilities: NDArray[np.float64], threshold: float
) -> Result:
    """AUROC, average precision, log loss, and recall and specificity at the threshold."""
    called = probabilities >= threshold
    return {
        "auroc": float(roc_auc_score(targets, probabilities)),
        "auprc": float(average_precision_score(targets, probabilities)),
        "log_loss": float(log_loss(targets, probabilities)),
        "recall": float(called[targets == 1].mean()),
        "specificity": float(1 - called[targets == 0].mean()),
    }
