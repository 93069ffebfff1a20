"""einthoven post-trains ECG foundation models.

`import einthoven` loads no heavy library: each name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from einthoven.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from einthoven import evaluate
    from einthoven.backbones.classifier import create_classifier
    from einthoven.backbones.registry import backbone_names, create_backbone
    from einthoven.cohorts import Cohort, open_cohort
    from einthoven.errors import EinthovenError
    from einthoven.estimator import EcgClassifier, EcgEmbedder, EcgRegressor
    from einthoven.experiment.ensembles import ensemble
    from einthoven.experiment.posttrain import posttrain
    from einthoven.inference import predict
    from einthoven.models import Model, load_model, save_model
    from einthoven.predictions import Predictions
    from einthoven.records import STANDARD_LEADS, Record, read_record
    from einthoven.signals.preparation import Preparation
    from einthoven.signals.store import Store
    from einthoven.tasks import Task
    from einthoven.weights import load_backbone

_HOMES = {
    "Cohort": "cohorts",
    "EcgClassifier": "estimator",
    "EcgEmbedder": "estimator",
    "EcgRegressor": "estimator",
    "EinthovenError": "errors",
    "Model": "models",
    "Predictions": "predictions",
    "Preparation": "signals.preparation",
    "Record": "records",
    "STANDARD_LEADS": "records",
    "Store": "signals.store",
    "Task": "tasks",
    "backbone_names": "backbones.registry",
    "create_backbone": "backbones.registry",
    "create_classifier": "backbones.classifier",
    "ensemble": "experiment.ensembles",
    "load_backbone": "weights",
    "load_model": "models",
    "open_cohort": "cohorts",
    "posttrain": "experiment.posttrain",
    "predict": "inference",
    "read_record": "records",
    "save_model": "models",
}

__all__ = [
    "STANDARD_LEADS",
    "Cohort",
    "EcgClassifier",
    "EcgEmbedder",
    "EcgRegressor",
    "EinthovenError",
    "Model",
    "Predictions",
    "Preparation",
    "Record",
    "Store",
    "Task",
    "__version__",
    "backbone_names",
    "create_backbone",
    "create_classifier",
    "ensemble",
    "evaluate",
    "load_backbone",
    "load_model",
    "open_cohort",
    "posttrain",
    "predict",
    "read_record",
    "save_model",
]


_attribute = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return import_module("einthoven.evaluate")
    return _attribute(name)


def __dir__() -> list[str]:
    return sorted(__all__)
