"""What an objective draws for a record does not depend on how many processes share the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.objectives import create_pretraining
from einthoven.objectives.gathering import batch_places, tokens_of_batch
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


def test_single_process_picks_tokens_from_its_batch() -> None:
    z = torch.randn(3, 5, 2, requires_grad=True)
    index = torch.tensor([0, 14, 7])
    tokens = tokens_of_batch(z, index, None)
    assert torch.equal(tokens, torch.stack([z[0, 0], z[2, 4], z[1, 2]]))
    assert batch_places(3, None).tolist() == [0, 1, 2]
    assert batch_places(3, ShareGenerator(0, rank=1, world=4)).tolist() == [1, 5, 9]
