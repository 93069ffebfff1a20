"""ST-MEM and MTECG: leads, positions, pooling and starts."""

from __future__ import annotations

import pytest
import torch

from einthoven.backbones.layers.patches import sincos_positions
from einthoven.backbones.registry import create_backbone
from einthoven.backbones.st_mem import STMEM
from einthoven.errors import BackboneError


def test_mean_pooling_has_its_own_norm_and_ignores_the_class_token() -> None:
    net = create_backbone("mtecg_tiny_100hz", seed=0, depth=1, global_pool="mean").eval()
    names = dict(net.named_parameters())
    assert "fc_norm.weight" in names
    assert "norm.weight" not in names
    assert net.layer_groups()[-1] == ["fc_norm.weight", "fc_norm.bias"]
    x = torch.randn(2, 12, 100)
    pooled = net._encode(net.embed_grid(x))[:, 1:].mean(1)
    assert torch.allclose(net(x), net.fc_norm(pooled), atol=1e-6)
    with pytest.raises(BackboneError, match="global_pool = 'max'"):
        create_backbone("mtecg_tiny_100hz", global_pool="max")


@pytest.fixture
def net() -> STMEM:
    built = create_backbone("st_mem_tiny", seed=0, depth=2)
    assert isinstance(built, STMEM)
    return built.eval()


def test_reduced_leads_are_seen_as_what_they_are(net: STMEM) -> None:
    x = torch.randn(2, 2, 300)
    by_name = net(x, leads=("II", "V1"))
    assert torch.allclose(net(x.flip(1), leads=("v1", "ii")), by_name, atol=1e-5)
    # Lead II's row of the table is the second: the same net with the rows moved to the front
    # gives the same features to what it then takes for leads I and II.
    moved = create_backbone("st_mem_tiny", depth=2).eval()
    moved.load_state_dict(net.state_dict())
    with torch.no_grad():
        moved.lead_embed[:2] = net.lead_embed[[1, 6]]
    assert torch.allclose(moved(x, leads=("I", "II")), by_name, atol=1e-6)


def test_default_leads_of_a_reduced_network(net: STMEM) -> None:
    reduced = create_backbone("st_mem_tiny", depth=2, leads=("V1", "ii")).eval()
    reduced.load_state_dict(net.state_dict())
    x = torch.randn(2, 2, 300)
    assert reduced.leads == reduced.preparation.leads == ("V1", "II")
    assert torch.equal(reduced(x), net(x, leads=("V1", "II")))
    with pytest.raises(BackboneError, match="2 leads"):
        reduced(torch.randn(2, 12, 300))


@pytest.mark.parametrize("samples", [75, 600, 2250])
def test_shorter_inputs_use_the_first_positions_and_the_last_separator(
    net: STMEM, samples: int
) -> None:
    x = torch.randn(1, 12, samples)
    patches = samples // 75
    before = net(x)
    assert net.tokens(x).shape == (1, 12 * patches, 192)
    with torch.no_grad():
        net.pos_embed[:, 1 + patches : 31] = 7.0  # positions that the input does not reach
    assert torch.equal(net(x), before)
    with torch.no_grad():
        net.pos_embed[:, -1] += 1.0
    assert not torch.equal(net(x), before)


def test_pretraining_start_is_the_released_one() -> None:
    net = create_backbone("st_mem_tiny", seed=0, depth=1, init="pretraining")
    assert torch.equal(net.pos_embed, sincos_positions(30, 192, before=1, after=1))
    assert not net.pos_embed.requires_grad
    assert net.lead_embed.std().item() == pytest.approx(0.02, abs=0.002)
    weight = net.blocks[0].mlp.fc1.weight
    assert weight.abs().max().item() == pytest.approx((6 / (192 + 768)) ** 0.5, rel=0.01)
    assert not any(bool(p.any()) for name, p in net.named_parameters() if name.endswith("bias"))
