"""Names of the tensors in wav2vec 2.0's relatives, of which there are two spellings.

Fairseq and its followers (ECG-FM) and the Hugging Face hub's networks (HuBERT-ECG) hold the same
parts under other names; both spell the weight norm of the positional convolution in two ways, by
the PyTorch that wrote the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from einthoven.weights.fit import Shape

__all__ = ["Wav2VecNames"]

_CONVS, _BLOCKS = "extractor.convs.", "blocks."


@dataclass(frozen=True)
class Wav2VecNames:
    """How a family of public checkpoints names the parts of its encoder.

    Attributes
    ----------
    modules : mapping of str to str
        Public names of our modules outside the convolutions and the blocks.
    convolution : str
        Of a convolution of the extractor, with its number in the place of ``{}``.
    attention : str
        Of the module in a block that the projections of query, key and value are in.
    in_block : mapping of str to str
        Of the other modules of a block.
    positions : str
        Of the positional convolution.
    """

    modules: Mapping[str, str]
    convolution: str
    attention: str
    in_block: Mapping[str, str]
    positions: str

    def parts(self, key: str, shape: Shape) -> tuple[list[str], Shape]:
        """Public names of one of our encoder's (or classifier's) tensors.

        The projections of query, key and value are one tensor here; the rest is a change of name.
        """
        inner, _, last = key.rpartition(".")
        if inner == "pos_conv":
            return [f"{self.positions}.{_IN_POSITIONS[last]}"], shape
        if inner.startswith(_CONVS):
            return [f"{self.convolution.format(inner.removeprefix(_CONVS))}.{last}"], shape
        if not inner.startswith(_BLOCKS):
            return [f"{self.modules[inner]}.{last}"], shape
        _, index, part = inner.split(".", 2)
        layer = f"encoder.layers.{index}"
        if part == "attn.qkv":
            three = [f"{layer}.{self.attention}.{which}_proj.{last}" for which in "qkv"]
            return three, (shape[0] // 3, *shape[1:])
        return [f"{layer}.{self.in_block[part]}.{last}"], shape

    def respelt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors, the weight norm in the newer spelling."""
        newer = {
            f"{self.positions}.{older}": f"{self.positions}.{name}"
            for older, name in _NEWER.items()
        }
        return {newer.get(key, key): tensor for key, tensor in state.items()}


_IN_POSITIONS = {
    "gain": "parametrizations.weight.original0",
    "direction": "parametrizations.weight.original1",
    "bias": "bias",
}
_NEWER = {"weight_g": _IN_POSITIONS["gain"], "weight_v": _IN_POSITIONS["direction"]}
