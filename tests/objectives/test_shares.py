"""What an objective draws for a record does not depend on how many processes share the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.objectives import create_pretraining
from einthoven.signals.random import ShareGenerator

CASES: dict[str, dict[str, Any]] = {
    "mae": {
        "backbone": "mtecg_tiny_100hz",
        "backbone_options": {"depth": 1, "width": 32, "heads": 1},
    },
    "cpc": {
        "backbone": "s4_tiny",
        "backbone_options": {"depth": 1, "width": 16, "stem_norm": "none"},
        "negatives": 8,
        "pool": 0,
        "offsets_ms": (40.0, 120.0),
    },
}


@pytest.mark.parametrize("objective", CASES)
@pytest.mark.parametrize("world", [2, 4])
def test_losses_of_shares_average_to_the_whole(objective: str, world: int) -> None:
    built: Any = create_pretraining(objective=objective, seed=0, **CASES[objective])
    x = torch.randn(8, 12, 100, generator=torch.Generator().manual_seed(0))
    whole = built(x, generator=ShareGenerator(7)).loss
    shares = [
        built(x[rank::world], generator=ShareGenerator(7, rank=rank, world=world)).loss
        for rank in range(world)
    ]
    torch.testing.assert_close(torch.stack(shares).mean(), whole, rtol=1e-6, atol=0)
    other = built(x, generator=ShareGenerator(8)).loss
    assert abs(float((other - whole).detach())) > 1e-4
