"""Names of the tensors in ECG-FM's public checkpoints.

Two kinds are public, both written by fairseq and read as ``checkpoint["model"]``: the pretrained
network (215 entries) and classifiers (209), where the network stands under `encoder.` with a head,
`proj.*`, beside it. The pretrained network has entries that begin with `encoder.` of its own, its
blocks, so the prefix is told from a doubled one. Files differ in how they spell the weight norm of
the positional convolution, by the PyTorch that wrote them; both spellings are read, the newer one
is written.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from einthoven.weights.convert import Shape, export

__all__ = [
    "COUNTERS",
    "encoder_parts",
    "encoder_state",
    "pretraining_parts",
    "pretraining_state",
    "to_public",
]

_INSIDE = "encoder."
_POSITIONS = "conv_pos.pos_conv.0"
_NAMES = {
    "extractor.norm": "feature_extractor.conv_layers.0.2",
    "projection.norm": "layer_norm",
    "projection.linear": "post_extract_proj",
    "norm": "encoder.layer_norm",
    "head": "head",
}
_IN_BLOCK = {
    "attn.proj": "self_attn.out_proj",
    "norm1": "self_attn_layer_norm",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "norm2": "final_layer_norm",
}
_IN_POSITIONS = {
    "pos_conv.gain": f"{_POSITIONS}.parametrizations.weight.original0",
    "pos_conv.direction": f"{_POSITIONS}.parametrizations.weight.original1",
    "pos_conv.bias": f"{_POSITIONS}.bias",
}
_OLDER = {
    f"{_POSITIONS}.weight_g": _IN_POSITIONS["pos_conv.gain"],
    f"{_POSITIONS}.weight_v": _IN_POSITIONS["pos_conv.direction"],
}
_HEAD = {"proj.weight": "head.weight", "proj.bias": "head.bias"}
# What our pretraining counts, and nobody publishes.
COUNTERS = ("steps",)
# What only pretraining needs, by our names for it.
_IN_PRETRAINING = {
    "mask_vector": "mask_emb",
    "quantiser.codebook": "quantizer.vars",
    "quantiser.projection.weight": "quantizer.weight_proj.weight",
    "quantiser.projection.bias": "quantizer.weight_proj.bias",
    "target_projection.weight": "project_q.weight",
    "target_projection.bias": "project_q.bias",
    "context_projection.weight": "final_proj.weight",
    "context_projection.bias": "final_proj.bias",
}


def encoder_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public names of one of our encoder's (or classifier's) tensors.

    The projections of query, key and value are one tensor here; the rest is a change of name.
    """
    if key in _IN_POSITIONS:
        return [_IN_POSITIONS[key]], shape
    inner, _, last = key.rpartition(".")
    if inner.startswith("extractor.convs."):
        index = inner.removeprefix("extractor.convs.")
        return [f"feature_extractor.conv_layers.{index}.0.{last}"], shape
    if not inner.startswith("blocks."):
        return [f"{_NAMES[inner]}.{last}"], shape
    _, index, part = inner.split(".", 2)
    layer = f"encoder.layers.{index}"
    if part == "attn.qkv":
        three = [f"{layer}.self_attn.{which}_proj.{last}" for which in "qkv"]
        return three, (shape[0] // 3, *shape[1:])
    return [f"{layer}.{_IN_BLOCK[part]}.{last}"], shape


def pretraining_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public names of one tensor of our pretraining model (`backbone.*` and its heads)."""
    if key in _IN_PRETRAINING:
        return [_IN_PRETRAINING[key]], shape
    return encoder_parts(key.removeprefix("backbone."), shape)


def pretraining_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All entries of a pretraining file, in the newer spelling."""
    return {_OLDER.get(key, key): tensor for key, tensor in state.items()}


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's (and head's) entries of any public file, in the newer spelling."""
    head = {_HEAD[key]: tensor for key, tensor in state.items() if key in _HEAD}
    if any(key.startswith(2 * _INSIDE) for key in state):
        outside = {k: v for k, v in state.items() if not k.startswith(_INSIDE) and k not in _HEAD}
        inside = {k.removeprefix(_INSIDE): v for k, v in state.items() if k.startswith(_INSIDE)}
        state = inside | outside  # which has nothing, or what is to be listed as unexpected
    pretraining = set(_IN_PRETRAINING.values())
    return head | {
        key: tensor
        for key, tensor in pretraining_state(state).items()
        if key not in pretraining and key not in _HEAD
    }


def to_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our encoder, classifier (`head.*` beside it) or pretraining model in public names."""
    if "mask_vector" in state:
        named = {key: tensor for key, tensor in state.items() if key not in COUNTERS}
        return export(named, pretraining_parts)
    plain = {key.removeprefix("backbone."): tensor for key, tensor in state.items()}
    public = export(plain, encoder_parts)
    if "head.weight" not in plain:
        return public
    return {
        f"proj.{key.removeprefix('head.')}" if key.startswith("head.") else _INSIDE + key: tensor
        for key, tensor in public.items()
    }
