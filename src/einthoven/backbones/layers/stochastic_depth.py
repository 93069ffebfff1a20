"""Stochastic depth: skip a residual branch for randomly chosen samples of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from einthoven.errors import RecipeError


class StochasticDepth(nn.Module):
    """Sum of an input and its residual branch, which is dropped at a rate in training.

    In training every sample keeps the branch with probability ``1 - rate``, and what is kept is
    divided by that probability, so that the expectation is the undropped network (Huang et al.,
    "Deep Networks with Stochastic Depth", 2016, per sample as in ST-MEM's `drop_path_rate`).
    The branch is computed for the kept samples only: at rate 0.1 a tenth of its work is saved.

    Parameters
    ----------
    rate : float
        Probability of dropping the branch, 0 <= rate < 1.

    Attributes
    ----------
    rate : float
        Probability of dropping the branch; a recipe assigns it after the network was built.
    generator : torch.Generator or None
        A CPU generator to draw from; None draws from PyTorch's default CPU generator.

    Raises
    ------
    RecipeError
        If the rate is outside [0, 1).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    @property
    def rate(self) -> float:
        """Probability of dropping the branch for a sample."""
        return self._rate

    @rate.setter
    def rate(self, value: float) -> None:
        if not 0.0 <= value < 1.0:
            raise RecipeError(
                f"drop path rate = {value!r} is outside [0, 1)",
                remedy="choose a rate from 0 (off) to below 1; 0.1 is the post-training default",
            )
        self._rate = float(value)

    def forward(
        self, x: Tensor, branch: Callable[[Tensor], Tensor], *, shortcut: Tensor | None = None
    ) -> Tensor:
        """Return ``x + branch(x)``, the branch dropped for some samples in training.

        Parameters
        ----------
        x : Tensor, shape (batch, ...)
        branch : callable
            Maps (kept, ...) to the same shape, or to the shortcut's, each sample on its own.
        shortcut : Tensor, shape (batch, ...), optional
            What the branch is added to where it changes the shape; x when left out.
        """
        base = x if shortcut is None else shortcut
        if not self.training or self.rate == 0.0:
            return base + branch(x)
        rows = self._draw(len(x))
        if len(rows) == len(x):
            return base + branch(x) / (1.0 - self.rate)
        scale = 1.0 / (1.0 - self.rate)
        if len(rows) == 0:
            # One sample at weight zero: every parameter still gets a (zero) gradient, without
            # which DistributedDataParallel would wait and AdamW would skip its decay.
            rows, scale = torch.zeros(1, dtype=torch.long), 0.0
        index = rows.to(x.device, non_blocking=True)
        update = branch(x.index_select(0, index))
        return base.index_add(0, index, update.to(base.dtype), alpha=scale)

    def _draw(self, batch: int) -> Tensor:
        # On the CPU, whatever the device: the same seed drops the same samples everywhere, and
        # the accelerator need not be waited for to learn how many samples are kept.
        uniform = torch.rand(batch, generator=self.generator)
        return (uniform >= self.rate).nonzero().flatten()

    def extra_repr(self) -> str:
        """Show the rate when the network is printed."""
        return f"rate={self.rate}"


def stochastic_depths(block: nn.Module) -> list[StochasticDepth]:
    """The stochastic-depth holders of a block, in the order they run."""
    return [part for part in block.modules() if isinstance(part, StochasticDepth)]
