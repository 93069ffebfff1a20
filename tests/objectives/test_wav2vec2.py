from __future__ import annotations

import pytest
import torch

from einthoven.errors import RecipeError
from einthoven.objectives.wav2vec2 import (
    contrastive_logits,
    draw_spans,
    other_positions,
)
from einthoven.signals.random import ShareGenerator


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shares_of_hidden_tokens_are_those_of_the_release() -> None:
    """Measured there: 49.5 % of one row alone, 35.4 % of each row of a batch of 128."""
    alone = [draw_spans((1, 1), 156, generator=_generator(s)).float().mean() for s in range(400)]
    assert torch.stack(alone).mean().item() == pytest.approx(0.495, abs=0.01)
    rows = [draw_spans((64, 2), 156, generator=_generator(s)).float().mean() for s in range(60)]
    assert torch.stack(rows).mean().item() == pytest.approx(0.354, abs=0.015)


def test_hidden_tokens_are_spans() -> None:
    """Alone, a row is not cut: every run is at least one span long."""
    for seed in range(50):
        row = draw_spans((1, 1), 156, generator=_generator(seed))[0].tolist()
        runs = "".join("x" if hidden else " " for hidden in row).split()
        assert min(map(len, runs)) >= 10
        assert len(runs) <= 11


def test_at_least_two_spans_and_the_last_token_is_never_first_of_one() -> None:
    hidden = torch.stack(
        [draw_spans((1, 1), 30, probability=0.01, generator=_generator(s))[0] for s in range(300)]
    )
    assert hidden.sum(1).min() > 10
    assert hidden.sum(1).max() <= 20
    share = hidden.float().mean(0)
    assert 0 < share[0] < share[15]
    # Spans start at 0 to 145 of 156, so that no start hides the last token.
    last = [draw_spans((1, 1), 156, generator=_generator(s))[0, -1] for s in range(300)]
    assert not any(last)


@pytest.mark.parametrize(
    ("tokens", "options"),
    [(11, {}), (156, {"probability": 0.0}), (156, {"probability": 1.0}), (156, {"length": 0})],
)
def test_refuses_spans_that_do_not_fit(tokens: int, options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=f"{tokens} tokens"):
        draw_spans((1, 1), tokens, **options)  # type: ignore[arg-type]


def test_a_record_hides_the_same_however_many_processes_share_the_batch() -> None:
    whole = draw_spans((4, 2), 60, generator=ShareGenerator(5)).reshape(4, 2, 60)
    others = other_positions((4, 2), 9, 3, generator=ShareGenerator(6)).reshape(4, 2, 9, 3)
    for rank in (0, 1):
        mine = ShareGenerator(5, rank=rank, world=2)
        part = draw_spans((2, 2), 60, generator=mine).reshape(2, 2, 60)
        assert torch.equal(part, whole[rank::2])
        mine = ShareGenerator(6, rank=rank, world=2)
        assert torch.equal(
            other_positions((2, 2), 9, 3, generator=mine).reshape(2, 2, 9, 3), others[rank::2]
        )


def test_others_are_uniform_and_never_the_position_itself() -> None:
    drawn = other_positions((3, 1), 5, 4000, generator=_generator())
    assert drawn.shape == (3, 5, 4000)
    for position in range(5):
        counts = torch.bincount(drawn[:, position].flatten(), minlength=5) / 12000
        assert counts[position] == 0
        assert torch.allclose(counts[counts > 0], torch.full((4,), 0.25), atol=0.02)
    with pytest.raises(RecipeError, match="1 hidden"):
        other_positions((1, 1), 1, 3)


def test_scores_stay_in_full_precision_under_autocast() -> None:
    context, targets = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    identity, choices = torch.arange(4)[None], other_positions((1, 1), 4, 3)
    plain = contrastive_logits(context, targets, identity, choices)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrastive_logits(context, targets, identity, choices), plain)
