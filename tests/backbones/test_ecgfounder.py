"""ECGFounder: convolutions of the published rule, preparation of fewer leads, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import SMALL
from torch import Tensor
from torch.nn.functional import conv1d, pad

from einthoven.backbones.ecgfounder import ECGFounder, same_conv
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_batch


def _by_hand(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """The published rule with an explicit padded copy."""
    samples, kernel = x.shape[-1], weight.shape[-1]
    out = -(-samples // stride)
    total = max(0, (out - 1) * stride + kernel - samples)
    padded = pad(x, (total // 2, total - total // 2))
    result = conv1d(padded, weight, stride=stride, groups=groups)
    assert result.shape[-1] == out
    return result


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 5, 16])
def test_convolution_is_same_padded_at_every_length(kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 2, kernel, generator=generator)
    for samples in (1, 2, 3, 15, 16, 17, 40, 79, 80):
        x = torch.randn(2, 4, samples, generator=generator)
        ours = same_conv(x, weight, None, stride=stride, groups=2)
        assert torch.allclose(ours, _by_hand(x, weight, stride, 2), atol=1e-5), samples


TINY = SMALL["ecgfounder_12lead"]
LIMB, CHEST = STANDARD_LEADS[:6], STANDARD_LEADS[6:]
EIGHT = ("I", "II", *CHEST)


def _tiny(name: str = "ecgfounder_12lead", **options: Any) -> ECGFounder:
    built = create_backbone(name, seed=0, **(TINY | options))
    assert isinstance(built, ECGFounder)
    return built.eval()


@pytest.fixture
def record() -> Tensor:
    """Two 12-lead records in mV, 10 s at 500 Hz, offset and drifting, limb leads by the law."""
    generator = torch.Generator().manual_seed(0)
    wave = 0.2 * torch.randn(2, 12, 5000, generator=generator).cumsum(-1) / 10 + 0.3
    one, two = wave[:, 0], wave[:, 1]
    limb = (one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2)
    wave[:, :6] = torch.stack(limb, dim=1)
    return wave


def _prepared(preparation: Preparation, record: Tensor) -> Tensor:
    rows = [STANDARD_LEADS.index(lead) for lead in preparation.sources]
    starts = torch.zeros(len(record), dtype=torch.long)
    return prepare_batch(preparation, record[:, rows], rate=500, starts=starts)


@pytest.mark.parametrize(
    "leads",
    [EIGHT, EIGHT[::-1], ("II", "III", *CHEST), ("V6", "aVF", *CHEST[:5], "aVR", "I")],
    ids=["I-II", "reversed", "II-III", "three limb leads"],
)
def test_derived_leads_are_what_twelve_would_have_been(
    leads: tuple[str, ...], record: Tensor
) -> None:
    whole, reduced = _tiny(), _tiny(leads=leads)
    reduced.load_state_dict(whole.state_dict())
    twelve = _prepared(whole.preparation, record)
    assert set(reduced.preparation.sources) == set(leads)
    assert reduced.leads == reduced.preparation.leads == STANDARD_LEADS
    few = _prepared(reduced.preparation, record)
    assert torch.allclose(few, twelve, atol=1e-4)
    assert torch.allclose(reduced(few), whole(twelve), atol=1e-4)
    # which zeros in the place of derived leads are not
    zeros = twelve.clone()
    zeros[:, [row for row in range(6) if STANDARD_LEADS[row] not in leads]] = 0.0
    assert not torch.allclose(whole(zeros), whole(twelve), atol=1e-2)


def test_limb_leads_alone_are_standardised_among_themselves(record: Tensor) -> None:
    """Six leads, two of them or all: the same input, the chest leads zero."""
    six, two, whole = _tiny(leads=LIMB), _tiny(leads=("I", "II")), _tiny()
    assert two.preparation.sources == ("I", "II")
    x = _prepared(six.preparation, record)
    assert torch.allclose(x.mean((1, 2)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(x.std((1, 2), correction=0), torch.ones(2), atol=1e-5)
    filled = torch.cat([x, torch.zeros(2, 6, 5000)], dim=1)
    assert torch.allclose(six(x), whole(filled), atol=1e-5)
    assert torch.allclose(two(_prepared(two.preparation, record)), six(x), atol=1e-4)


@pytest.mark.parametrize("lead", ["I", "II", "V4"])
def test_a_single_lead_stands_in_its_own_channel(lead: str, record: Tensor) -> None:
    one, whole = _tiny(leads=(lead,)), _tiny()
    x = _prepared(one.preparation, record)
    assert x.shape == (2, 1, 5000)
    filled = torch.zeros(2, 12, 5000)
    filled[:, STANDARD_LEADS.index(lead)] = x[:, 0]
    assert torch.allclose(one(x), whole(filled), atol=1e-5)


def test_leads_named_at_the_call() -> None:
    net = _tiny()
    x = torch.zeros(2, 12, 300)
    x[:, [1, 6]] = torch.randn(2, 2, 300)
    assert torch.allclose(net(x[:, [6, 1]], leads=("v1", "II")), net(x), atol=1e-5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    names = [STANDARD_LEADS[row] for row in order]
    assert torch.allclose(net(x[:, order], leads=names), net(x), atol=1e-5)
    limb = _tiny(leads=("II", "I"))
    y = torch.randn(2, 6, 300)
    assert limb.leads == LIMB
    assert torch.allclose(limb(y.flip(1), leads=LIMB[::-1]), limb(y), atol=1e-5)


def test_refuses_leads_that_lack_others_whose_mean_is_gone() -> None:
    with pytest.raises(BackboneError, match=r"leads=\('I', 'II'\)"):
        _tiny()(torch.randn(1, 2, 300), leads=("I", "II"))
    with pytest.raises(BackboneError, match=r"leads=\('I', 'II'\)"):
        _tiny(leads=("I", "II", "V1"))(torch.randn(1, 2, 300), leads=("I", "II"))


def test_the_single_lead_network_takes_any_one_lead() -> None:
    net = _tiny("ecgfounder_1lead")
    x = torch.randn(2, 1, 300)
    assert net.leads == net.preparation.leads == ("I",)
    assert torch.equal(net(x, leads=("V2",)), net(x))
    assert _tiny("ecgfounder_1lead", leads=("aVF",)).preparation.leads == ("aVF",)
    with pytest.raises(BackboneError, match=r"leads = [\s\S]*12lead"):
        _tiny("ecgfounder_1lead", leads=("I", "II"))
    with pytest.raises(BackboneError, match="not 12"):
        net(torch.randn(1, 12, 300), leads=STANDARD_LEADS)
    with pytest.raises(BackboneError, match=r"\(1, 12, 300\)"):
        net(torch.randn(1, 12, 300))


@pytest.mark.parametrize(
    ("samples", "tokens"), [(1, 1), (256, 1), (257, 2), (1250, 5), (4999, 20), (5000, 20)]
)
def test_takes_any_length_with_a_token_for_every_256_samples_begun(
    samples: int, tokens: int
) -> None:
    deep = {"widths": (16,) * 7, "depths": (1,) * 7, "stem_width": 16}
    net = _tiny(**deep)
    x = torch.randn(1, 12, samples)
    result = net.tokens(x)
    assert result.shape == (1, tokens, 16)
    assert torch.allclose(net(x), result.mean(1), atol=1e-6)
