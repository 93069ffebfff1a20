"""Names of the tensors in files that MULTIRESNET's public code writes (thjashin/multires-conv).

Nobody publishes trained weights; the names (46 entries with the head, layers in lists by kind) let
a file of one's own run of that code be read. The head is `output_mapping` there and `head` here.
Convolutions of one sample are linear maps here, and depthwise filters have no axis for their single
input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from einthoven.weights.fit import Shape

__all__ = ["encoder_parts", "encoder_state"]

_RENAMED = (
    (re.compile(r"^embedding\."), "encoder."),
    (re.compile(r"^blocks\.(\d+)\.multires\.low$"), r"seq_layers.\1.h0"),
    (re.compile(r"^blocks\.(\d+)\.multires\.high$"), r"seq_layers.\1.h1"),
    (re.compile(r"^blocks\.(\d+)\.multires\.weights$"), r"seq_layers.\1.w"),
    (re.compile(r"^blocks\.(\d+)\.mix\."), r"mixing_layers.\1.0."),
    (re.compile(r"^blocks\.(\d+)\.norm\."), r"norms.\1."),
)
_OF_ONE_SAMPLE = re.compile(r"^(encoder|mixing_layers\.\d+\.0)\.weight$")
_OF_ONE_CHANNEL = re.compile(r"\.h[01]$")


def encoder_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public name and shape of one of our encoder's (or classifier's) tensors."""
    for pattern, name in _RENAMED:
        key = pattern.sub(name, key)
    if _OF_ONE_SAMPLE.match(key):
        shape = (*shape, 1)
    elif _OF_ONE_CHANNEL.search(key):
        shape = (shape[0], 1, *shape[1:])
    return [key], shape


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a public file, its head under our name for it."""
    return {re.sub(r"^output_mapping\.", "head.", key): tensor for key, tensor in state.items()}
