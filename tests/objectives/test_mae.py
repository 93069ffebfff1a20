from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.backbones.registry import create_backbone
from einthoven.objectives.mae import MaskedAutoencoder, create_mae

NAMES = ("st_mem_tiny", "mtecg_tiny_100hz")


def _mae(name: str, **options: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return create_mae(create_backbone(name, depth=2, init="pretraining"), **options).eval()


def test_published_sizes() -> None:
    with torch.device("meta"):
        base = create_mae(create_backbone("st_mem_base", init="pretraining"))
        tiny = create_mae(create_backbone("st_mem_tiny", init="pretraining"))
        mtecg = create_mae(create_backbone("mtecg_tiny"))
    count = [sum(p.numel() for p in net.parameters()) for net in (base, tiny, mtecg)]
    assert count == [88_534_753, 8_599_201, 5_723_116]
    assert sum(p.numel() for p in base.parameters() if p.requires_grad) == 88_501_985


@pytest.mark.parametrize("name", NAMES)
def test_only_kept_patches_are_encoded(name: str) -> None:
    net = _mae(name, mask_ratio=0.75)
    seen: list[int] = []
    net.backbone.blocks[0].register_forward_pre_hook(lambda _, a: seen.append(a[0].shape[1]))  # type: ignore[union-attr, index]
    out = net(torch.randn(2, 12, net.backbone.preparation.window))
    expected = 12 * (7 + 2) if name.startswith("st_mem") else 50 + 1
    assert seen == [expected]
    assert out.latent.shape == (2, expected, 192)


@pytest.mark.parametrize("name", NAMES)
def test_hidden_samples_do_not_reach_the_prediction(name: str) -> None:
    net = _mae(name, mask_ratio=0.5)
    x = torch.randn(2, 12, 300)
    out = net(x, generator=torch.Generator().manual_seed(0))
    patches = net.backbone.patch_grid(x)
    other = torch.where(out.mask[..., None] == 1, torch.randn_like(patches), patches)
    rows, leads = patches.shape[1], 12 // patches.shape[1]
    hidden = other.reshape(2, rows, -1, leads, net.backbone.patch).transpose(2, 3).reshape(x.shape)
    again = net(hidden, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(x, hidden)
    assert torch.allclose(again.prediction, out.prediction, atol=1e-5)
    assert not torch.equal(again.loss, out.loss)


def test_all_lead_masking_hides_the_same_patches_in_every_lead() -> None:
    mask = _mae("st_mem_tiny", masking="all-lead")(torch.randn(2, 12, 2250)).mask
    assert torch.equal(mask, mask[:, :1].expand(-1, 12, -1))
    apart = _mae("st_mem_tiny")(torch.randn(2, 12, 2250)).mask
    assert not torch.equal(apart[:, 0], apart[:, 1])


def test_reduced_leads_are_reconstructed_alone() -> None:
    for name, rows in (("st_mem_tiny", 2), ("mtecg_tiny_100hz", 1)):
        net = create_mae(create_backbone(name, depth=1, leads=("II", "V1")))
        out = net(torch.randn(2, 2, 300))
        assert out.prediction.shape[1] == rows
        assert out.prediction.shape[1] * out.prediction.shape[3] == 2 * net.backbone.patch
