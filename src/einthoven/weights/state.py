"""From what a file holds to one flat table of named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from einthoven.errors import WeightsError

__all__ = ["CONTAINERS", "recognise", "state_of", "without_prefix"]

# Entries under which a checkpoint keeps its tensors, beside what its training left.
CONTAINERS = ("model", "state_dict", "model_state_dict")

# The networks that share `backbones.layers.wav2vec` name their tensors alike; how many channels
# their extractor reads tells them apart, and `recognise` adds it to the names.
_OWN_EXTRACTOR = "extractor.convs.0.weight, channels: "

# Of published state-space encoders only the structure is known, not the names.
_STATE_SPACE = "C of conjugate pairs, and D"

# The PTB-XL benchmark's networks are sequences, whose members are numbered; deeper ones first.
_BENCHMARK = (
    (frozenset({"4.0.convs.0.0.weight", "4.0.idpath.0.0.weight"}), "an xresnet1d"),
    (frozenset({"3.0.conv1.weight", "3.0.bn1.running_mean", "1.running_mean"}), "resnet1d_wang"),
    (frozenset({"layers.0.im.0.bottleneck.weight"}), "inception1d"),
    (frozenset({"2.weight_hh_l0_reverse", "5.3.weight"}), "lstm_bidir"),
    (frozenset({"2.weight_hh_l0", "5.3.weight"}), "lstm"),
    (frozenset({"0.0.0.weight", "0.0.1.running_mean", "2.0.0.weight", "3.4.weight"}), "fcn_wang"),
)

# Keys that only one kind of checkpoint has, most specific first. The first part is a family of
# ours when it can be loaded, the second what to call it.
_SIGNATURES: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"sep_embedding", "to_patch_embedding.2.weight"}), "st_mem", "ST-MEM"),
    (frozenset({"sep_token", "lead_embed"}), "st_mem", "einthoven's ST-MEM"),
    (frozenset({"blocks.0.kernel.log_step", "stem.0.weight"}), "s4", "einthoven's S4"),
    (frozenset({_STATE_SPACE}), "s4", "a published S4 encoder"),
    (frozenset({"cls_token", "patch_embed.weight"}), "mtecg", "einthoven's MTECG"),
    (frozenset({"cls_token", "patch_embed.proj.weight"}), "mtecg", "MTECG or another image ViT"),
    (frozenset({"cls_embedding", "pos_embedding"}), "", "MTAE or MLAE of the ST-MEM release"),
    (frozenset({"first_conv.conv.weight"}), "ecgfounder", "ECGFounder"),
    (
        frozenset({"stem.conv.weight", "stages.0.0.se.fc1.weight"}),
        "ecgfounder",
        "einthoven's Net1D",
    ),
    (frozenset({"feature_extractor.conv_layers.0.conv.weight"}), "hubert_ecg", "HuBERT-ECG"),
    (frozenset({"pos_conv.gain", _OWN_EXTRACTOR + "1"}), "hubert_ecg", "einthoven's HuBERT-ECG"),
    (frozenset({"layers.0.self_attn.k_proj.weight"}), "ecg_fm", "ECG-FM"),
    *((keys, "strodthoff", f"{name} of the PTB-XL benchmark") for keys, name in _BENCHMARK),
    (
        frozenset({"dense.norm1.running_mean", "dense.linear.weight", "dense.norm2.running_mean"}),
        "strodthoff",
        "einthoven's form of the PTB-XL benchmark's networks",
    ),
    (frozenset({"pos_conv.gain", _OWN_EXTRACTOR + "12"}), "ecg_fm", "einthoven's ECG-FM"),
    (frozenset({"seq_layers.0.h0", "mixing_layers.0.0.weight"}), "multiresnet", "MULTIRESNET"),
    (frozenset({"blocks.0.multires.low"}), "multiresnet", "einthoven's MULTIRESNET"),
    (frozenset({"feature_mean", "feature_std"}), "wavelet_nn", "einthoven's Wavelet+NN"),
)


def state_of(content: Mapping[str, Any], *, file: object) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, its tensors in float32.

    Looks under `model`, `state_dict` and `model_state_dict`, or takes the table itself; strips
    what DistributedDataParallel and `torch.compile` put in front of names.

    Raises
    ------
    WeightsError
        When there are no tensors, or one holds NaN or infinity.
    """
    inner = next((content[k] for k in CONTAINERS if isinstance(content.get(k), Mapping)), content)
    named = {key: value for key, value in inner.items() if isinstance(value, Tensor)}
    if not named or not all(isinstance(key, str) for key in named):
        raise WeightsError(
            f"{file}: no named tensors, only {', '.join(map(str, list(content)[:8]))}",
            remedy="save the network's state_dict(), alone or under 'model'.",
        )
    named = {key.replace("_orig_mod.", ""): value for key, value in named.items()}
    while all(key.startswith("module.") for key in named):
        named = {key.removeprefix("module."): value for key, value in named.items()}
    return {key: _plain(key, value, file) for key, value in named.items()}


def _plain(key: str, tensor: Tensor, file: object) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.to(torch.float32)
    if not bool(tensor.isfinite().all()):
        raise WeightsError(
            f"{file}: {key} holds NaN or infinity",
            remedy="the training that made it diverged, or the file is damaged; use another.",
        )
    return tensor


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under a prefix, without it; everything when nothing is under it."""
    under = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return under or dict(state)


def recognise(state: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Tell by its names what network a state dict belongs to.

    Returns
    -------
    (family, title) or None
        `family` is empty for a network that einthoven knows of but does not load here.
    """
    # Names are compared from any depth, so that wrappers do not hide them.
    endings = {key.split(".", depth)[-1] for key in state for depth in range(4)}
    endings |= {
        f"{_OWN_EXTRACTOR}{tensor.shape[1]}"
        for key, tensor in state.items()
        if key.endswith("extractor.convs.0.weight") and tensor.ndim == 3
    }
    if _has_state_spaces(state):
        endings.add(_STATE_SPACE)
    for keys, family, title in _SIGNATURES:
        if keys <= endings:
            return family, title
    return None


def _has_state_spaces(state: Mapping[str, Tensor]) -> bool:
    kernels = [t for key, t in state.items() if key.endswith(".C")]
    pairs = any(t.is_complex() or t.shape[-1:] == (2,) for t in kernels)
    return pairs and any(key.endswith(".D") for key in state)
