"""Where training begins: a registered backbone, with or without the weights of a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from einthoven.errors import ModelError
from einthoven.models.config import SHIPPED, is_model, model_path, read_config


@dataclass(frozen=True)
class Start:
    """Where training begins.

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


def start_from(backbone: str, weights: str | Path | None = None, *, random: bool = False) -> Start:
    """Resolve the name of a backbone, or of the shipped model.

    Parameters
    ----------
    backbone : str
        A registered backbone, or the name of the shipped model.
    weights : path, optional
        Pretrained weights; the shipped model has its own. The config of a model folder of this
        backbone is used as well.
    random : bool
        Start from random weights: only the network of the shipped model is used.

    Raises
    ------
    ModelError
        If weights are given for a model that has its own.
    """
    if backbone == SHIPPED:
        if weights is not None:
            raise ModelError(
                f"{SHIPPED} has its own weights, and --weights {weights} is given",
                remedy="leave --weights out, or name the backbone that the weights belong to",
            )
        start = _start(model_path(backbone))
        return replace(start, weights=None) if random else start
    if weights is None or not is_model(weights):
        return Start(backbone, weights)
    start = _start(model_path(weights))
    return start if start.backbone == backbone else Start(backbone, start.weights)


def _start(folder: Path) -> Start:
    config = read_config(folder)
    steps = {step["step"]: step for step in config["preparation"]["steps"]}
    options = dict(config["backbone_options"])
    if "window" in steps and "evaluation_crops" in options:
        options["evaluation_crops"] = steps["window"]["evaluation_crops"]
    return Start(config["backbone"], folder, options, "centre" in steps)
