"""A product quantiser whose choice of codes is learned: the targets of wav2vec 2.0.

A vector is replaced by one code of every group, laid side by side. In training the choice is drawn
by the Gumbel trick and passes gradients as if it had been soft (Jang et al., arXiv 1611.01144;
Baevski et al., "wav2vec 2.0", arXiv 2006.11477, section 2); otherwise the best code is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from einthoven.errors import RecipeError
from einthoven.objectives.gathering import mean_over_processes


@dataclass(frozen=True, eq=False)
class Quantised:
    """Quantised vectors and how the codes are used.

    Attributes
    ----------
    vectors : Tensor, shape (batch, positions, groups * code width)
        The codes of all groups, side by side.
    codes : Tensor, shape (batch, positions, groups), int64
        Which code stands where.
    code_perplexity, prob_perplexity : Tensor, scalar
        Exponential of the entropy of the codes' use, summed over groups: of the best codes, and of
        the mean probabilities. The most that there can be is the number of codes of all groups.
    """

    vectors: Tensor
    codes: Tensor
    code_perplexity: Tensor
    prob_perplexity: Tensor


class GumbelQuantiser(nn.Module):
    """Choice of a code of every group for every vector.

    Parameters
    ----------
    width, out_width : int
        Width of a vector, and of a quantised one; a code has ``out_width // groups``.
    codes, groups : int
        Codes in a group, and number of groups.

    Raises
    ------
    RecipeError
        If the groups do not divide the width.
    """

    def __init__(self, width: int, *, codes: int, groups: int, out_width: int) -> None:
        super().__init__()
        if codes < 1 or groups < 1 or out_width % groups:
            raise RecipeError(
                f"codes = {codes}, code_groups = {groups}, target_width = {out_width}",
                remedy="choose a number of groups that divides the width, and at least one code",
            )
        self.codes, self.groups = codes, groups
        self.projection = nn.Linear(width, groups * codes)
        # All codes of the first group, then those of the next, as they are published.
        self.codebook = nn.Parameter(torch.rand(1, groups * codes, out_width // groups))
        nn.init.normal_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(
        self,
        x: Tensor,
        *,
        temperature: float = 1.0,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Quantised:
        """Quantise vectors.

        Parameters
        ----------
        x : Tensor, shape (batch, positions, width)
        temperature : float
            How soft the choice is to gradients, and nothing else.
        noise : Tensor, shape (batch, positions, groups * codes), optional
            Uniform on [0, 1): draws the codes. Without it the best codes are taken.
        generator : torch.Generator, optional
            With a `ShareGenerator`, probabilities are averaged over the processes that share the
            batch. Nothing is drawn from it.
        """
        shape = (*x.shape[:2], self.groups, self.codes)
        with torch.autocast(x.device.type, enabled=False):
            logits = self.projection(x.float()).reshape(shape)
            best = logits.argmax(-1)
            choice = _one_hot(best, self.codes)
            if noise is not None:
                soft = ((logits + _gumbel(noise).reshape(shape)) / temperature).softmax(-1)
                choice = _one_hot(soft.argmax(-1), self.codes) + soft - soft.detach()
            table = self.codebook.reshape(self.groups, self.codes, -1)
            vectors = torch.einsum("bpgc,gcd->bpgd", choice, table).flatten(2)
            hard = _one_hot(best, self.codes).mean((0, 1))
            mean = logits.softmax(-1).mean((0, 1))
            return Quantised(
                vectors=vectors,
                codes=choice.detach().argmax(-1),
                code_perplexity=perplexity(hard),
                prob_perplexity=perplexity(mean_over_processes(mean, generator)),
            )

    def diversity_loss(self, quantised: Quantised) -> Tensor:
        """0 when all codes are equally likely, near 1 when one of each group always wins."""
        total = self.groups * self.codes
        return (total - quantised.prob_perplexity) / total


def _one_hot(index: Tensor, count: int) -> Tensor:
    return one_hot(index, count).float()


def _gumbel(uniform: Tensor) -> Tensor:
    """Gumbel-distributed numbers from uniform ones, finite at both ends."""
    tiny = torch.finfo(torch.float32).tiny
    exponential = -uniform.clamp(min=tiny).log()
    return -exponential.clamp(min=tiny).log()


def perplexity(probabilities: Tensor) -> Tensor:
    """Exponential of the entropy of (groups, codes), summed over groups, a scalar."""
    entropy = -(probabilities * (probabilities + 1e-7).log()).sum(-1)
    return entropy.exp().sum()


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre (centres, width) of each vector; (..., width) to (...), int64."""
    with torch.autocast(x.device.type, enabled=False):
        # |x - c|^2 = |x|^2 - 2 x c + |c|^2, and |x| is the same for all centres.
        scores = centres.square().sum(1) - 2 * x.float().flatten(0, -2) @ centres.t()
        return scores.argmin(1).view(x.shape[:-1])
