"""Our networks' tensors in the names of public checkpoints: the readers' inverse, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from pretraining_models import COUNTERS, NAMINGS
from torch import Tensor

from einthoven.backbones.classifier import Classifier
from einthoven.weights import ecg_fm, ecgfounder, hubert_ecg, st_mem
from einthoven.weights.fit import Naming

State = Mapping[str, Tensor]


def to_public(model: Any) -> dict[str, Tensor]:
    """A backbone, classifier or pretraining model in the public names of its family."""
    backbone = getattr(model, "backbone", model)
    state = model.state_dict()
    if not isinstance(model, Classifier) and model is not backbone:
        return _PRETRAINING[backbone.family](state)
    plain = {key.removeprefix("backbone."): tensor for key, tensor in state.items()}
    return _FAMILIES[backbone.family](plain)


def export(state: State, naming: Naming) -> dict[str, Tensor]:
    """Tensors in a public naming from ours: `einthoven.weights.fit.convert` backwards."""
    public: dict[str, Tensor] = {}
    for key, tensor in state.items():
        names, shape = naming.parts(key, tuple(tensor.shape))
        pieces = tensor.reshape(len(names), *shape).unbind(0)
        public.update((name, piece.contiguous()) for name, piece in zip(names, pieces, strict=True))
    return public


def _prefixed(prefix: str, naming: Naming, plain: State) -> dict[str, Tensor]:
    """In a file with a head, the names of the encoder have a prefix."""
    public = export(plain, naming)
    if "head.weight" not in plain:
        return public
    head = f"{naming.head}."
    return {k if k.startswith(head) else f"{prefix}{k}": tensor for k, tensor in public.items()}


def _ecg_fm_pretraining(state: State) -> dict[str, Tensor]:
    public = {key: tensor for key, tensor in state.items() if key not in COUNTERS}
    return export(public, NAMINGS["ecg_fm"])


def _st_mem_pretraining(state: State) -> dict[str, Tensor]:
    public = export(state, NAMINGS["st_mem"])
    aliases = {
        k.removeprefix("encoder."): v for k, v in public.items() if "to_patch_embedding." in k
    }
    return public | aliases


def _ecgfounder(plain: State) -> dict[str, Tensor]:
    """With batch norms that our network lacks as they are before training, as the release has."""
    public = export(plain, ecgfounder.ENCODER)
    return dict(_neutral_norms(public)) | public


def _neutral_norms(public: State) -> Iterator[tuple[str, Tensor]]:
    yield from _neutral("first_bn", len(public["first_conv.conv.weight"]))
    for key, weight in public.items():
        if key.endswith(".conv1.conv.weight"):
            block = key.removesuffix(".conv1.conv.weight")
            width, inputs, _ = weight.shape
            for name, size in (("bn1", inputs), ("bn2", width), ("bn3", width)):
                yield from _neutral(f"{block}.{name}", size)


def _neutral(name: str, size: int) -> Iterator[tuple[str, Tensor]]:
    for entry, start in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        yield f"{name}.{entry}", torch.full((size,), float(start))
    yield f"{name}.num_batches_tracked", torch.tensor(0)


_FAMILIES = {
    "st_mem": partial(export, naming=st_mem.ENCODER),
    "hubert_ecg": partial(_prefixed, "hubert_ecg.", hubert_ecg.ENCODER),
    "ecg_fm": partial(_prefixed, "encoder.", ecg_fm.ENCODER),
    "ecgfounder": _ecgfounder,
}
_PRETRAINING = {"st_mem": _st_mem_pretraining, "ecg_fm": _ecg_fm_pretraining}
