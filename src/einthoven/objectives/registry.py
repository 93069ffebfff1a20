"""The catalogue of self-supervised objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from einthoven.backbones.registry import create_backbone, seeded
from einthoven.errors import RecipeError
from einthoven.extensions import import_extensions

if TYPE_CHECKING:
    from einthoven.backbones.contract import Backbone
    from einthoven.objectives.objective import Objective

Create = Callable[..., "Objective"]

OBJECTIVES: dict[str, str | Create] = {
    "mae": "einthoven.objectives.mae:create_mae",
    "cpc": "einthoven.objectives.cpc:create_cpc",
    "cmsc": "einthoven.objectives.cmsc:create_cmsc",
    "wav2vec2": "einthoven.objectives.ecg_fm:create_wav2vec2",
    "ecg_fm": "einthoven.objectives.ecg_fm:create_ecg_fm",
}


def objective_names() -> list[str]:
    """Every registered name."""
    import_extensions()
    return list(OBJECTIVES)


def register_objective(name: str, create: Create) -> None:
    """Add an objective to the catalogue.

    Parameters
    ----------
    name : str
        As recipes name it.
    create : callable
        `create(backbone, **options)` returns the objective, or raises BackboneError if the backbone
        does not suit it.

    Raises
    ------
    RecipeError
        If the name belongs to another objective.
    """
    if OBJECTIVES.setdefault(name, create) != create:
        raise RecipeError(
            f"the name {name!r} belongs to another objective", remedy="choose another name"
        )


def create_objective(name: str, backbone: Backbone, **options: Any) -> Objective:
    """Put an objective on a backbone, whose weights are left as they are.

    The options are those of the objective's module.

    Raises
    ------
    RecipeError
        For an unknown name or option.
    BackboneError
        If the backbone does not fit the objective.
    """
    names = objective_names()
    if name not in names:
        near = get_close_matches(str(name), names, n=3, cutoff=0.4) or names
        raise RecipeError(
            f"unknown objective {name!r}", remedy=f"did you mean {' or '.join(near)}?"
        )
    registered = OBJECTIVES[name]
    create: Create = resolve_name(registered) if isinstance(registered, str) else registered
    return create(backbone, **options)


def create_pretraining(
    backbone: str,
    *,
    objective: str = "mae",
    seed: int | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Objective:
    """A fresh backbone, initialised the way its authors pretrain it, under an objective.

    All weights follow from the seed, and the caller's random state is left as it was.
    `backbone_options` are fields of the backbone's config, the others the objective's.
    """
    overrides = {"init": "pretraining", **(backbone_options or {})}
    with seeded(seed):
        encoder = create_backbone(backbone, **overrides)
        return create_objective(objective, encoder, **options)
