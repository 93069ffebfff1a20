"""What a page says about a model, and the files of the page."""

from __future__ import annotations

from pathlib import Path

from einthoven.files import Json
from einthoven.models.model import Model
from einthoven.report.description import cohort_of, flat

ASSETS = Path(__file__).parent / "assets"


def description_of(name: str, model: Model) -> Json:
    """What `GET /models` says about a model, by its name on the server."""
    return {
        "name": name,
        "digest": str(model.config.get("digest", "")),
        "form": model.task.behaviour.form,
        "labels": [
            {"name": label, "description": model.descriptions.get(label, "")}
            for label in model.labels
        ],
        "backbone": model.backbone.name,
        "leads": list(model.preparation.leads),
        "rate": model.preparation.rate,
        "preparation": model.preparation.describe(),
        "calibrated": model.calibration is not None,
        "coverage": None if model.sets is None else model.sets.coverage,
        "licence": str(model.licence),
        "simulated": bool(cohort_of(flat(model.config))["synthetic"]),
        "notice": "for research; not a medical device",
    }
