"""Tensor names in ST-MEM's public checkpoints.

Two files are public, both with the tensors in ``checkpoint["model"]``: the encoder (166 tensors)
and the whole pretraining model (228). Classifiers that the authors' scripts write have 168.
"""

from __future__ import annotations

from torch import Tensor

from einthoven.weights.fit import Naming, State
from einthoven.weights.safe import without_prefix

_IN_BLOCK = {
    "norm1": "attn.norm",
    "attn.qkv": "attn.fn.to_qkv",
    "attn.proj": "attn.fn.to_out.0",
    "norm2": "ff.norm",
    "mlp.fc1": "ff.fn.net.0",
    "mlp.fc2": "ff.fn.net.3",
}
_IN_ENCODER = {
    "lead_embed": "lead_embeddings.{lead}",
    "pos_embed": "pos_embedding",
    "sep_token": "sep_embedding",
    "patch_embed.norm1": "to_patch_embedding.1",
    "patch_embed.proj": "to_patch_embedding.2",
    "patch_embed.norm2": "to_patch_embedding.3",
    "norm": "norm",
    "head": "head",
} | {f"blocks.{{}}.{ours}": f"block{{}}.{name}" for ours, name in _IN_BLOCK.items()}
# Prefixes of tensors that only the pretraining model has.
_PRETRAINING_ONLY = ("decoder_", "to_decoder_embedding.", "mask_embedding")
_PATCH_EMBEDDING = "to_patch_embedding."


def _encoder(state: State, _: object) -> dict[str, Tensor]:
    state = without_prefix(state, "encoder.")
    return {key: tensor for key, tensor in state.items() if not key.startswith(_PRETRAINING_ONLY)}


ENCODER = Naming(_IN_ENCODER, f"{_PATCH_EMBEDDING}2.weight", tensors=_encoder)
