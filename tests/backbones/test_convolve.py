"""Convolutions in bf16: those that PyTorch gets wrong on some processors too."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv1d

from einthoven.backbones.layers.convolution import convolve


@pytest.mark.parametrize(("channels", "groups", "kernel"), [(12, 1, 8), (32, 4, 16), (64, 2, 16)])
@pytest.mark.parametrize("cast", [True, False])
def test_bf16_is_fp32_rounded(channels: int, groups: int, kernel: int, cast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, 90, generator=generator)
    weight = torch.randn(32, channels // groups, kernel, generator=generator)
    bias = torch.randn(32, generator=generator)
    shape = {"stride": 2, "padding": 3, "groups": groups}
    expected = conv1d(x, weight, bias, **shape)
    assert torch.equal(convolve(x, weight, bias, **shape), expected)
    if cast:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = convolve(x, weight, bias, **shape)
    else:
        found = convolve(*(part.bfloat16() for part in (x, weight, bias)), **shape)
        assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).abs().max()) < 0.02 * float(expected.abs().max())
