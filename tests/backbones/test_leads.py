from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from einthoven.backbones.leads import derive_leads
from einthoven.errors import BackboneError

LIMB = ("I", "II", "III", "aVR", "aVL", "aVF")


@pytest.fixture
def limb() -> Tensor:
    """Six limb leads of two records by the textbook's formulas."""
    one, two = torch.randn(2, 2, 50, generator=torch.Generator().manual_seed(0)).unbind(1)
    augmented = [-(one + two) / 2, one - two / 2, two - one / 2]
    return torch.stack([one, two, two - one, *augmented], dim=1)


@pytest.mark.parametrize("pair", list(combinations(LIMB, 2)), ids="-".join)
def test_any_two_limb_leads_give_the_other_four(pair: tuple[str, str], limb: Tensor) -> None:
    given = [LIMB.index(lead) for lead in pair]
    rest = [row for row in range(6) if row not in given]
    for order in (pair, pair[::-1]):
        out = derive_leads(limb[:, [LIMB.index(lead) for lead in order]], order)
        assert torch.allclose(out[:, 2:], limb[:, rest], atol=1e-5)


def test_measured_leads_stay_as_they_are_and_a_common_factor_changes_nothing(limb: Tensor) -> None:
    x = torch.cat([torch.randn(2, 1, 50), limb[:, [4, 1, 0]] + 0.1], dim=1)
    out = derive_leads(x, ("V1", "avl", "II", "I"))
    assert torch.equal(out[:, :4], x)
    assert torch.allclose(out[:, 4], x[:, 2] - x[:, 3])  # III from I and II, not from aVL
    assert out.shape == (2, 7, 50)
    assert torch.allclose(derive_leads(4 * x, ("V1", "aVL", "II", "I")), 4 * out, atol=1e-5)


def test_a_subtracted_mean_breaks_the_relations(limb: Tensor) -> None:
    shifted = derive_leads(limb[:, :2] - 0.3, ("I", "II")) + 0.3
    assert not torch.allclose(shifted[:, 2:], limb[:, 2:], atol=1e-2)


@pytest.mark.parametrize("leads", [("II",), ("I", "V1"), ("V1", "V2"), LIMB])
def test_nothing_is_derived_where_nothing_follows(leads: tuple[str, ...]) -> None:
    x = torch.randn(1, len(leads), 10)
    assert derive_leads(x, leads) is x


def test_refuses_rows_without_names() -> None:
    with pytest.raises(BackboneError, match="for 2 leads"):
        derive_leads(torch.randn(1, 3, 10), ("I", "II"))
