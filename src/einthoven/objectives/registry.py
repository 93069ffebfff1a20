"""The catalogue of self-supervised objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import torch

from einthoven.backbones.config import BackboneConfig
from einthoven.backbones.registry import create_backbone, entry, seeded
from einthoven.errors import BackboneError, EinthovenError, RecipeError
from einthoven.extensions import import_extensions

if TYPE_CHECKING:
    from einthoven.backbones.contract import Backbone
    from einthoven.objectives.objective import Objective

Create = Callable[..., "Objective"]


@dataclass(frozen=True)
class Registered:
    """A registered objective.

    Attributes
    ----------
    create : str or callable
        Function that creates it, or its place as `module:name`.
    backbone_options : mapping
        Fields of the backbone's config that differ from its defaults under this objective, where
        the config has them and nobody sets them.
    """

    create: str | Create
    backbone_options: Mapping[str, Any] = field(default_factory=dict)


_BOTH_SIDES, _PAST = {"causal": False}, {"causal": True}

OBJECTIVES: dict[str, Registered] = {
    "mae": Registered("einthoven.objectives.mae:create_mae"),
    "cpc": Registered("einthoven.objectives.cpc:create_cpc", _PAST),
    "jepa": Registered("einthoven.objectives.jepa:create_jepa", _BOTH_SIDES),
    "data2vec": Registered("einthoven.objectives.data2vec:create_data2vec", _BOTH_SIDES),
    "dinosr": Registered("einthoven.objectives.dinosr:create_dinosr", _BOTH_SIDES),
    "sinkhorn_kmeans": Registered(
        "einthoven.objectives.sinkhorn_kmeans:create_sinkhorn_kmeans", _BOTH_SIDES
    ),
    "hubert": Registered("einthoven.objectives.hubert:create_hubert", _BOTH_SIDES),
    "cmsc": Registered("einthoven.objectives.cmsc:create_cmsc"),
    "wav2vec2": Registered("einthoven.objectives.ecg_fm:create_wav2vec2"),
    "ecg_fm": Registered("einthoven.objectives.ecg_fm:create_ecg_fm"),
}


def objective_names() -> list[str]:
    """Every registered name."""
    import_extensions()
    return list(OBJECTIVES)


def register_objective(
    name: str, create: Create, *, backbone_options: Mapping[str, Any] | None = None
) -> None:
    """Add an objective to the catalogue.

    Parameters
    ----------
    name : str
        As recipes name it.
    create : callable
        `create(backbone, **options)` returns the objective, or raises BackboneError if the backbone
        does not suit it.
    backbone_options : mapping, optional
        Fields of the backbone's config under this objective; see `Registered`.

    Raises
    ------
    RecipeError
        If the name belongs to another objective.
    """
    if OBJECTIVES.setdefault(name, Registered(create, backbone_options or {})).create != create:
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
        If the backbone does not suit the objective; the remedy names the objectives that do.
    """
    try:
        return _created(name, backbone, options)
    except BackboneError as error:
        suitable = " or ".join(suitable_objectives(backbone))
        raise BackboneError(
            error.problem, remedy=f"{error.remedy}, or the objective {suitable}"
        ) from error


def suitable_objectives(backbone: Backbone) -> list[str]:
    """Objectives that a backbone suits; on copies without storage."""
    creates = tuple((name, OBJECTIVES[name].create) for name in objective_names())
    return list(_suitable(type(backbone), backbone.config, creates))


@lru_cache(maxsize=256)
def _suitable(
    network: type[Backbone], config: BackboneConfig, creates: tuple[tuple[str, str | Create], ...]
) -> tuple[str, ...]:
    """Names of `creates` that accept a network; once for each configuration, as it takes 0.1 s."""
    suitable = []
    for name, _ in creates:
        with torch.device("meta"), suppress(EinthovenError):
            _created(name, network(config), {})  # type: ignore[call-arg]
            suitable.append(name)
    return tuple(suitable)


def _created(name: str, backbone: Backbone, options: Mapping[str, Any]) -> Objective:
    create = _registered(name).create
    function: Create = resolve_name(create) if isinstance(create, str) else create
    return function(backbone, **options)


def _registered(name: str) -> Registered:
    names = objective_names()
    if name not in names:
        near = get_close_matches(str(name), names, n=3, cutoff=0.4) or names
        raise RecipeError(
            f"unknown objective {name!r}", remedy=f"did you mean {' or '.join(near)}?"
        )
    return OBJECTIVES[name]


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
    fields = entry(backbone).config.options
    own = _registered(objective).backbone_options
    overrides = {
        "init": "pretraining",
        **{key: value for key, value in own.items() if key in fields},
        **(backbone_options or {}),
    }
    with seeded(seed):
        encoder = create_backbone(backbone, **overrides)
        return create_objective(objective, encoder, **options)
