"""Transformer over the tokens of the convolutional stem, with rotary positions.

The Transformer of arXiv 2605.12241: the stem that S4 has, pre-norm layers with rotary position
embedding (Su et al., "RoFormer", arXiv 2104.09864) on queries and keys, and a final layer norm.
`transformer` has the released defaults at 240 Hz; `transformer_small` is our size for two CPU
cores.
"""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import TYPICAL_DEVIATION_MV, Count
from einthoven.backbones.layers.stem import StemBackbone, StemConfig
from einthoven.backbones.layers.transformer import Attention, Block, attend, initialise_linears
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(StemConfig):
    """Configuration of the Transformer; the other fields are those of `StemConfig`.

    Attributes
    ----------
    depth, heads : int
        Layers, and attention heads of a layer.
    hidden : int
        Width inside the feed-forward.
    rotary_base : float
        Base of the rotary positions' wavelengths.
    causal : bool
        Whether a token sees the past only.
    """

    depth: Count = 6
    heads: Count = 8
    hidden: Count = 2048
    rotary_base: float = 10_000.0
    causal: bool = False
    dropout: float = 0.1


class RotaryAttention(Attention):
    """Self-attention whose queries and keys are rotated by their position.

    Parameters
    ----------
    width, heads : int
        Width of a token, and number of heads, whose width has to be even.
    base : float
        Base of the wavelengths.
    causal : bool
        Whether a token attends to itself and earlier ones only.
    """

    def __init__(self, width: int, heads: int, *, base: float, causal: bool) -> None:
        super().__init__(width, heads)
        if width // heads % 2:
            raise BackboneError(
                f"heads = {heads} of width {width // heads}",
                remedy="choose heads of an even width, whose numbers are rotated in pairs",
            )
        self.base, self.causal = base, causal
        self._cached: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend among the tokens of each sample; as `Attention.forward`."""
        batch, tokens, width = x.shape
        shape = (batch, tokens, self.heads, width // self.heads)
        query, key, value = (
            chunk.reshape(shape).transpose(1, 2) for chunk in self.qkv(x).chunk(3, dim=-1)
        )
        query, key = self._rotated(query), self._rotated(key)
        if self.causal:
            past = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).tril()
            mask = past if mask is None else mask & past
        dropout = self.attention_dropout.p if self.training else 0.0
        mixed = attend(query, key, value, dropout=dropout, mask=mask)
        out: Tensor = self.output_dropout(self.proj(mixed.transpose(1, 2).flatten(2)))
        return out

    def _rotated(self, x: Tensor) -> Tensor:
        """Rotate the pairs (i, i + half) of (batch, heads, tokens, dim) by the position."""
        cosine, sine = self._angles(x.shape[2], x.shape[3] // 2, x.device)
        first, second = x.float().chunk(2, dim=-1)
        rotated = [first * cosine - second * sine, second * cosine + first * sine]
        return torch.cat(rotated, dim=-1).to(x.dtype)

    def _angles(self, tokens: int, pairs: int, device: torch.device) -> tuple[Tensor, Tensor]:
        key = (tokens, device)
        if key not in self._cached:
            self._cached.clear()  # of another window length
            with torch.inference_mode(False), torch.no_grad():
                place = torch.arange(pairs, dtype=torch.float64, device=device) / pairs
                angle = torch.outer(
                    torch.arange(tokens, dtype=torch.float64, device=device), self.base**-place
                )
                self._cached[key] = angle.cos().float(), angle.sin().float()
        return self._cached[key]


class Transformer(StemBackbone):
    """The Transformer encoder."""

    family = "transformer"
    final_parameters = ("norm.",)

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.causal = config.causal
        self.blocks = nn.ModuleList(self._block() for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        initialise_linears(self.blocks, rule="xavier")

    def _block(self) -> Block:
        config = self.config
        block = Block(config.width, config.heads, hidden=config.hidden)
        block.attn = RotaryAttention(
            config.width, config.heads, base=config.rotary_base, causal=config.causal
        )
        for part in (block.mlp.drop1, block.mlp.drop2, block.attn.output_dropout):
            part.p = config.dropout
        return block

    def contextualise(self, z: Tensor) -> Tensor:
        """Run the layers and the final norm: (batch, tokens, width) to the same shape."""
        for block in self.blocks:
            z = block(z)
        out: Tensor = self.norm(z)
        return out


_PAPER = "arXiv 2605.12241; rotary positions after Su et al., arXiv 2104.09864"

ENTRIES = (
    Entry(
        network=Transformer,
        config=TransformerConfig(name="transformer"),
        summary="Transformer behind the stem: 6 layers of width 512, 240 Hz, 2.5 s",
        origin="arXiv 2605.12241",
        paper=_PAPER,
        parameters=19_724_288,
        recipes="s4-240hz",
        pretraining_recipe="jepa-240hz",
    ),
    Entry(
        network=Transformer,
        config=TransformerConfig(
            name="transformer_small",
            rate=100,
            window=250,
            width=96,
            depth=4,
            heads=4,
            hidden=384,
            stem_depth=2,
            dropout=0.0,
            pool="mean-max",
            scale=TYPICAL_DEVIATION_MV,
        ),
        summary="The same with 4 layers of width 96 at 100 Hz, our size for two CPU cores",
        origin="our size of it",
        paper=_PAPER,
        parameters=460_608,
        recipes="s4-100hz-cpu",
        pretraining_recipe="jepa-100hz-cpu",
    ),
)
