"""Names of the tensors in HuBERT-ECG's public checkpoints.

Two kinds are public for each size: the pretrained network (148, 212 and 276 entries for small, base
and large, `model.safetensors` on the hub, ``checkpoint["model_state_dict"]`` in the older `.pt`
files), and classifiers, where the same names stand under `hubert_ecg.` with `classifier.*` beside
them. Files differ in how they spell the weight norm of the positional convolution, by the PyTorch
that wrote them; both spellings are read, the newer one is written.

The `.pt` files hold the authors' config object beside the tensors, pickled by its class; whether
such a file is read is for `einthoven.weights.vocabulary` to say.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from einthoven.weights.convert import Shape, export
from einthoven.weights.state import without_prefix

__all__ = ["encoder_parts", "encoder_state", "to_public"]

_INSIDE = "hubert_ecg."
_POSITIONS = "encoder.pos_conv_embed.conv"
_NAMES = {
    "extractor.norm": "feature_extractor.conv_layers.0.layer_norm",
    "projection.norm": "feature_projection.layer_norm",
    "projection.linear": "feature_projection.projection",
    "norm": "encoder.layer_norm",
    "head": "head",
}
_IN_BLOCK = {
    "attn.proj": "attention.out_proj",
    "norm1": "layer_norm",
    "mlp.fc1": "feed_forward.intermediate_dense",
    "mlp.fc2": "feed_forward.output_dense",
    "norm2": "final_layer_norm",
}
_IN_POSITIONS = {
    "pos_conv.gain": f"{_POSITIONS}.parametrizations.weight.original0",
    "pos_conv.direction": f"{_POSITIONS}.parametrizations.weight.original1",
    "pos_conv.bias": f"{_POSITIONS}.bias",
}
_HEAD = {"classifier.weight": "head.weight", "classifier.bias": "head.bias"}
_RENAMED = _HEAD | {
    f"{_POSITIONS}.weight_g": _IN_POSITIONS["pos_conv.gain"],
    f"{_POSITIONS}.weight_v": _IN_POSITIONS["pos_conv.direction"],
}
# First words of what is no part of the encoder: the stand-in for masked tokens, what predicts
# cluster numbers, and the released alternatives to a linear head.
_NOT_THE_ENCODER = (
    "masked_spec_embed",
    "final_proj.",
    "label_embedding.",
    "classifier.0.",
    "classifier.2.",
)


def encoder_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public names of one of our encoder's (or classifier's) tensors.

    The projections of query, key and value are one tensor here; the rest is a change of name.
    """
    if key in _IN_POSITIONS:
        return [_IN_POSITIONS[key]], shape
    inner, _, last = key.rpartition(".")
    if inner.startswith("extractor.convs."):
        index = inner.removeprefix("extractor.convs.")
        return [f"feature_extractor.conv_layers.{index}.conv.{last}"], shape
    if not inner.startswith("blocks."):
        return [f"{_NAMES[inner]}.{last}"], shape
    _, index, part = inner.split(".", 2)
    layer = f"encoder.layers.{index}"
    if part == "attn.qkv":
        three = [f"{layer}.attention.{which}_proj.{last}" for which in "qkv"]
        return three, (shape[0] // 3, *shape[1:])
    return [f"{layer}.{_IN_BLOCK[part]}.{last}"], shape


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's (and a linear head's) entries of any public file, in the newer spelling."""
    inside = without_prefix(state, _INSIDE)
    head = {key: tensor for key, tensor in state.items() if key in _HEAD}
    return {
        _RENAMED.get(key, key): tensor
        for key, tensor in (inside | head).items()
        if not key.startswith(_NOT_THE_ENCODER)
    }


def to_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our encoder, or classifier (`backbone.*`, `head.*`), in public names.

    Without the vector for masked tokens, which the released classes lack too when they are built
    with a masking probability of zero.
    """
    plain = {key.removeprefix("backbone."): tensor for key, tensor in state.items()}
    public = export(plain, encoder_parts)
    if "head.weight" not in plain:
        return public
    outside = {ours: theirs for theirs, ours in _HEAD.items()}
    return {outside.get(key, _INSIDE + key): tensor for key, tensor in public.items()}
