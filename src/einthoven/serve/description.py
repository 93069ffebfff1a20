"""What a page says about a model, and the files of the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from einthoven.files import Json
from einthoven.models import OnnxModel
from einthoven.report.description import cohort_of, flat

if TYPE_CHECKING:
    from einthoven.inference.runtimes import AnyModel

ASSETS = Path(__file__).parent / "assets"


def description_of(name: str, model: AnyModel) -> Json:
    """What `GET /models` says about a model, by its name on the server."""
    is_exported = isinstance(model, OnnxModel)
    return {
        "name": name,
        "digest": str(model.config.get("digest", "")),
        "form": model.task.behaviour.form,
        "labels": [
            {"name": label, "description": model.descriptions.get(label, "")}
            for label in model.labels
        ],
        "backbone": _backbone(model),
        "runtime": "onnx" if is_exported else "torch",
        "explains": not is_exported,
        "leads": list(model.preparation.leads),
        "rate": model.preparation.rate,
        "preparation": model.preparation.describe(),
        "calibrated": model.calibration is not None,
        "coverage": None if model.sets is None else model.sets.coverage,
        "licence": str(model.licence),
        "simulated": bool(cohort_of(flat(model.config))["synthetic"]),
        "notice": "for research; not a medical device",
    }


def _backbone(model: AnyModel) -> str:
    return str(model.config["backbone"]) if isinstance(model, OnnxModel) else model.backbone.name
