from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import SMALL

from einthoven.backbones.ecg_fm import ECGFM
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS

TINY = SMALL["ecg_fm"]


@pytest.fixture
def net() -> ECGFM:
    return _tiny().eval()


def _tiny(**options: Any) -> ECGFM:
    built = create_backbone("ecg_fm", seed=0, **(TINY | options))
    assert isinstance(built, ECGFM)
    return built


def test_refuses_less_than_a_token(net: ECGFM) -> None:
    with pytest.raises(BackboneError, match="15 samples"):
        net(torch.randn(1, 12, 15))
    with pytest.raises(BackboneError, match="4 samples"):
        _tiny(window=4)


def test_fewer_leads_are_never_taken_silently(net: ECGFM) -> None:
    for count in (1, 6, 8, 11):
        with pytest.raises(BackboneError, match=rf"\(1, {count}, 320\)"):
            net(torch.randn(1, count, 320))
    with pytest.raises(BackboneError, match="twice"):
        net(torch.randn(1, 2, 320), leads=("I", "I"))
    strict = _tiny(missing_leads="refuse")
    with pytest.raises(BackboneError, match=r"III, aVR.*'refuse'"):
        strict(torch.randn(1, 1, 320), leads=("II",))
    with pytest.raises(BackboneError, match="'refuse'"):
        _tiny(missing_leads="refuse", leads=("II",))
    assert strict(torch.randn(1, 12, 320), leads=STANDARD_LEADS[::-1]).isfinite().all()


def test_padding_is_not_seen_by_the_blocks_nor_by_the_mean(net: ECGFM) -> None:
    x = torch.randn(2, 12, 640)
    whole = torch.tensor([640, 640])
    assert torch.allclose(net.features(x, valid_samples=whole), net.features(x), atol=1e-5)
    short = torch.tensor([640, 320])
    padded = net.features(x, valid_samples=short)
    assert torch.allclose(padded[0], net.features(x)[0], atol=1e-5)
    assert not torch.allclose(padded[1], net.features(x)[1], atol=1e-3)
    z = net.projection(net.extract(x))
    valid = torch.arange(40) < torch.tensor([[40], [20]])
    tail = z.clone()
    tail[1, 30:] += 1.0  # beyond the reach of the positional convolution from token 19
    before, after = net.contextualise(z, valid), net.contextualise(tail, valid)
    assert torch.allclose(before[1, :20], after[1, :20], atol=1e-5)
    with pytest.raises(BackboneError, match="8 and 640"):
        net.features(x, valid_samples=torch.tensor([640, 8]))


def test_the_extractor_is_frozen_scaled_or_trained() -> None:
    x = torch.randn(2, 12, 320)
    gradients = {}
    for factor in (1.0, 0.1, 0.0):
        net = _tiny(extractor_gradient=factor)
        net(x).square().sum().backward()
        gradients[factor] = [p.grad for p in net.extractor.parameters()]
        assert all(p.grad is not None for p in net.projection.parameters())
        assert all(p.requires_grad is (factor > 0) for p in net.extractor.parameters())
    assert gradients[0.0] == [None] * 6
    for whole, tenth in zip(gradients[1.0], gradients[0.1], strict=True):
        assert torch.allclose(0.1 * whole, tenth, rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        outputs = [_tiny(extractor_gradient=f).eval()(x) for f in (1.0, 0.1, 0.0)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_start_is_that_of_wav2vec() -> None:
    net = create_backbone("ecg_fm", seed=0, **(TINY | {"width": 256, "conv_width": 128}))
    assert net.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.extractor.convs[1].weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    assert not any(bool(bias.any()) for bias in biases)
