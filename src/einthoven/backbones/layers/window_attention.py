"""Self-attention inside windows that do not overlap, half of the heads in shifted ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from einthoven.errors import BackboneError

__all__ = ["WindowAttention"]


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned weight for every distance.

    The first half of the heads cuts the sequence into windows from its beginning; the other half
    cuts it half a window earlier, so that what one half separates, the other joins. Windows at the
    ends are shorter where the length asks for it.

    Parameters
    ----------
    width : int
        Token width.
    heads : int
        An even number that divides the width.
    window : int
        Tokens of a window.

    Raises
    ------
    BackboneError
        For heads that do not share out the width, or a window below two tokens.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        if heads < 2 or heads % 2 or width % heads or window < 2:
            raise BackboneError(
                f"width = {width}, heads = {heads}, window = {window}",
                remedy="give an even number of heads that divides the width, since half of them "
                "attend in shifted windows, and windows of two tokens or more.",
            )
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.distance = nn.Parameter(torch.zeros(heads, 2 * window - 1))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) in and out."""
        bias = self._bias()
        halves = self.qkv(x).view(*x.shape[:2], 3, 2, x.shape[2] // 2).unbind(-2)
        mixed = [
            self._attend(half, shift, weights)
            for half, shift, weights in zip(halves, (0, self.window // 2), bias, strict=True)
        ]
        out: Tensor = self.proj(torch.cat(mixed, dim=-1))
        return out

    def _bias(self) -> Tensor:
        """Weights by query and key, (2, heads / 2, window, window)."""
        place = torch.arange(self.window, device=self.distance.device)
        distances = place - place[:, None] + self.window - 1
        return self.distance[:, distances].view(2, -1, self.window, self.window)

    def _attend(self, qkv: Tensor, shift: int, bias: Tensor) -> Tensor:
        """Attend within windows that begin `shift` tokens early.

        (batch, tokens, 3, half of the width) to (batch, tokens, half of the width).
        """
        batch, tokens, _, width = qkv.shape
        heads = self.heads // 2
        behind = -(tokens + shift) % self.window
        count = (tokens + shift + behind) // self.window
        padded = pad(qkv, (0, 0, 0, 0, shift, behind))
        windows = padded.reshape(batch, count, self.window, 3, heads, width // heads)
        query, key, value = windows.permute(3, 0, 1, 4, 2, 5)  # each (..., window, dim)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        # No window is without a real token, so that no row is masked as a whole.
        real = pad(scores.new_ones(tokens, dtype=torch.bool), (shift, behind))
        outside = ~real.view(-1, 1, 1, self.window)
        weights = (scores + bias).masked_fill(outside, -torch.inf).softmax(-1).to(value.dtype)
        mixed: Tensor = (weights @ value).transpose(2, 3).flatten(3).flatten(1, 2)
        return mixed[:, shift : shift + tokens]

    def extra_repr(self) -> str:
        """Show what the network's printout needs."""
        return f"heads={self.heads}, window={self.window}"
