"""Tensor names in HuBERT-ECG's public checkpoints.

Two kinds are public for each size: the pretrained network (148, 212 and 276 tensors for small, base
and large; `model.safetensors` on the hub, ``checkpoint["model_state_dict"]`` in the older `.pt`
files), and classifiers, in which the same names have the prefix `hubert_ecg.`, beside
`classifier.*`. The weight norm of the positional convolution has two names, by PyTorch version.

The `.pt` files also hold the authors' config object, which is not used (`einthoven.weights.safe`).
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from einthoven.weights.fit import Naming, State, with_newer_weight_norm
from einthoven.weights.safe import without_prefix

_INSIDE, _HEAD = "hubert_ecg.", "classifier"
# Prefixes of tensors outside the encoder: the vector of masked tokens, the prediction of cluster
# numbers, and the released alternatives to a linear head.
_OUTSIDE = (
    "masked_spec_embed",
    "final_proj.",
    "label_embedding.",
    "classifier.0.",
    "classifier.2.",
)


def _tensors(state: State, _: object) -> dict[str, Tensor]:
    head = {key: tensor for key, tensor in state.items() if key.startswith(f"{_HEAD}.")}
    tensors = with_newer_weight_norm(without_prefix(state, _INSIDE) | head)
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(_OUTSIDE)}


def _is_classifier(names: Collection[str]) -> bool:
    """Whether tensor names are those of a classifier, with any kind of head."""
    prefixes = (_INSIDE, f"{_HEAD}.")
    return any(name.removeprefix("module.").startswith(prefixes) for name in names)


ENCODER = Naming(
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
        "head": _HEAD,
    },
    signature="feature_extractor.conv_layers.0.conv.weight",
    head=_HEAD,
    tensors=_tensors,
    is_classifier=_is_classifier,
)
