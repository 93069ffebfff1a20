"""Random masks over grids of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from einthoven.errors import RecipeError
from einthoven.signals.random import share_of, uniform


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


def draw_centred_spans(
    shape: Sequence[int],
    ratio: float,
    span: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hide spans of tokens around random centres, which may overlap.

    Every token is a centre with the same probability, chosen so that a token away from the ends is
    hidden with probability `ratio`. A span has ``(span - 1) // 2`` tokens before its centre. Rows
    differ in how many tokens they hide; some hide none if the ratio is low.

    Parameters
    ----------
    shape : (records, tokens)
        Records of this process.
    ratio : float
        Expected share of hidden tokens.
    span : int
        Tokens in a span.
    generator : torch.Generator, optional
        As for `draw_masking`.

    Returns
    -------
    Tensor, shape (records of all processes, tokens), bool
        True where a token is hidden; on the CPU. `own_rows` selects those of this process.
    """
    world = share_of(generator)[1]
    records, tokens = shape[0] * world, shape[1]
    chance = 1.0 - (1.0 - ratio) ** (1.0 / span)
    centres = torch.rand(records, tokens, generator=generator) < chance
    before, after = (span - 1) // 2, span // 2
    padded = torch.nn.functional.pad(centres.float(), (after, before))
    return torch.nn.functional.max_pool1d(padded[:, None], span, stride=1)[:, 0] > 0


def own_rows(whole: Tensor, generator: torch.Generator | None) -> Tensor:
    """Rows of this process of what was drawn for the records of all processes."""
    rank, world = share_of(generator)
    return whole[rank::world]


def mean_over_hidden(
    values: Tensor, hidden: Tensor, whole: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Mean of values (records, tokens) where `hidden`; zero if nothing is.

    `whole` has the hidden tokens of all processes. The mean of the processes' results is the mean
    over all of their hidden tokens.
    """
    world = share_of(generator)[1]
    return (values * hidden).sum() * world / whole.sum().clamp(min=1).to(values.device)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of tokens to predict, and the tokens that a student sees; for all processes' records.

    Attributes
    ----------
    targets : Tensor, shape (records, blocks, length), int64
        Tokens of each target block.
    context : Tensor, shape (records, tokens), bool
        True where the student sees the token.
    """

    targets: Tensor
    context: Tensor


def draw_blocks(
    shape: tuple[int, int],
    *,
    blocks: int,
    target_share: tuple[float, float],
    context_share: tuple[float, float],
    least: int,
    generator: torch.Generator | None = None,
) -> Blocks:
    """Draw target blocks, and a context block without them (I-JEPA, arXiv 2301.08243, in time).

    The lengths of both kinds of block are drawn once a batch, uniformly from a share of the tokens,
    and are at least `least`; starts are drawn for each record. A record whose context would have
    fewer than `least` tokens gets that many random ones instead, which may lie inside targets.

    Parameters
    ----------
    shape : (records, tokens)
        Records of this process.
    blocks : int
        Target blocks of a record.
    target_share, context_share : (float, float)
        Shares of the tokens that a block has.
    least : int
        Fewest tokens of a target block and of a context.
    generator : torch.Generator, optional
        As for `draw_masking`.

    Raises
    ------
    RecipeError
        If a block would be longer than the record.
    """
    world = share_of(generator)[1]
    records, tokens = shape[0] * world, shape[1]
    draw = torch.rand(2, generator=generator).tolist()
    length, wide = (
        max(int((low + u * (high - low)) * tokens), least)
        for u, (low, high) in zip(draw, (target_share, context_share), strict=True)
    )
    if max(length, wide) > tokens:
        raise RecipeError(
            f"blocks of {max(length, wide)} tokens in a window of {tokens}",
            remedy="lengthen crop_seconds, or lower least_ms",
        )
    starts = torch.rand(records, blocks, generator=generator)
    first = (starts * (tokens - length + 1)).long()
    targets = first[..., None] + torch.arange(length)
    begin = (torch.rand(records, 1, generator=generator) * (tokens - wide + 1)).long()
    place = torch.arange(tokens)
    context = (place >= begin) & (place < begin + wide)
    context.scatter_(1, targets.flatten(1), False)
    order = torch.rand(records, tokens, generator=generator).argsort(1)
    fallback = torch.zeros_like(context).scatter_(1, order[:, :least], True)
    too_few = context.sum(1, keepdim=True) < least
    return Blocks(targets, torch.where(too_few, fallback, context))
