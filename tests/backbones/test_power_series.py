"""Power series expanded on a circle."""

from __future__ import annotations

import pytest
import torch

from einthoven.backbones.layers.power_series import Circle
from einthoven.errors import BackboneError


@pytest.mark.parametrize("length", [1, 7, 50, 999])
def test_a_geometric_series_comes_back(length: int) -> None:
    circle, ratios = Circle(length), torch.tensor([0.5, -0.97, 0.9999, 1.0]).double()
    found = circle.coefficients(1.0 / (1.0 - ratios[:, None] * circle.points()))
    expected = ratios[:, None] ** torch.arange(length)
    assert torch.allclose(found, expected, atol=1e-9)


def test_a_complex_one_comes_back_from_the_whole_circle() -> None:
    circle = Circle(60)
    ratio = torch.polar(torch.tensor(0.98).double(), torch.tensor(1.3).double())
    points = circle.points(whole=True)
    assert len(points) == circle.size
    assert torch.equal(points[: circle.size // 2 + 1], circle.points())
    found = circle.whole_coefficients(1.0 / (1.0 - ratio * points))
    assert torch.allclose(found, ratio ** torch.arange(60), atol=1e-9)


@pytest.mark.parametrize("degree", [3, 40])
def test_a_polynomial_is_evaluated_and_comes_back(degree: int) -> None:
    """A degree beyond the wanted coefficients is no reason to fold it."""
    polynomial = torch.randn(2, degree, generator=torch.Generator().manual_seed(0)).double()
    circle = Circle(12, degree)
    by_hand = sum(polynomial[:, [k]] * circle.points() ** k for k in range(degree))
    values = circle.values(polynomial)
    assert torch.allclose(values, torch.as_tensor(by_hand), atol=1e-12)
    expected = torch.cat([polynomial, torch.zeros(2, 12).double()], dim=1)[:, :12]
    assert torch.allclose(circle.coefficients(values), expected, atol=1e-9)


@pytest.mark.parametrize(("length", "degree"), [(0, 1), (5, 0)])
def test_nothing_to_expand_is_refused(length: int, degree: int) -> None:
    with pytest.raises(BackboneError, match=f"length = {length}, degree = {degree}"):
        Circle(length, degree)
