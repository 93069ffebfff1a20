from __future__ import annotations

import pytest
import torch

from einthoven.errors import RecipeError
from einthoven.objectives.masks import draw_masking, kept_count


@pytest.mark.parametrize(("ratio", "removed"), [(0.75, 23), (0.5, 15), (0.8, 25), (0.01, 1)])
def test_counts_are_the_reference_ones(ratio: float, removed: int) -> None:
    assert 30 - kept_count(30, ratio) == removed


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5, 0.99])
def test_refuses_ratios_that_hide_or_keep_nothing(ratio: float) -> None:
    with pytest.raises(RecipeError, match="mask_ratio"):
        kept_count(30, ratio)


def test_keeps_the_smallest_noise_in_its_order() -> None:
    masking = draw_masking((1, 1, 4), 0.5, noise=torch.tensor([[[0.3, 0.1, 0.9, 0.2]]]))
    assert masking.keep.tolist() == [[[1, 3]]]
    assert masking.mask.tolist() == [[[1.0, 0.0, 1.0, 0.0]]]


def test_refuses_noise_of_another_shape() -> None:
    with pytest.raises(RecipeError, match=r"\(2, 1, 10\)"):
        draw_masking((2, 3, 10), 0.5, noise=torch.rand(2, 1, 10))
