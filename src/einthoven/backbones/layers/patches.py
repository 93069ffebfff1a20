"""Cutting leads into patches."""

from __future__ import annotations

from torch import Tensor

from einthoven.errors import BackboneError

__all__ = ["check_samples", "cut_patches"]


def check_samples(name: str, samples: int, *, patch: int, max_patches: int) -> None:
    """Refuse a length that is no whole number of patches, or has no positions left.

    Raises
    ------
    BackboneError
        Naming the length and what the network takes.
    """
    if samples <= 0 or samples % patch or samples > max_patches * patch:
        raise BackboneError(
            f"{name}: input of {samples} samples; it takes multiples of {patch} "
            f"up to {max_patches * patch}",
            remedy="prepare the signal with the backbone's own Preparation, or crop it.",
        )


def cut_patches(x: Tensor, patch: int) -> Tensor:
    """(batch, leads, samples) to (batch, leads, patches, patch), without a copy."""
    return x.reshape(*x.shape[:2], x.shape[-1] // patch, patch)
