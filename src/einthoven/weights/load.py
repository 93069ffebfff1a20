"""Backbones and classifiers from checkpoints on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import WeightsError
from einthoven.models import is_model, load_network, read_config
from einthoven.weights import (
    ecg_fm,
    ecgfounder,
    hubert_ecg,
    mtecg,
    multiresnet,
    s4,
    st_mem,
    strodthoff,
)
from einthoven.weights.fit import Parts, convert, own_parts
from einthoven.weights.safe import read_checkpoint
from einthoven.weights.state import CONTAINERS, recognise, state_of, without_prefix

__all__ = ["FAMILIES", "PublicNames", "load_backbone", "load_classifier", "to_public"]


def _all_of_them(state: Mapping[str, Tensor], config: object) -> dict[str, Tensor]:
    return dict(state)


@dataclass(frozen=True)
class PublicNames:
    """How one family of public checkpoints names its tensors.

    Attributes
    ----------
    parts : callable
        Public names of one of our tensors, see `einthoven.weights.convert.Parts`.
    encoder_state : callable
        The encoder's (and head's) entries of any file of the family.
    to_public : callable
        Our state dict in public names.
    used : callable
        Those of a file's tensors that a network of this config has a use for; all of them unless
        said otherwise. What is left out is not unexpected.
    parts_of : callable, optional
        `parts` by a file's tensors, where the family's networks have names of their own each.
    """

    parts: Parts
    encoder_state: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    to_public: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    used: Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]] = _all_of_them
    parts_of: Callable[[Mapping[str, Tensor]], Parts] | None = None


FAMILIES: dict[str, PublicNames] = {
    "st_mem": PublicNames(st_mem.encoder_parts, st_mem.encoder_state, st_mem.to_public),
    "mtecg": PublicNames(mtecg.encoder_parts, mtecg.encoder_state, mtecg.to_public),
    "hubert_ecg": PublicNames(
        hubert_ecg.encoder_parts, hubert_ecg.encoder_state, hubert_ecg.to_public
    ),
    "ecgfounder": PublicNames(
        ecgfounder.encoder_parts,
        ecgfounder.encoder_state,
        ecgfounder.to_public,
        used=ecgfounder.used,
    ),
    "ecg_fm": PublicNames(ecg_fm.encoder_parts, ecg_fm.encoder_state, ecg_fm.to_public),
    "multiresnet": PublicNames(
        multiresnet.encoder_parts, multiresnet.encoder_state, multiresnet.to_public
    ),
    "s4": PublicNames(s4.encoder_parts, s4.encoder_state, s4.to_public, used=s4.used),
    "strodthoff": PublicNames(
        own_parts,
        strodthoff.encoder_state,
        strodthoff.to_public,
        parts_of=strodthoff.parts_of,
    ),
}


def load_backbone(
    name: str, *, weights: str | PathLike[str], strict: bool = True, **overrides: Any
) -> Backbone:
    """Build a registered backbone with the weights of a file.

    Parameters
    ----------
    name : str
        A registered backbone.
    weights : path
        A model folder (or its model.safetensors), or a public checkpoint of the family (encoder,
        classifier or full pretraining model; safetensors or PyTorch). A model folder gives the
        fields of the backbone's config as well; `overrides` replace them.
    strict : bool
        Refuse missing and unexpected tensors. Otherwise missing ones keep their fresh values;
        tensors of another shape are refused all the same.
    **overrides
        Fields of the backbone's config.

    Returns
    -------
    Backbone
        In eval mode, on the CPU.

    Raises
    ------
    WeightsError
        When the file is damaged, unsafe, of another network, or trained on another scale of its
        inputs than `overrides` asks for.
    BackboneError
        For an unknown name or override.
    """
    if is_model(Path(weights)):
        return _backbone_of_model(name, Path(weights), strict, overrides)
    state, parts = _read_encoder(name, weights)
    state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    with torch.device("meta" if strict else "cpu"):  # fresh values are not wanted when strict
        backbone = create_backbone(name, **overrides)
    state = _used(name, state, backbone.config)
    _fill(backbone, state, parts, weights, name, strict)
    return backbone.eval()


def load_classifier(
    name: str,
    *,
    weights: str | PathLike[str],
    labels: Sequence[str] | None = None,
    **overrides: Any,
) -> Classifier:
    """Build a backbone with its head from a file that holds both.

    Parameters
    ----------
    name : str
        A registered backbone.
    weights : path
        A model folder with a head, or a public classifier checkpoint of the family.
    labels : sequence of str, optional
        Names of the outputs; as many as the file's head has.
    **overrides
        Fields of the backbone's config.

    Returns
    -------
    Classifier
        In eval mode, on the CPU.

    Raises
    ------
    WeightsError
        As `load_backbone`, and when the file has no head or one of another size.
    """
    parts: Parts = own_parts
    if is_model(Path(weights)):
        network = load_network(Path(weights))
        state = {key.removeprefix("backbone."): t for key, t in network.state_dict().items()}
    else:
        state, parts = _read_encoder(name, weights)
    if "head.weight" not in state or "head.bias" not in state:
        raise WeightsError(
            f"{weights}: has no head of one linear layer, only an encoder",
            remedy="load it with load_backbone, or create_classifier(name, weights=...).",
        )
    outputs = len(state["head.weight"])
    if labels is not None and len(labels) != outputs:
        raise WeightsError(
            f"{weights}: its head has {outputs} outputs, and {len(labels)} labels are named",
            remedy="name every output, in their order, or none.",
        )
    with torch.device("meta"):
        classifier = Classifier(create_backbone(name, **overrides), labels or outputs)
    state = _used(name, state, classifier.backbone.config)
    _fill(classifier, state, _classifier_parts(parts), weights, name, True)
    return classifier.eval()


def to_public(model: Backbone | Classifier) -> dict[str, Tensor]:
    """A model's state dict in the public names of its family, for use elsewhere.

    Returns
    -------
    dict of str to Tensor
        What the family's own code loads as ``checkpoint["model"]``.

    Raises
    ------
    WeightsError
        When no public names of the family are known.
    """
    backbone = model.backbone if isinstance(model, Classifier) else model
    if backbone.family not in FAMILIES:
        raise WeightsError(
            f"{backbone.name}: nobody publishes its weights, so there are no public names",
            remedy="save it in our own naming: einthoven.save_model(model, folder).",
        )
    return FAMILIES[backbone.family].to_public(model.state_dict())


def _classifier_parts(parts: Parts) -> Parts:
    return lambda key, shape: parts(key.removeprefix("backbone."), shape)


def _read_encoder(name: str, weights: str | PathLike[str]) -> tuple[dict[str, Tensor], Parts]:
    """The encoder's and head's tensors of a file, and how they are named."""
    family = entry(name).family
    state = state_of(read_checkpoint(weights, parts=CONTAINERS), file=weights)
    found = recognise(state)
    if found is None and family not in FAMILIES:  # nobody publishes any: it can only be ours
        return _own_state(state), own_parts
    if found is None or found[0] != family:
        held = f"a checkpoint of {found[1]}" if found else "no network that einthoven knows"
        raise WeightsError(
            f"{weights}: holds {held}, not {name}",
            remedy=_same_family(found[0] if found else ""),
        )
    if found[1].startswith("einthoven"):
        return _own_state(state), own_parts
    names = FAMILIES[family]
    parts = names.parts_of(state) if names.parts_of else names.parts
    return names.encoder_state(state), parts


def _backbone_of_model(
    name: str, weights: Path, strict: bool, overrides: dict[str, Any]
) -> Backbone:
    config = read_config(weights)
    trained = config["backbone"]
    if entry(trained).family != entry(name).family:
        raise WeightsError(
            f"{weights}: holds a model of {trained}, not of {name}", remedy=f"load it as {trained}."
        )
    options = {key: value for key, value in config["backbone_options"].items() if key != "init"}
    scale = options.get("scale")
    if scale is not None and overrides.get("scale", scale) != scale:
        raise WeightsError(
            f"{weights}: trained on inputs divided by {scale:g} mV, and scale = "
            f"{overrides['scale']} is given",
            remedy="leave scale out: that of the model is taken.",
        )
    if trained != name:
        options = {"scale": scale} if scale is not None else {}
    network = load_network(weights)
    encoder = network.backbone if isinstance(network, Classifier) else network
    with torch.device("meta" if strict else "cpu"):
        backbone = create_backbone(name, **options | overrides)
    _fill(backbone, encoder.state_dict(), own_parts, weights, name, strict)
    return backbone.eval()


def _own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    inner = without_prefix(state, "backbone.")
    return inner | {key: state[key] for key in ("head.weight", "head.bias") if key in state}


def _same_family(family: str) -> str:
    fitting = [name for name in backbone_names() if family and entry(name).family == family]
    if fitting:
        return f"load it as {' or '.join(fitting)}."
    return "give a checkpoint of the backbone's own family."


def _used(name: str, state: Mapping[str, Tensor], config: object) -> dict[str, Tensor]:
    family = entry(name).family  # one without public checkpoints has no names of its own
    return FAMILIES[family].used(state, config) if family in FAMILIES else dict(state)


def _fill(
    module: torch.nn.Module,
    state: Mapping[str, Tensor],
    parts: Parts,
    file: object,
    name: str,
    strict: bool,
) -> None:
    try:
        ours = convert(state, module.state_dict(), parts, file=file, what=name, strict=strict)
    except WeightsError as error:
        raise WeightsError(error.problem, remedy=_better_name(name, state, parts)) from error
    module.load_state_dict(ours, strict=strict, assign=True)


def _better_name(name: str, state: Mapping[str, Tensor], parts: Parts) -> str:
    encoder = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    for other in backbone_names():
        if entry(other).family != entry(name).family:
            continue
        with torch.device("meta"):
            network = create_backbone(other)
        with contextlib.suppress(WeightsError):
            fitting = _used(other, encoder, network.config)
            convert(fitting, network.state_dict(), parts, file="", what=other)
            return f"load it as {other}, which it fits."
    return "the file is incomplete or from a changed network; fetch the publisher's again."
