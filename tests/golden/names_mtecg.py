"""Names of the tensors in MTECG's checkpoints: ours, but for the patch embedding.

The public architecture (152 entries with a head, read as ``checkpoint["model"]``) names its
tensors the way image Vision Transformers do, and so do we.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from einthoven.weights.fit import Shape

__all__ = ["encoder_parts", "encoder_state"]

# What image masked autoencoders call what only pretraining needs.
_PRETRAINING_ONLY = ("decoder_", "mask_token")


def encoder_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public names and shape of one of our encoder's (or classifier's) tensors.

    The patch embedding is a convolution over a one-channel image there, (width, 1, leads, patch).
    """
    if key == "patch_embed.weight":
        return ["patch_embed.proj.weight"], (shape[0], 1, *shape[1:])
    if key == "patch_embed.bias":
        return ["patch_embed.proj.bias"], shape
    return [key], shape


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's entries of a public file."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(_PRETRAINING_ONLY)}
