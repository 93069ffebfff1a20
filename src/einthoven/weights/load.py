"""Backbones and classifiers from model folders and public checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import WeightsError
from einthoven.models import is_model, load_network, read_config
from einthoven.weights import ecg_cpc, ecg_fm, ecgfounder, hubert_ecg, st_mem
from einthoven.weights.fit import Parts, convert, own_parts
from einthoven.weights.safe import read_state, without_prefix

__all__ = ["load_backbone", "load_classifier"]

State = Mapping[str, Tensor]


def _all(state: State, config: object) -> dict[str, Tensor]:
    return dict(state)


@dataclass(frozen=True)
class PublicNames:
    """Tensor names in the public checkpoints of one family.

    Attributes
    ----------
    signature : str
        Ending of a tensor name that only this family has.
    encoder_state : callable
        The tensors of encoder and head in a file of the family.
    parts : callable
        Public names of one of our tensors (`einthoven.weights.fit.Parts`).
    used : callable
        The tensors that a network of this config needs.
    is_classifier : callable
        Whether tensor names are those of a fine-tuned classifier.
    """

    signature: str
    encoder_state: Callable[[State], dict[str, Tensor]]
    parts: Parts = own_parts
    used: Callable[[State, Any], dict[str, Tensor]] = _all
    is_classifier: Callable[[Collection[str]], bool] = lambda names: False

    def matches(self, names: Collection[str]) -> bool:
        """Whether tensor names are those of a public checkpoint of the family."""
        return any(name.endswith(self.signature) for name in names)


FAMILIES: dict[str, PublicNames] = {
    "st_mem": PublicNames(
        "to_patch_embedding.2.weight", st_mem.encoder_state, st_mem.encoder_parts
    ),
    "hubert_ecg": PublicNames(
        "feature_extractor.conv_layers.0.conv.weight",
        hubert_ecg.encoder_state,
        hubert_ecg.encoder_parts,
        is_classifier=hubert_ecg.is_classifier,
    ),
    "ecgfounder": PublicNames(
        "first_conv.conv.weight",
        ecgfounder.encoder_state,
        ecgfounder.encoder_parts,
        ecgfounder.used,
    ),
    "ecg_fm": PublicNames(
        "layers.0.self_attn.k_proj.weight", ecg_fm.encoder_state, ecg_fm.encoder_parts
    ),
    "s4": PublicNames("s4_layers.0.kernel.kernel.C", ecg_cpc.encoder_state),
}


def load_backbone(
    name: str, *, weights: str | PathLike[str], strict: bool = True, **overrides: Any
) -> Backbone:
    """Build a registered backbone with pretrained weights.

    Parameters
    ----------
    name : str
        A registered backbone.
    weights : path
        A model folder (or its model.safetensors), or a public checkpoint of the family (encoder,
        classifier or pretraining model; safetensors or PyTorch). A model folder gives the fields
        of the backbone's config as well; `overrides` replace them.
    strict : bool
        Refuse missing and unexpected tensors. Otherwise missing ones keep their fresh values;
        tensors of another shape are refused in any case.
    **overrides
        Fields of the backbone's config.

    Returns
    -------
    Backbone
        In eval mode, on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, unsafe, of another network, or trained on another scale of its
        inputs than `overrides`.
    BackboneError
        For an unknown name or override.
    """
    state, parts, options = _read(name, Path(weights), overrides)
    state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    with torch.device("meta" if strict else "cpu"):  # a strict load needs no fresh values
        backbone = create_backbone(name, **options)
    state = _used(name, state, parts, backbone)
    _fill(backbone, state, parts, weights, name, strict=strict)
    return backbone.eval()


def load_classifier(
    name: str,
    *,
    weights: str | PathLike[str],
    labels: Sequence[str] | None = None,
    **overrides: Any,
) -> Classifier:
    """Build a backbone with its head from a file that has both.

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
        As `load_backbone`, and if the file has no head, or one of another size.
    """
    state, parts, options = _read(name, Path(weights), overrides)
    if "head.weight" not in state or "head.bias" not in state:
        raise WeightsError(
            f"{weights}: no head of one linear layer, only an encoder",
            remedy="load it with load_backbone",
        )
    outputs = len(state["head.weight"])
    if labels is not None and len(labels) != outputs:
        raise WeightsError(
            f"{weights}: a head with {outputs} outputs for {len(labels)} labels",
            remedy="name every output, in their order, or none",
        )
    with torch.device("meta"):
        classifier = Classifier(create_backbone(name, **options), labels or outputs)
    state = _used(name, state, parts, classifier.backbone)
    _fill(classifier, state, _without_backbone(parts), weights, name, strict=True)
    return classifier.eval()


def _without_backbone(parts: Parts) -> Parts:
    return lambda key, shape: parts(key.removeprefix("backbone."), shape)


def _read(
    name: str, weights: Path, overrides: dict[str, Any]
) -> tuple[dict[str, Tensor], Parts, dict[str, Any]]:
    """Tensors of encoder and head, their names, and the fields of the backbone's config."""
    if is_model(weights):
        options = _options_of_model(name, weights, overrides)
        return _own_names(load_network(weights).state_dict()), own_parts, options
    state = read_state(weights)
    names = FAMILIES.get(entry(name).family)
    if names is not None and names.matches(state.keys()):
        return names.encoder_state(state), names.parts, overrides
    own = _own_names(state)
    with torch.device("meta"):
        expected = create_backbone(name, **overrides).state_dict()
    if expected.keys() & own.keys():
        return own, own_parts, overrides
    families = [family for family, other in FAMILIES.items() if other.matches(state.keys())]
    fitting = [other for other in backbone_names() if entry(other).family in families]
    raise WeightsError(
        f"{weights}: not a checkpoint of {name}",
        remedy=f"load it as {' or '.join(fitting)}"
        if fitting
        else "name a model folder, or a public checkpoint of the backbone",
    )


