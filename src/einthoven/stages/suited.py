"""Which recipe suits which backbone; found out before any data is read, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from einthoven.backbones.contract import PatchBackbone
from einthoven.backbones.layers.patches import check_samples
from einthoven.backbones.registry import create_backbone, entry, seeded
from einthoven.errors import BackboneError, EinthovenError
from einthoven.objectives.registry import create_objective, objective_names
from einthoven.stages.recipe import Pretraining, Recipe, load_pretraining, recipe_names


def recipe_for(backbone: str, name: str | Path | None = None) -> str | Path:
    """The recipe that is meant for a backbone.

    Parameters
    ----------
    backbone : str
    name : str or path, optional
        As somebody named it. `post-training`, `fine-tuning`, `linear-probe` and `scratch` are those
        of the backbone's own settings where it has any, so that what is compared differs in nothing
        but the named pieces. Without a name it is the own recipe of a network that was made for the
        task, and `post-training` of all others.

    Raises
    ------
    BackboneError
        For an unknown backbone.
    """
    known = entry(backbone)
    recipe = name or known.recipe or "post-training"
    specific = f"{known.recipes}/{recipe}"
    return specific if specific in recipe_names(Recipe) else recipe


def default_pretraining(backbone: str) -> str:
    """The recipe that a backbone is pretrained by when none is named: its own, or `release`.

    Raises
    ------
    BackboneError
        For an unknown backbone.
    """
    return entry(backbone).pretraining_recipe


def check_pretraining(
    recipe: Pretraining, backbone: str, options: Mapping[str, Any] | None = None
) -> None:
    """Refuse an objective that cannot be put on a backbone, or a crop that it does not take.

    Parameters
    ----------
    recipe : Pretraining
    backbone : str
        A registered name.
    options : mapping, optional
        Fields of the backbone's config.

    Raises
    ------
    BackboneError
        When they do not fit each other; the remedy is the network's own, see `suggestions`.
    PreparationError, RecipeError
        For an impossible crop, or an unknown or impossible option of the objective.
    """
    objective = _built(backbone, recipe.objective, options, recipe.options)
    network = objective.backbone
    preparation = network.preparation
    if recipe.crop_seconds is not None:
        preparation = preparation.with_window(seconds=recipe.crop_seconds)
    if isinstance(network, PatchBackbone):
        check_samples(
            network.name,
            preparation.window,
            patch=network.patch,
            max_patches=network.max_patches,
        )


def suited_recipes(backbone: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """Pretraining recipes that come with einthoven and suit a backbone, its default first."""
    names = sorted(
        recipe_names(Pretraining), key=lambda name: name != default_pretraining(backbone)
    )
    return [name for name in names if suits(load_pretraining(name), backbone, options)]


def suits(recipe: Pretraining, backbone: str, options: Mapping[str, Any] | None = None) -> bool:
    """Whether `check_pretraining` has nothing against it."""
    try:
        check_pretraining(recipe, backbone, options)
    except EinthovenError:
        return False
    return True


def suggestions(
    error: EinthovenError, backbone: str, options: Mapping[str, Any] | None = None
) -> str:
    """What to do about a refusal of `check_pretraining`: recipes that suit, or objectives."""
    if recipes := suited_recipes(backbone, options):
        return f"choose --recipe {' or '.join(recipes)}"
    objectives = []
    for name in objective_names():
        try:
            _built(backbone, name, options, {})
        except BackboneError:
            continue
        objectives.append(name)
    own = error.remedy.rstrip(".")
    if not objectives:
        return own
    return (
        f"{own}; none of einthoven's recipes suits it, but one of your own does with the "
        f"objective {' or '.join(objectives)}"
    )


def _built(
    backbone: str, objective: str, options: Mapping[str, Any] | None, own: Mapping[str, Any]
) -> Any:
    with torch.device("meta"), seeded(0):  # no weights are drawn, and nothing else is
        network = create_backbone(backbone, **{"init": "pretraining", **(options or {})})
        return create_objective(objective, network, **own)
