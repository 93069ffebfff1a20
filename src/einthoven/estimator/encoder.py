"""An encoder by whatever it is called: a name, a file, a folder, or the thing itself."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import EstimatorError
from einthoven.files import Json
from einthoven.models import Model, is_model, load_model, read_config
from einthoven.signals.prepare import Preparation
from einthoven.weights import load_backbone
from einthoven.weights.public import config_of_weights

Given = str | Path | Backbone | Classifier | Model


def encoder_of(
    given: Given | None,
    *,
    leads: Sequence[str],
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> tuple[Backbone, Preparation]:
    """The encoder that somebody means, and how signals are prepared for it.

    Parameters
    ----------
    given : str, path, Backbone, Classifier or Model
        A registered name, which needs `weights`; an encoder's file that einthoven wrote; the folder
        of a bundle or of `save_model`; the name of a bundle that came with einthoven, or of a
        model on the hub; or a model, which is copied.
    leads : sequence of str
        Leads that there are. Where the encoder reads more, it is built for those it shares with
        them, and its own policy for fewer leads holds.
    weights : path, optional
        Checkpoint of a registered name.
    options : mapping, optional
        Fields of a registered network's config.
    seed : int, optional
        Draw fresh weights for a registered name, where there are none.

    Returns
    -------
    Backbone
        In eval mode, on the CPU, shared with nobody.
    Preparation

    Raises
    ------
    EstimatorError
        When nothing is given, or what does not go together.
    EinthovenError
        What reading a model refuses, and a backbone that does not take these leads.
    """
    if given is None:
        raise EstimatorError(
            "no backbone is given",
            remedy="name one of `einthoven backbones`, an encoder's file or a model's folder",
        )
    network, preparation = _opened(given, weights, dict(options or {}), seed)
    present = tuple(lead for lead in preparation.leads if lead in leads)
    if not present:
        raise EstimatorError(
            f"the backbone reads {', '.join(preparation.leads)}, and X has {', '.join(leads)}",
            remedy="give leads that the backbone reads",
        )
    if present != preparation.leads:
        network = _for_leads(network, present)
        # A network may compute limb leads from those that there are: it then reads more of them.
        preparation = preparation.with_leads(network.leads).deriving(present)
    return network.eval().requires_grad_(True), preparation


def initial_config(given: Given | None, weights: str | Path | None = None) -> Json | None:
    """Config of the model that `encoder_of` opens, for provenance and licence.

    Returns
    -------
    dict or None
        None for random weights; empty for a network in memory, whose origin is not recorded.
    """
    if isinstance(given, Model):
        return given.config
    if isinstance(given, str) and given in backbone_names():
        return None if weights is None else config_of_weights(given, weights)
    return read_config(given) if isinstance(given, str | Path) else {}


def _opened(
    given: Given, weights: str | Path | None, options: dict[str, Any], seed: int | None
) -> tuple[Backbone, Preparation]:
    if isinstance(given, str) and given in backbone_names():
        network = _registered(given, weights, options, seed)
        return network, network.preparation
    if weights is not None:
        raise EstimatorError(
            f"weights = {str(weights)!r} for {_short(given)}, which has weights of its own",
            remedy="leave weights out, or name the registered backbone that they are of",
        )
    if isinstance(given, str | Path) and Path(given).is_file() and not is_model(given):
        raise EstimatorError(
            f"{given} does not name the backbone whose weights it holds",
            remedy="name the backbone, and give the file as weights",
        )
    if options and isinstance(given, str | Path) and is_model(given):
        network = load_backbone(read_config(given)["backbone"], weights=given, **options)
        return network, network.preparation
    if options:
        raise EstimatorError(
            f"options = {options!r} for {_short(given)}, which is built already",
            remedy="leave options out, or name a registered backbone",
        )
    model = _found(given) if isinstance(given, str | Path) else copy.deepcopy(given)
    network = model.backbone if isinstance(model, Model | Classifier) else model
    return network, model.preparation


def _registered(
    name: str, weights: str | Path | None, options: dict[str, Any], seed: int | None
) -> Backbone:
    if weights is not None:
        return load_backbone(name, weights=weights, **options)
    if seed is None:
        raise EstimatorError(
            f"{name} without weights would be a network of random numbers",
            remedy="give weights=..., or train it from scratch: EcgClassifier(recipe='scratch')",
        )
    return create_backbone(name, seed=seed, **options)


def _found(given: str | Path) -> Model:
    if not is_model(given) and not Path(given).exists() and "/" not in str(given):
        entry(str(given))  # refuses an unknown name with those that come close
    return load_model(given)


def _for_leads(network: Backbone, leads: tuple[str, ...]) -> Backbone:
    """The same weights in a network that is built for fewer leads."""
    config = {
        field.name: getattr(network.config, field.name)
        for field in dataclasses.fields(network.config)
        if field.name not in ("name", "leads")
    }
    with torch.device("meta"):
        fewer = create_backbone(network.name, **config, leads=leads)
    fewer.load_state_dict(network.state_dict(), assign=True)
    return fewer


def _short(given: object) -> str:
    return repr(str(given)) if isinstance(given, str | Path) else f"a {type(given).__name__}"
