"""The pre-norm Transformer block that ST-MEM, MTECG and their decoders share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.errors import BackboneError


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection, its output laid out q | k | v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise BackboneError(
                f"width = {width} is not a multiple of heads = {heads}",
                remedy="choose a number of heads that divides the width",
            )
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_dropout = nn.Dropout(0.0)
        self.proj = nn.Linear(width, width)
        self.output_dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend among the tokens of each sample; (batch, tokens, width) in and out.

        A mask broadcasts to (batch, heads, tokens, tokens), False where nothing is attended to.
        """
        # Chunks first and heads after: the gradients are then put together in one copy.
        shape = (*x.shape[:2], self.heads, x.shape[-1] // self.heads)
        chunks = self.qkv(x).chunk(3, dim=-1)
        query, key, value = (chunk.reshape(shape).transpose(1, 2) for chunk in chunks)
        dropout = self.attention_dropout.p if self.training else 0.0
        mixed = attend(query, key, value, dropout=dropout, mask=mask)
        out: Tensor = self.output_dropout(self.proj(mixed.transpose(1, 2).flatten(2)))
        return out


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    dropout: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Softmax attention over (batch, heads, tokens, dim), by the fastest kernel.

    PyTorch's fused kernel everywhere but in bf16 training on a CPU: its backward pass there does
    not use the matrix units, and two plain products are two to four times as fast up to a few
    hundred tokens (measured with torch 2.13, 51 to 384 tokens).
    """
    plain = query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad
    if not plain or dropout or mask is not None:
        return scaled_dot_product_attention(query, key, value, mask, dropout)
    # Autocast would turn the scores into fp32 and back.
    with torch.autocast("cpu", enabled=False):
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        mixed: Tensor = scores.softmax(-1) @ value
    return mixed


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them, a dropout after each."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.drop1 = nn.Dropout(0.0)
        self.fc2 = nn.Linear(hidden, width)
        self.drop2 = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token on its own; (..., width) in and out."""
        out: Tensor = self.drop2(self.fc2(self.drop1(gelu(self.fc1(x)))))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and added to its input.

    Parameters
    ----------
    width, heads : int
        Token width and number of heads.
    hidden : int, optional
        Width inside the feed-forward; four times the width when left out.
    eps : float
        Epsilon of both layer norms (ST-MEM 1e-5, MTECG 1e-6).
    """

    def __init__(
        self, width: int, heads: int, *, hidden: int | None = None, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.drop_path1 = StochasticDepth()
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = FeedForward(width, hidden or 4 * width)
        self.drop_path2 = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens of each sample; (batch, tokens, width) in and out."""
        x = self.drop_path1(x, lambda part: self.attn(self.norm1(part)))
        out: Tensor = self.drop_path2(x, lambda part: self.mlp(self.norm2(part)))
        return out


def initialise_linears(module: nn.Module, *, rule: str) -> None:
    """Draw every linear layer afresh, biases zero and layer norms at one and zero.

    Parameters
    ----------
    module : nn.Module
        Changed in place.
    rule : {"xavier", "normal", "truncated-normal"}
        Xavier-uniform (MAE, ST-MEM's pretraining), or normal (BERT, wav2vec 2.0) or truncated
        normal (ViT, MTECG) of std 0.02.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            if rule == "xavier":
                nn.init.xavier_uniform_(part.weight)
            elif rule == "normal":
                nn.init.normal_(part.weight, std=0.02)
            else:
                nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
