"""Parts of wav2vec 2.0's objective: masked spans, negatives, contrastive scores.

Baevski et al., "wav2vec 2.0", arXiv 2006.11477, sections 2 and 3.2, with the settings of ECG-FM's
release. `einthoven.objectives.ecg_fm` puts the pieces together.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from einthoven.errors import RecipeError
from einthoven.signals.random import integers, share_of


def draw_spans(
    rows: tuple[int, int],
    tokens: int,
    *,
    probability: float = 0.65,
    length: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hide spans of tokens, the same number of tokens in every row.

    ``int(probability * tokens / length + u)`` spans a row, at least two, with u uniform on [0, 1)
    and drawn once a batch. They begin at different tokens and may overlap, so rows differ in how
    many tokens they hide; every row is then cut at random to the fewest of them. At 0.65 half of
    156 tokens is hidden in a single row, and about 35 % in each row of a batch of 128.

    Parameters
    ----------
    rows : (records, segments)
        Segments are as many for each record.
    tokens : int
        Tokens of a segment.
    probability : float
        Share of tokens that would be hidden if spans did not overlap.
    length : int
        Tokens in a span.
    generator : torch.Generator, optional
        A CPU generator; PyTorch's default when left out. A `ShareGenerator` hides the same tokens
        of a record however many processes share the batch.

    Returns
    -------
    Tensor, shape (records * segments, tokens), bool
        True where a token is hidden; on the CPU.

    Raises
    ------
    RecipeError
        If spans of that length do not fit, or nothing would be hidden.
    """
    if not 0.0 < probability < 1.0 or not 1 <= length < tokens - 1:
        raise RecipeError(
            f"mask_probability = {probability!r}, mask_length = {length!r} for {tokens} tokens",
            remedy="choose a probability between 0 and 1, and spans shorter than the row; "
            "lengthen crop_seconds if the row is short",
        )
    records, segments = rows
    rank, world = share_of(generator)
    # The fewest are those of the whole batch: hidden tokens are drawn for all of it.
    every = records * world * segments
    chance = torch.rand((), generator=generator).item()
    spans = max(2, int(probability * tokens / length + chance))
    starts = max(tokens - length, spans + 1)
    first = torch.rand(every, starts, generator=generator).argsort(1)[:, :spans]
    inside = (first[..., None] + torch.arange(length)).clamp(max=tokens - 1).flatten(1)
    hidden = torch.zeros(every, tokens).scatter_(1, inside, 1.0)
    fewest = int(hidden.sum(1).min()) if every else 0
    # Hidden tokens get a number of [1, 2), the others one of [0, 1): the largest are hidden.
    order = (hidden + torch.rand(every, tokens, generator=generator)).argsort(1, descending=True)
    mask = torch.zeros(every, tokens, dtype=torch.bool).scatter_(1, order[:, :fewest], True)
    return mask.reshape(records * world, segments, tokens)[rank::world].flatten(0, 1)


def other_positions(
    rows: tuple[int, int],
    positions: int,
    count: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """For every position some others of its row, drawn uniformly with replacement.

    Parameters
    ----------
    rows : (records, segments)
        As for `draw_spans`.
    positions, count : int
        Positions of a row, and how many others are drawn for each.

    Returns
    -------
    Tensor, shape (records * segments, positions, count), int64
        On the CPU.

    Raises
    ------
    RecipeError
        If there is no other position.
    """
    if positions < 2:
        raise RecipeError(
            f"{positions} hidden tokens in a row, without others to compete with",
            remedy="hide more tokens, or lengthen crop_seconds",
        )
    indices = integers(positions - 1, (*rows, positions, count), generator=generator)
    indices = indices.flatten(0, 1)
    return indices + (indices >= torch.arange(positions)[:, None])


def hidden_tokens(x: Tensor, mask: Tensor) -> Tensor:
    """The hidden tokens of every row; (batch, tokens, dim), as many hidden in each."""
    return x[mask].reshape(len(x), -1, x.shape[-1])


def contrastive_logits(
    context: Tensor,
    candidates: Tensor,
    identity: Tensor,
    choices: Tensor,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Cosine similarities of each context to its true target and to others, over a temperature.

    Parameters
    ----------
    context : Tensor, shape (batch, positions, dim)
        Prediction for every hidden token.
    candidates : Tensor, shape (batch, candidates, dim)
        Targets of the row; the first `positions` are the true ones, in order.
    identity : Tensor, shape (batch, candidates), integer
        Equal numbers mark equal targets.
    choices : Tensor, shape (batch, positions, count), int64
        Which candidates a context's true one competes with.
    temperature : float
        Divides the similarities.

    Returns
    -------
    Tensor, shape (batch, positions, 1 + count), float32
        The true one first. A competitor that equals it has -inf and so does not count.

    Notes
    -----
    One product of matrices a row, from which scores are picked; picking vectors first gives the
    same numbers and takes `count` times the memory.
    """
    positions = context.shape[1]
    true = torch.arange(positions, device=context.device).expand(len(context), -1)
    with torch.autocast(context.device.type, enabled=False):
        unit = normalize(context.float(), dim=-1, eps=1e-8)
        scores = unit @ normalize(candidates.float(), dim=-1, eps=1e-8).transpose(1, 2)
    scores = scores / temperature
    positive = scores.gather(2, true[..., None])
    row = identity[:, None].expand(-1, positions, -1)
    same = row.gather(2, choices) == row.gather(2, true[..., None])
    negatives = scores.gather(2, choices).masked_fill(same, -torch.inf)
    return torch.cat([positive, negatives], dim=-1)


def contrastive_loss(logits: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy of choosing the first of every position; "mean" or "sum" over positions."""
    flat = logits.flatten(0, 1)
    return cross_entropy(flat, flat.new_zeros(len(flat), dtype=torch.long), reduction=reduction)
