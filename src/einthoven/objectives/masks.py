"""Random masks over grids of patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from einthoven.errors import RecipeError
from einthoven.signals.random import uniform


@dataclass(frozen=True, eq=False)
class Masking:
    """A choice of patches to keep, for every row of a grid.

    Attributes
    ----------
    keep : Tensor, shape (batch, rows, kept), int64
        Indices of the patches that stay, in the order in which they are encoded.
    restore : Tensor, shape (batch, rows, patches), int64
        Index of each patch in "kept patches, then hidden patches".
    mask : Tensor, shape (batch, rows, patches), float32
        1 where a patch was removed, 0 where it was kept.
    """

    keep: Tensor
    restore: Tensor
    mask: Tensor


def kept_count(patches: int, ratio: float) -> int:
    """Patches that stay of `patches` at a masked ratio: ``int(patches * (1 - ratio))``.

    Raises
    ------
    RecipeError
        If the ratio hides no patch or leaves none.
    """
    count = int(patches * (1 - ratio))
    if not 0 < count < patches:
        raise RecipeError(
            f"mask_ratio = {ratio!r} would keep {count} of {patches} patches",
            remedy="use a ratio that hides at least one patch and keeps one, such as 0.75",
        )
    return count


def draw_masking(
    grid: tuple[int, int, int],
    ratio: float,
    *,
    per_row: bool = True,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Masking:
    """Hide a ratio of the patches of a grid, (batch, rows, patches), at random.

    Parameters
    ----------
    per_row : bool
        Draw for every row (ST-MEM: every lead) on its own, or hide the same patches in all rows
        of a record.
    noise : Tensor, optional
        Takes the place of the draw; (batch, rows, patches), or one row when not `per_row`. The
        patches with the smallest noise are kept, the earlier one of equals.
    generator : torch.Generator, optional
        With a `ShareGenerator`, the patches hidden in a record do not depend on the number of
        processes.

    Raises
    ------
    RecipeError
        For an impossible ratio, or noise of another shape.
    """
    batch, rows, patches = grid
    shape = (batch, rows if per_row else 1, patches)
    count = kept_count(patches, ratio)
    if noise is None:
        noise = uniform(shape, generator=generator, device=device)
    elif tuple(noise.shape) != shape:
        raise RecipeError(
            f"noise of shape {tuple(noise.shape)} for a mask of shape {shape}",
            remedy="give one uniform number for each patch",
        )
    order = noise.to(device).argsort(dim=-1, stable=True).expand(-1, rows, -1)
    restore = order.argsort(dim=-1)
    return Masking(keep=order[..., :count], restore=restore, mask=(restore >= count).float())


def gather_patches(grid: Tensor, index: Tensor) -> Tensor:
    """Pick patches of every row; grid (batch, rows, patches, dim), index (batch, rows, picked)."""
    return grid.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, grid.shape[-1]))
