"""Initialisation of a training: a registered backbone, with or without the weights of a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from einthoven.errors import ModelError
from einthoven.models.config import SHIPPED, is_model, model_path, read_config


@dataclass(frozen=True)
class Initialisation:
    """Initialisation of a training.

    Attributes
    ----------
    backbone : str
        A registered name.
    weights : path or None
        Its pretrained weights.
    options : dict
        Fields of its config.
    centred : bool
        Whether the weights were trained on leads without their means.
    """

    backbone: str
    weights: str | Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    centred: bool = False


def initialisation_of(
    backbone: str, weights: str | Path | None = None, *, random: bool = False
) -> Initialisation:
    """Resolve the name of a backbone, or of the included model.

    Parameters
    ----------
    backbone : str
        A registered backbone, or the name of the included model.
    weights : path, optional
        Pretrained weights; the included model has its own. The config of a model folder of this
        backbone is used as well.
    random : bool
        Start from random weights: only the network of the included model is used.

    Raises
    ------
    ModelError
        If weights are given for a model that has its own.
    """
    if backbone == SHIPPED:
        if weights is not None:
            raise ModelError(
                f"{SHIPPED} has its own weights, and `weights={str(weights)!r}` is given",
                remedy="leave `weights=...` out, or name the backbone that the weights belong to",
            )
        initialisation = _of_model(model_path(backbone))
        return replace(initialisation, weights=None) if random else initialisation
    if weights is None or not is_model(weights):
        return Initialisation(backbone, weights)
    initialisation = _of_model(model_path(weights))
    if initialisation.backbone == backbone:
        return initialisation
    return Initialisation(backbone, initialisation.weights)


def _of_model(folder: Path) -> Initialisation:
    config = read_config(folder)
    steps = {step["step"]: step for step in config["preparation"]["steps"]}
    options = dict(config["backbone_options"])
    if "window" in steps and "evaluation_crops" in options:
        options["evaluation_crops"] = steps["window"]["evaluation_crops"]
    return Initialisation(config["backbone"], folder, options, "centre" in steps)
