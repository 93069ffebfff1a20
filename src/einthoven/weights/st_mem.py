"""Names of the tensors in ST-MEM's public checkpoints.

Two files are public, both read as ``checkpoint["model"]``: the encoder alone (166 entries) and the
full pretraining model (228). Classifiers that its scripts write have 168.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from einthoven.weights.fit import Shape
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
_IN_BLOCK = {
    "norm1": "attn.norm",
    "attn.qkv": "attn.fn.to_qkv",
    "attn.proj": "attn.fn.to_out.0",
    "norm2": "ff.norm",
    "mlp.fc1": "ff.fn.net.0",
    "mlp.fc2": "ff.fn.net.3",
}
_IN_DECODER = {
    "mask_token": "mask_embedding",
    "positions": "decoder_pos_embed",
    "embed": "to_decoder_embedding",
    "norm": "decoder_norm",
    "head": "decoder_head",
}
# First words of the entries that only the pretraining model has.
_PRETRAINING_ONLY = ("decoder_", "to_decoder_embedding.", "mask_embedding")
# The pretraining model holds the patch embedding twice: here and under `encoder.`.
_ALIAS = "to_patch_embedding."


def encoder_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public names of one of our encoder's (or classifier's) tensors.

    Separate lead embeddings become one table; everything else is a change of name: the fused
    q | k | v projection has the same layout.
    """
    if key == "lead_embed":
        return [f"lead_embeddings.{row}" for row in range(_LEADS)], shape[1:]
    return [_renamed(key, _NAMES, "block{}")], shape


def pretraining_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public names of one tensor of our masked autoencoder (`backbone.*`, `decoder.*`)."""
    if key.startswith("backbone."):
        names, shape = encoder_parts(key.removeprefix("backbone."), shape)
        return [f"encoder.{name}" for name in names], shape
    return [_renamed(key.removeprefix("decoder."), _IN_DECODER, "decoder_blocks.{}")], shape


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's entries of any of the public files, under the encoder's names."""
    state = without_prefix(state, "encoder.")
    return {key: tensor for key, tensor in state.items() if not key.startswith(_PRETRAINING_ONLY)}


def pretraining_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The full file without the patch embedding's second registration at the top level."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(_ALIAS)}


def _renamed(key: str, table: Mapping[str, str], block: str) -> str:
    if key.startswith("blocks."):
        _, index, rest = key.split(".", 2)
        inner, _, last = rest.rpartition(".")
        return f"{block.format(index)}.{_IN_BLOCK[inner]}.{last}"
    if key in table:
        return table[key]
    inner, _, last = key.rpartition(".")
    return f"{table[inner]}.{last}"