def _own_names(state: State) -> dict[str, Tensor]:
    inner = without_prefix(state, "backbone.")
    return inner | {key: state[key] for key in ("head.weight", "head.bias") if key in state}


def _options_of_model(name: str, weights: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    config = read_config(weights)
    trained = config["backbone"]
    if entry(trained).family != entry(name).family:
        raise WeightsError(
            f"{weights}: a model of {trained}, not of {name}", remedy=f"load it as {trained}"
        )
    options = {key: value for key, value in config["backbone_options"].items() if key != "init"}
    scale = options.get("scale")
    if scale is not None and overrides.get("scale", scale) != scale:
        raise WeightsError(
            f"{weights}: trained on inputs divided by {scale:g} mV, not by scale = "
            f"{overrides['scale']}",
            remedy="leave scale out: that of the model is used",
        )
    if trained != name:
        options = {"scale": scale} if scale is not None else {}
    return options | overrides


def _used(name: str, state: State, parts: Parts, backbone: Backbone) -> dict[str, Tensor]:
    names = FAMILIES.get(entry(name).family)
    public = names is not None and (parts is names.parts and parts is not own_parts)
    return names.used(state, backbone.config) if names and public else dict(state)


def _fill(
    network: nn.Module,
    state: State,
    parts: Parts,
    file: object,
    name: str,
    *,
    strict: bool,
) -> None:
    try:
        ours = convert(state, network.state_dict(), parts, file=file, what=name, strict=strict)
    except WeightsError as error:
        raise WeightsError(error.problem, remedy=_better_name(name, state, parts)) from error
    network.load_state_dict(ours, strict=strict, assign=True)


def _better_name(name: str, state: State, parts: Parts) -> str:
    """Remedy: the backbone of the same family that the tensors fit."""
    encoder = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    for other in backbone_names():
        if entry(other).family != entry(name).family:
            continue
        with torch.device("meta"):
            network = create_backbone(other)
        with contextlib.suppress(WeightsError):
            fitting = _used(other, encoder, parts, network)
            convert(fitting, network.state_dict(), parts, file="", what=other)
            return f"load it as {other}, which it fits"
    return "download the file again; it is incomplete, or of a changed network"
