"""Backbones and classifiers from model folders and public checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor

from einthoven.backbones.classifier import Classifier, HeadKind
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import WeightsError
from einthoven.models import is_model, load_network, read_config
from einthoven.weights.fit import Naming, State, convert
from einthoven.weights.safe import read_state, without_prefix


def reader_of(name: str) -> Naming | None:
    """Tensor names in a backbone's public checkpoints; None if it has none."""
    reader = entry(name).reader
    naming: Naming | None = resolve_name(reader) if reader else None
    return naming


def _own_tensors(state: State, _: object) -> dict[str, Tensor]:
    head = {key: tensor for key, tensor in state.items() if key.startswith("head.")}
    return without_prefix(state, "backbone.") | head


_OWN = Naming(tensors=_own_tensors)


def load_backbone(
    name: str | Path, *, weights: str | PathLike[str] | None = None, **overrides: Any
) -> Backbone:
    """Build a backbone with pretrained weights.

    Parameters
    ----------
    name : str or path
        A registered backbone with `weights`; or a model folder or the name of the included model,
        `einthoven-small`, which have their own.
    weights : path, optional
        A model folder (or its model.safetensors), or a public checkpoint of the family (encoder,
        classifier or pretraining model; safetensors or PyTorch). A model folder gives the fields
        of the backbone's config as well; `overrides` replace them.
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
        inputs than `overrides`, or if `weights` are missing, or given for a model.
    BackboneError
        For an unknown name or override.
    """
    if str(name) not in backbone_names() and is_model(name):
        if weights is not None:
            raise WeightsError(
                f"{name} has its own weights, and weights={weights} is given",
                remedy="leave weights out, or name the backbone that they belong to",
            )
        name, weights = str(read_config(name)["backbone"]), name
    if weights is None:
        entry(str(name))
        raise WeightsError(
            f"{name} without weights",
            remedy="pass weights; create_backbone builds it with random ones",
        )
    backbone, state, naming = _open(str(name), Path(weights), overrides)
    _fill(backbone, state, naming, weights)
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
    backbone, state, naming = _open(name, Path(weights), overrides)
    attends = f"{naming.head}.query" in state
    last = f"{naming.head}.output.weight" if attends else f"{naming.head}.weight"
    if not {last, f"{naming.head}.{'query' if attends else 'bias'}"} <= state.keys():
        raise WeightsError(
            f"{weights}: no head of one linear layer or of query attention, only an encoder",
            remedy="load it with load_backbone",
        )
    outputs = len(state[last])
    if labels is not None and len(labels) != outputs:
        raise WeightsError(
            f"{weights}: a head with {outputs} outputs for {len(labels)} labels",
            remedy="name every output, in their order, or none",
        )
    with torch.device("meta"):
        kind: HeadKind = "query-attention" if attends else "linear"
        classifier = Classifier(backbone, labels or outputs, head=kind)
    _fill(classifier, state, naming, weights)
    return classifier.eval()


def _open(
    name: str, weights: Path, overrides: dict[str, Any]
) -> tuple[Backbone, dict[str, Tensor], Naming]:
    """A backbone without values, and all tensors of a file with their naming."""
    options = _options_of_model(name, weights, overrides) if is_model(weights) else overrides
    with torch.device("meta"):
        backbone = create_backbone(name, **options)
    if is_model(weights):
        return backbone, load_network(weights).state_dict(), _OWN
    state = read_state(weights)
    public = reader_of(name)
    if public is not None and public.matches(state):
        return backbone, _unwrapped(state, backbone, public), public
    own = _unwrapped(state, backbone, _OWN)
    if backbone.state_dict().keys() & _OWN.tensors(own, None).keys():
        return backbone, own, _OWN
    readers = {other: reader_of(other) for other in backbone_names()}
    fitting = [other for other, naming in readers.items() if naming and naming.matches(state)]
    raise WeightsError(
        f"{weights}: not a checkpoint of {name}",
        remedy=f"load it as {' or '.join(fitting)}"
        if fitting
        else "name a model folder, or a public checkpoint of the backbone",
    )


def _unwrapped(state: dict[str, Tensor], backbone: Backbone, naming: Naming) -> dict[str, Tensor]:
    """Tensors without a prefix of all of them, such as Lightning's `model.`, where names then fit.

    Training frameworks keep a network as an attribute of another module.
    """
    expected = {
        part
        for key, tensor in backbone.state_dict().items()
        for part in naming.parts(key, tuple(tensor.shape))[0]
    }
    variants = [state]
    while len(heads := {key.partition(".")[0] for key in variants[-1]}) == 1:
        prefix = f"{heads.pop()}."
        if not all(key.startswith(prefix) for key in variants[-1]):
            break
        variants.append({key.removeprefix(prefix): value for key, value in variants[-1].items()})
    return max(
        variants, key=lambda each: len(expected & naming.tensors(each, backbone.config).keys())
    )


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


def _fill(network: Backbone | Classifier, state: State, naming: Naming, file: object) -> None:
    if isinstance(network, Classifier):
        backbone = network.backbone
        tensors = naming.tensors(state, backbone.config)
    else:
        backbone = network
        tensors = _encoder_tensors(state, naming, backbone)
    names = {key: key.removeprefix("backbone.") for key in network.state_dict()}
    expected = {names[key]: tensor for key, tensor in network.state_dict().items()}
    try:
        ours = convert(
            backbone.adapted(dict(tensors)), expected, naming, file=file, what=backbone.name
        )
    except WeightsError as error:
        raise WeightsError(error.problem, remedy=_remedy(backbone, state, naming, file)) from error
    network.load_state_dict({key: ours[name] for key, name in names.items()}, assign=True)


def _encoder_tensors(state: State, naming: Naming, backbone: Backbone) -> dict[str, Tensor]:
    tensors = naming.tensors(state, backbone.config)
    return {key: t for key, t in tensors.items() if not key.startswith(f"{naming.head}.")}


def _remedy(backbone: Backbone, state: State, naming: Naming, file: Any) -> str:
    """Name the backbone of the model, or the one of the same family that the tensors fit."""
    if is_model(file):  # its checksums are right
        trained = read_config(file)["backbone"]
        if trained != backbone.name:
            return f"load it as {trained}: these are weights of that network"
        return "leave out the options that change the network"
    for name in backbone_names():
        if entry(name).family != backbone.family:
            continue
        with torch.device("meta"):
            other = create_backbone(name)
        with contextlib.suppress(WeightsError):
            encoder = _encoder_tensors(state, naming, other)
            convert(encoder, other.state_dict(), naming, file="", what=name)
            return f"load it as {name}, which it fits"
    return "download the file again; it is incomplete, or of a changed network"
