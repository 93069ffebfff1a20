"""A running median along the last axis, the same on every device."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor

__all__ = ["running_median"]


def running_median(x: Tensor, window: int) -> Tensor:
    """Median of the `window` values around every value, zeros taken beyond the ends.

    Parameters
    ----------
    x : Tensor, shape (..., samples)
        float32, without NaN.
    window : int
        Odd.

    Returns
    -------
    Tensor
        Of the shape of x; what `scipy.signal.medfilt` gives for every row.
    """
    rows = x.reshape(-1, x.shape[-1])
    if x.device.type != "cpu":
        return by_ranks(rows, window).view_as(x)
    # A row at a time: scipy's fast path is for one dimension.
    found = [median_filter(row, size=window, mode="constant") for row in rows.numpy()]
    return torch.from_numpy(np.stack(found)).view_as(x) if found else torch.empty_like(x)


def by_ranks(rows: Tensor, window: int) -> Tensor:
    """The same for (rows, samples) in whole-tensor operations, for accelerators.

    Values become ranks, and the median of every window is found bit by bit, from the highest: a
    rank's bit is 0 if enough of the window's ranks, among those that agree in the bits before, have
    a 0 there. Ranks are kept sorted by the bits that are done, so that those of a window are always
    neighbours and counting them takes two look-ups (a wavelet matrix; Claude, Navarro and Ordonez,
    Information Systems 47, 2015).
    """
    half = window // 2
    padded = torch.nn.functional.pad(rows, (half, half))
    count, length = padded.shape
    values, order = padded.sort(dim=1, stable=True)
    places = torch.arange(length, device=rows.device).expand(count, length)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    first = places[:, : rows.shape[1]]
    last = first + window
    wanted = torch.full_like(first, half)  # how many of a window's ranks lie below its median
    median = torch.zeros_like(first)
    for bit in reversed(range((length - 1).bit_length())):
        ones = (ranks >> bit) & 1
        zeros = torch.nn.functional.pad((1 - ones).cumsum(1), (1, 0))  # before every place
        below, above = zeros.gather(1, first), zeros.gather(1, last)
        up = wanted >= above - below
        median += up.long() << bit
        wanted = torch.where(up, wanted - (above - below), wanted)
        every = zeros[:, -1:]
        first = torch.where(up, every + first - below, below)
        last = torch.where(up, every + last - above, above)
        moved = torch.where(ones.bool(), every + places - zeros[:, :-1], zeros[:, :-1])
        ranks = torch.empty_like(ranks).scatter_(1, moved, ranks)
    return values.gather(1, median)
