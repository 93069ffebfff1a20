from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from einthoven.backbones.hubert_ecg import FLAT_LEAD, HubertECG
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import prepare_batch

TINY: dict[str, Any] = {"depth": 2, "width": 32, "heads": 2, "conv_width": 16, "pos_groups": 4}
LIMB, CHEST = STANDARD_LEADS[:6], STANDARD_LEADS[6:]
EIGHT = ("I", "II", *CHEST)


def _tiny(**overrides: Any) -> HubertECG:
    built = create_backbone("hubert_ecg_small", seed=0, **TINY | overrides)
    assert isinstance(built, HubertECG)
    # Weights of std 0.02 hardly move a token at this width; these make differences show.
    with torch.no_grad():
        for part in built.modules():
            if isinstance(part, nn.Linear):
                part.weight.mul_(10.0)
    return built.eval()


@pytest.fixture
def net() -> HubertECG:
    return _tiny()


def _x(rows: int = 12, samples: int = 500) -> Tensor:
    return torch.randn(2, rows, samples, generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize("missing", ["refuse", "zero", "mean"])
def test_eight_leads_are_derived_before_they_are_scaled_or_refused(missing: str) -> None:
    whole, eight = _tiny(missing_leads=missing), _tiny(missing_leads=missing, leads=EIGHT)
    with pytest.raises(BackboneError, match=" III, aVR") as refusal:
        whole(_x(8), leads=EIGHT)
    assert f"leads={EIGHT}" in refusal.value.remedy
    assert eight.preparation.sources == EIGHT
    assert eight.leads == eight.preparation.leads == STANDARD_LEADS
    volts = _x(8, 5000)
    one, two = volts[:, :1], volts[:, 1:2]
    limb = torch.cat([two - one, -(one + two) / 2, one - two / 2, two - one / 2], dim=1)
    twelve = torch.cat([volts[:, :2], limb, volts[:, 2:]], dim=1)
    starts = torch.tensor([0, 2500])
    expected = prepare_batch(whole.preparation, twelve, rate=500, starts=starts)
    result = prepare_batch(eight.preparation, volts, rate=500, starts=starts)
    assert torch.allclose(result, expected, atol=1e-5)
    assert torch.allclose(eight(result), whole(expected), atol=1e-4)


def test_fill_value_of_a_missing_lead_is_that_of_the_release() -> None:
    """A lead of zeros, and one that is not a number, all the way through the preparation."""
    preparation = _tiny().preparation
    volts = _x(12, 5000)
    for value in (0.0, float("nan")):
        volts[:, 6:] = value
        x = prepare_batch(preparation, volts, rate=500, starts=torch.tensor([0, 9]))
        mean = x[:, :6].mean((1, 2))[:, None]
        expected = torch.full((2, 1), FLAT_LEAD) if value == 0.0 else mean
        # but for what rings at the seam to aVF, and at the end of the row
        chest = x[:, 6:].flatten(1)[:, 40:-40]
        assert torch.allclose(chest, expected.expand_as(chest), atol=2e-3)


@pytest.mark.parametrize("leads", [LIMB, ("II",), ("V1", "V5")])
def test_missing_leads_are_refused_or_filled(net: HubertECG, leads: tuple[str, ...]) -> None:
    x = _x(len(leads))
    with pytest.raises(BackboneError, match=" V6,") as refusal:
        net(x, leads=leads)
    assert "missing_leads='mean'" in refusal.value.remedy
    with pytest.raises(BackboneError, match=" V6,"):
        _tiny(leads=leads)
    zeros = _tiny(missing_leads="zero", leads=leads)
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    filled = torch.full((2, 12, 500), FLAT_LEAD)
    filled[:, rows] = x
    assert torch.equal(zeros(x), net(filled))
    assert zeros.leads == zeros.preparation.leads == leads
    means = _tiny(missing_leads="mean", leads=leads)
    filled = x.mean((1, 2), keepdim=True).repeat(1, 12, 500)
    filled[:, rows] = x
    assert torch.allclose(means(x), net(filled), atol=1e-6)


def test_refuses_shapes_that_do_not_fit(net: HubertECG) -> None:
    with pytest.raises(BackboneError, match=r"\(2, 1, 6000\)"):
        net(torch.randn(2, 1, 6000))
    with pytest.raises(BackboneError, match=r"\(2, 6000\)"):
        net(torch.randn(2, 6000))
    for samples in (6, 501, 1000):
        with pytest.raises(BackboneError, match=f"{samples} samples"):
            net(_x(samples=samples))
    with pytest.raises(BackboneError, match="501 samples"):
        _tiny(window=501)
    assert _tiny(max_samples=1000).tokens(_x(samples=1000)).shape == (2, 187, 32)


def test_tokens_of_the_released_window_and_of_shorter_ones(net: HubertECG) -> None:
    assert net.preparation.window == 500
    assert net.preparation.rate == 100
    for samples, tokens in ((500, 93), (250, 46), (7, 1)):
        assert net.tokens(_x(samples=samples)).shape == (2, tokens, 32)
    x = _x()
    assert torch.allclose(net.features(x), net.tokens(x).mean(1), atol=1e-6)
    assert _tiny(window=250).preparation.window == 250


def test_leads_that_are_laid_end_to_end_have_an_order() -> None:
    with pytest.raises(BackboneError, match=r"leads = \('V1', 'I'") as refusal:
        _tiny(leads=("V1", *STANDARD_LEADS[:6], *STANDARD_LEADS[7:]))
    assert str(STANDARD_LEADS) in refusal.value.remedy
