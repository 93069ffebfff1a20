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
from einthoven.bundle import Bundle, read_about
from einthoven.errors import EstimatorError
from einthoven.files import read_metadata
from einthoven.hub import from_pretrained
from einthoven.licences import terms_of
from einthoven.shipped import ABOUT, bundle_folder
from einthoven.signals.prepare import Preparation
from einthoven.weights import load_backbone
from einthoven.weights.folder import LICENCE, licence_of_weights, weights_file

Given = str | Path | Backbone | Classifier | Bundle


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
    given : str, path, Backbone, Classifier or Bundle
        A registered name, which needs `weights`; an encoder's file that einthoven wrote; the folder
        of a bundle or of `save_pretrained`; the name of a bundle that came with einthoven, or of a
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


def terms_of_encoder(given: Given | None, weights: str | Path | None = None) -> str:
    """Licence of the weights of what `encoder_of` opens; empty where nothing records one.

    Of a network in memory nothing does, nor of a model that is fetched from the hub by name.
    """
    if isinstance(given, Bundle):
        return given.licence
    if isinstance(given, str) and given in backbone_names():
        return "" if weights is None else licence_of_weights(given, weights)
    if not isinstance(given, str | Path):
        return ""
    place = bundle_folder(given)
    if place.is_file():
        return licence_of_weights(read_metadata(place).get("backbone", ""), place)
    if (place / ABOUT).is_file():
        return terms_of(read_about(place))
    return read_metadata(weights_file(place)).get(LICENCE, "") if place.is_dir() else ""


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
    if isinstance(given, str | Path) and Path(given).is_file():
        network = _of_file(Path(given), options)
        return network, network.preparation
    if options:
        raise EstimatorError(
            f"options = {options!r} for {_short(given)}, which is built already",
            remedy="leave options out, or name a registered backbone",
        )
    model = _found(given) if isinstance(given, str | Path) else copy.deepcopy(given)
    classifier = model.classifier if isinstance(model, Bundle) else model
    network = classifier.backbone if isinstance(classifier, Classifier) else classifier
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


def _of_file(file: Path, options: dict[str, Any]) -> Backbone:
    """An encoder of ours, which says whose weights it holds."""
    name = read_metadata(file).get("backbone")
    if name is None:
        raise EstimatorError(
            f"{file} does not say which backbone's weights it holds",
            remedy="name the backbone, and give the file as weights",
        )
    return load_backbone(name, weights=file, **options)


def _found(given: str | Path) -> Backbone | Classifier | Bundle:
    if not bundle_folder(given).is_dir() and "/" not in str(given):
        entry(str(given))  # refuses an unknown name with those that come close
    return from_pretrained(given)


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
