"""Patches of leads, and fixed sine-cosine positions along time."""

from __future__ import annotations

import torch
from torch import Tensor

from einthoven.errors import BackboneError

__all__ = ["check_samples", "cut_patches", "sincos_positions"]


def sincos_positions(count: int, width: int, *, before: int = 0, after: int = 0) -> Tensor:
    """One row of sines and cosines for every position, zero rows for special tokens.

    Row t is ``[sin(t w_0), sin(t w_1), ..., cos(t w_0), cos(t w_1), ...]`` with
    ``w_k = 10000 ** (-k / (width / 2))``, t = 0 ... count - 1 (MAE; ST-MEM's pretraining model).

    Parameters
    ----------
    count : int
        Number of positions.
    width : int
        Width of a row; even.
    before, after : int
        Zero rows in front and behind, for class or separator tokens.

    Returns
    -------
    Tensor, shape (1, before + count + after, width), float32
    """
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(count, dtype=torch.float64)[:, None] * frequency
    table = torch.zeros(before + count + after, width, dtype=torch.float64)
    table[before : before + count, :half] = angle.sin()
    table[before : before + count, half:] = angle.cos()
    return table.to(torch.float32)[None]


def check_samples(name: str, samples: int, *, patch: int, max_patches: int) -> None:
    """Refuse a length that is not a whole number of patches, or has no positions left.

    Raises
    ------
    BackboneError
        Naming the length and what the network takes.
    """
    if samples <= 0 or samples % patch or samples > max_patches * patch:
        raise BackboneError(
            f"{name}: input of {samples} samples; it takes multiples of {patch} "
            f"up to {max_patches * patch}",
            remedy="prepare the signal with the backbone's Preparation, or crop it.",
        )


def cut_patches(x: Tensor, patch: int) -> Tensor:
    """(batch, leads, samples) to (batch, leads, patches, patch), without a copy."""
    return x.reshape(*x.shape[:2], x.shape[-1] // patch, patch)
