"""Options that make networks small, and the comparison of two networks' weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

WAV2VEC: dict[str, Any] = {
    "width": 32,
    "depth": 2,
    "heads": 2,
    "conv_width": 16,
    "pos_kernel": 8,
    "pos_groups": 4,
}
SMALL: dict[str, dict[str, Any]] = {
    "fcn_wang": {"widths": (16, 16, 8)},
    "resnet1d_wang": {"width": 16},
    "xresnet1d50": {"stem_widths": (8, 8, 8), "width": 8, "depths": (1, 2, 1)},
    "inception1d": {"width": 8},
    "lstm_bidir": {"width": 8},
    "multiresnet": {"width": 16, "depth": 2, "scales": 4},
    "spacetime": {"width": 16, "depth": 2, "state": 8, "shared": 4},
    "chimera": {"width": 8, "depth": 2, "modes": 2, "features": 16},
    "msw_transformer": {"width": 16, "scales": (2, 4)},
    "s4_tiny": {},
    "transformer_small": {"depth": 2},
    "net1d_small": {"first_width": 16, "widths": (16, 128), "depths": (1, 2)},
    "mtecg_tiny_100hz": {"depth": 2},
    "st_mem_tiny": {"depth": 2},
    "ecgfounder_12lead": {"stem_width": 16, "widths": (16, 32), "depths": (1, 2)},
    "ecg_fm": WAV2VEC,
    "hubert_ecg_small": WAV2VEC,
}


def same_weights(net: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same tensors under the same names."""
    ours, theirs = net.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
