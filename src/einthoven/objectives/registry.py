"""The catalogue of self-supervised objectives."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from einthoven.backbones.registry import create_backbone, seeded
from einthoven.errors import RecipeError

if TYPE_CHECKING:
    from einthoven.backbones.contract import Backbone
    from einthoven.objectives.objective import Objective

__all__ = ["OBJECTIVES", "create_objective", "create_pretraining", "objective_names"]

OBJECTIVES: dict[str, str] = {
    "mae": "einthoven.objectives.mae:create_mae",
    "cpc": "einthoven.objectives.cpc:create_cpc",
    "cmsc": "einthoven.objectives.cmsc:create_cmsc",
    "wav2vec2": "einthoven.objectives.ecg_fm:create_wav2vec2",
    "ecg_fm": "einthoven.objectives.ecg_fm:create_ecg_fm",
}


def objective_names() -> list[str]:
    """Every registered name."""
    return list(OBJECTIVES)


def create_objective(name: str, backbone: Backbone, **options: Any) -> Objective:
    """Put an objective on a backbone, whose weights are left as they are.

    Parameters
    ----------
    name : str
        A name of `objective_names()`.
    backbone : Backbone
        The encoder to be pretrained.
    **options
        The objective's own; see its module.

    Returns
    -------
    Objective
        An `nn.Module`.

    Raises
    ------
    RecipeError
        For an unknown name or option.
    BackboneError
        When the backbone does not fit the objective.
    """
    if name not in OBJECTIVES:
        near = get_close_matches(str(name), OBJECTIVES, n=3, cutoff=0.4) or objective_names()
        raise RecipeError(
            f"unknown objective {name!r}", remedy=f"did you mean {' or '.join(near)}?"
        )
    module, function = OBJECTIVES[name].split(":")
    built: Objective = getattr(import_module(module), function)(backbone, **options)
    return built


def create_pretraining(
    backbone: str,
    *,
    objective: str = "mae",
    seed: int | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Objective:
    """A fresh backbone, initialised the way its authors pretrain it, under an objective.

    Parameters
    ----------
    backbone : str
        A registered backbone.
    objective : str
        A registered objective.
    seed : int, optional
        Seed of all weights; the caller's random state is left as it was.
    backbone_options : mapping, optional
        Fields of the backbone's config.
    **options
        The objective's own.
    """
    overrides = {"init": "pretraining", **(backbone_options or {})}
    with seeded(seed):
        encoder = create_backbone(backbone, **overrides)
        return create_objective(objective, encoder, **options)
