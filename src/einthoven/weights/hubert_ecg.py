"""Tensor names in HuBERT-ECG's public checkpoints.

Two kinds are public for each size: the pretrained network (148, 212 and 276 tensors for small, base
and large; `model.safetensors` on the hub, ``checkpoint["model_state_dict"]`` in the older `.pt`
files), and classifiers, in which the same names have the prefix `hubert_ecg.`, beside
`classifier.*`. The weight norm of the positional convolution has two names, by PyTorch version.

The `.pt` files also hold the authors' config object, which is not used (`einthoven.weights.safe`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from einthoven.weights.fit import renaming, with_newer_weight_norm
from einthoven.weights.safe import without_prefix

__all__ = ["encoder_parts", "encoder_state", "is_classifier"]

_INSIDE = "hubert_ecg."
encoder_parts = renaming(
    {
        "extractor.convs.{}": "feature_extractor.conv_layers.{}.conv",
        "extractor.norm": "feature_extractor.conv_layers.0.layer_norm",
        "projection.norm": "feature_projection.layer_norm",
        "projection.linear": "feature_projection.projection",
        "pos_conv.gain": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
        "pos_conv.direction": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
        "pos_conv": "encoder.pos_conv_embed.conv",
        "norm": "encoder.layer_norm",
        "blocks.{}.norm1": "encoder.layers.{}.layer_norm",
        "blocks.{}.attn.qkv": "encoder.layers.{}.attention.{qkv}_proj",
        "blocks.{}.attn.proj": "encoder.layers.{}.attention.out_proj",
        "blocks.{}.norm2": "encoder.layers.{}.final_layer_norm",
        "blocks.{}.mlp.fc1": "encoder.layers.{}.feed_forward.intermediate_dense",
        "blocks.{}.mlp.fc2": "encoder.layers.{}.feed_forward.output_dense",
        "head": "head",
    }
)
_HEAD = {"classifier.weight": "head.weight", "classifier.bias": "head.bias"}
# Prefixes of tensors outside the encoder: the vector of masked tokens, the prediction of cluster
# numbers, and the released alternatives to a linear head.
_OUTSIDE = (
    "masked_spec_embed",
    "final_proj.",
    "label_embedding.",
    "classifier.0.",
    "classifier.2.",
)


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the encoder, and of a linear head, in any public file."""
    inside = without_prefix(state, _INSIDE)
    head = {key: tensor for key, tensor in state.items() if key in _HEAD}
    return {
        _HEAD.get(key, key): tensor
        for key, tensor in with_newer_weight_norm(inside | head).items()
        if not key.startswith(_OUTSIDE)
    }


def is_classifier(names: Collection[str]) -> bool:
    """Whether tensor names are those of a classifier, with any kind of head."""
    return any(name.removeprefix("module.").startswith((_INSIDE, "classifier.")) for name in names)
