"""Fixed sine-cosine positions along time."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sincos_positions"]


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
