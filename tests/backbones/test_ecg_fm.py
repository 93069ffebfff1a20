from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.backbones.ecg_fm import ECGFM, scaled_gradient
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.registry import create_backbone, entry
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import evaluation_starts

TINY: dict[str, Any] = {
    "width": 32, "depth": 2, "heads": 2, "conv_width": 16, "pos_kernel": 8, "pos_groups": 4,
}  # fmt: skip


@pytest.fixture
def net() -> ECGFM:
    return _tiny().eval()


def _tiny(**options: Any) -> ECGFM:
    built = create_backbone("ecg_fm", seed=0, **(TINY | options))
    assert isinstance(built, ECGFM)
    return built


def test_the_public_shape() -> None:
    with torch.device("meta"):
        net = create_backbone("ecg_fm")
        assert net.tokens(torch.empty(1, 12, 2500)).shape == (1, 156, 768)
    assert sum(p.numel() for p in net.parameters()) == entry("ecg_fm").parameters
    assert sum(p.numel() for p in net.extractor.parameters()) == 399_872
    assert sum(p.numel() for p in net.pos_conv.parameters()) == 4_719_488
    assert sum(p.numel() for p in net.blocks.parameters()) == 85_054_464
    holders = [len(block) for block in net.residual_branches()]
    assert holders == [1] + [2] * 12
    assert sum(isinstance(part, StochasticDepth) for part in net.modules()) == 25


def test_the_catalogue_says_that_ptbxl_was_in_the_pretraining() -> None:
    about = entry("ecg_fm")
    assert about.contains_ptbxl is True
    assert about.licence.id == "MIT"
    assert len(about.weights_sha256) == 64


@pytest.mark.parametrize(
    ("samples", "tokens"), [(5000, 312), (2500, 156), (1250, 78), (1000, 62), (31, 1), (16, 1)]
)
def test_tokens_of_every_length(net: ECGFM, samples: int, tokens: int) -> None:
    assert net.tokens(torch.randn(1, 12, samples)).shape == (1, tokens, 32)


def test_refuses_less_than_a_token(net: ECGFM) -> None:
    with pytest.raises(BackboneError, match="15 samples; a token takes 16"):
        net(torch.randn(1, 12, 15))
    with pytest.raises(BackboneError, match="4 samples"):
        _tiny(window=4)


LEADS = {
    8: ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"),
    6: ("I", "II", "III", "aVR", "aVL", "aVF"),
    1: ("II",),
}


@pytest.mark.parametrize("count", LEADS)
def test_fewer_leads_are_zeros_in_the_places_of_the_others(net: ECGFM, count: int) -> None:
    leads = LEADS[count]
    x = torch.zeros(2, 12, 320)
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    x[:, rows] = torch.randn(2, count, 320)
    given = net(x[:, rows], leads=leads)
    assert torch.equal(given, net(x))
    assert torch.equal(net(x[:, rows[::-1]], leads=[lead.lower() for lead in leads[::-1]]), given)
    built = _tiny(leads=leads).eval()
    assert built.preparation.sources == leads
    if count != 8:  # of eight, the preparation makes twelve
        assert torch.equal(built(x[:, rows]), given)
    # What is zero matters: the same rows in other places are other leads.
    other = STANDARD_LEADS[-count:] if count < 6 else STANDARD_LEADS[12 - count :]
    assert not torch.allclose(net(x[:, rows], leads=other), given, atol=1e-3)


def test_fewer_leads_are_never_taken_silently(net: ECGFM) -> None:
    for count in (1, 6, 8, 11):
        with pytest.raises(BackboneError, match="for 12 leads"):
            net(torch.randn(1, count, 320))
    with pytest.raises(BackboneError, match="twice"):
        net(torch.randn(1, 2, 320), leads=("I", "I"))
    strict = _tiny(missing_leads="refuse")
    with pytest.raises(BackboneError, match=r"leaves out I, III, aVR.*'refuse'"):
        strict(torch.randn(1, 1, 320), leads=("II",))
    with pytest.raises(BackboneError, match="'refuse'"):
        _tiny(missing_leads="refuse", leads=("II",))
    assert strict(torch.randn(1, 12, 320), leads=STANDARD_LEADS[::-1]).isfinite().all()


def test_a_record_without_any_signal_gives_finite_features(net: ECGFM) -> None:
    assert net(torch.zeros(1, 12, 320)).isfinite().all()


def test_eight_leads_are_twelve_once_limb_leads_are_derived() -> None:
    eight = _tiny(leads=LEADS[8], missing_leads="refuse")
    assert eight.leads == eight.preparation.leads == STANDARD_LEADS
    assert eight.preparation.derived == ("III", "aVR", "aVL", "aVF")
    assert [step.name for step in eight.preparation.steps][:2] == ["derive", "resample"]


def test_preparation_is_the_released_chain() -> None:
    preparation = create_backbone("ecg_fm", **TINY).preparation
    assert [str(step) for step in preparation.steps] == [
        "linear resampling to 500 Hz",
        "standardised over each lead",
        "window of 2500 samples (2 evaluation crops)",
    ]
    assert (preparation.rate, preparation.window, preparation.evaluation_crops) == (500, 2500, 2)
    # Ten seconds are the release's two segments, at whatever rate they were recorded.
    for rate in (500, 100):
        assert evaluation_starts(preparation, 10 * rate, rate=rate) == [0, 2500]
    assert evaluation_starts(preparation, 2500, rate=500) == [0]


def test_window_override_reaches_the_preparation() -> None:
    assert _tiny(window=5000).preparation.window == 5000


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
    with pytest.raises(BackboneError, match="valid samples between 8 and 640"):
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


def test_scaled_gradient_leaves_other_uses_of_a_tensor_alone() -> None:
    x = torch.ones(3, requires_grad=True)
    (scaled_gradient(x, 0.5) + x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.5, 1.5, 1.5]


def test_layer_drop_is_an_option() -> None:
    x = torch.randn(2, 12, 320)
    net = _tiny(layerdrop=0.5, depth=8).train()
    with torch.no_grad():
        torch.manual_seed(0)
        outputs = [net(x) for _ in range(4)]
        assert any(not torch.allclose(outputs[0], other, atol=1e-4) for other in outputs[1:])
        assert torch.equal(net.eval()(x), net(x))


def test_layer_groups_follow_depth() -> None:
    groups = _tiny().layer_groups()
    assert len(groups) == 5
    assert all(name.startswith("extractor.") for name in groups[0])
    assert {name.split(".")[0] for name in groups[1]} == {"projection", "pos_conv", "norm"}
    assert groups[-1] == ["blocks.1.norm2.weight", "blocks.1.norm2.bias"]


def test_start_is_that_of_wav2vec() -> None:
    net = create_backbone("ecg_fm", seed=0, **(TINY | {"width": 256, "conv_width": 128}))
    assert net.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.extractor.convs[1].weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    assert not any(bool(bias.any()) for bias in biases)
