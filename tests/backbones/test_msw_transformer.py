"""MSW-Transformer."""

from __future__ import annotations

from typing import Any

import torch

from einthoven.backbones.msw_transformer import MSWTransformer
from einthoven.backbones.registry import create_backbone

TINY: dict[str, Any] = {"width": 16, "scales": (2, 4)}


def _tiny(**options: Any) -> MSWTransformer:
    built = create_backbone("msw_transformer", seed=0, **(TINY | options))
    assert isinstance(built, MSWTransformer)
    return built.eval()


def test_a_token_sees_no_further_than_its_largest_windows() -> None:
    net, x = _tiny(), torch.randn(1, 12, 80)
    changed = x.clone()
    changed[..., 25:30] += 1.0  # token 5: windows 4 to 7, and shifted 2 to 5
    with torch.no_grad():
        apart = (net.tokens(x) - net.tokens(changed)).abs().amax((0, 2)) > 1e-6
    assert apart.nonzero().flatten().tolist() == [2, 3, 4, 5, 6, 7]


def test_fusion_is_a_convex_sum_of_the_branches() -> None:
    block = _tiny().blocks[0]
    x = torch.randn(2, 9, 16)
    with torch.no_grad():
        single = [branch(x) for branch in block.branches]
        assert torch.allclose(block.fused(x), sum(single) / 2, atol=1e-6)
        block.fusion.copy_(torch.tensor([0.0, 40.0]))
        assert torch.allclose(block.fused(x), single[1], atol=1e-6)
