"""Tensor names in ST-MEM's public checkpoints.

Two files are public, both with the tensors in ``checkpoint["model"]``: the encoder (166 tensors)
and the whole pretraining model (228). Classifiers that the authors' scripts write have 168.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from einthoven.weights.fit import Shape, renaming
from einthoven.weights.safe import without_prefix

__all__ = [
    "encoder_parts",
    "encoder_state",
    "pretraining_parts",
    "pretraining_state",
]

_LEADS = 12
_NAMES = {
    "pos_embed": "pos_embedding",
    "sep_token": "sep_embedding",
    "patch_embed.norm1": "to_patch_embedding.1",
    "patch_embed.proj": "to_patch_embedding.2",
    "patch_embed.norm2": "to_patch_embedding.3",
    "norm": "norm",
    "head": "head",
}
_IN_DECODER = {
    "mask_token": "mask_embedding",
    "positions": "decoder_pos_embed",
    "embed": "to_decoder_embedding",
    "norm": "decoder_norm",
    "head": "decoder_head",
}
_IN_BLOCK = {
    "norm1": "attn.norm",
    "attn.qkv": "attn.fn.to_qkv",
    "attn.proj": "attn.fn.to_out.0",
    "norm2": "ff.norm",
    "mlp.fc1": "ff.fn.net.0",
    "mlp.fc2": "ff.fn.net.3",
}
_encoder_name = renaming(
    _NAMES | {f"blocks.{{}}.{ours}": f"block{{}}.{public}" for ours, public in _IN_BLOCK.items()}
)
_decoder_name = renaming(
    _IN_DECODER
    | {f"blocks.{{}}.{ours}": f"decoder_blocks.{{}}.{public}" for ours, public in _IN_BLOCK.items()}
)
# Prefixes of tensors that only the pretraining model has.
_PRETRAINING_ONLY = ("decoder_", "to_decoder_embedding.", "mask_embedding")
# The pretraining model contains the patch embedding twice: under this prefix and `encoder.`.
_ALIAS = "to_patch_embedding."


def encoder_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public names of one of our encoder's (or classifier's) tensors.

    The twelve lead embeddings are one tensor here. The fused projection of query, key and value
    has the same layout in both.
    """
    if key == "lead_embed":
        return [f"lead_embeddings.{row}" for row in range(_LEADS)], shape[1:]
    return _encoder_name(key, shape)


def pretraining_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public names of one tensor of our masked autoencoder (`backbone.*`, `decoder.*`)."""
    if key.startswith("backbone."):
        names, shape = encoder_parts(key.removeprefix("backbone."), shape)
        return [f"encoder.{name}" for name in names], shape
    return _decoder_name(key.removeprefix("decoder."), shape)


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the encoder in any public file."""
    state = without_prefix(state, "encoder.")
    return {key: tensor for key, tensor in state.items() if not key.startswith(_PRETRAINING_ONLY)}


def pretraining_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the pretraining model, each once."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(_ALIAS)}
