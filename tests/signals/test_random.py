from __future__ import annotations

import pytest
import torch

from einthoven.signals.random import ShareGenerator, generator_for, integers, share_of, uniform


def test_draws_depend_on_the_key_alone() -> None:
    draws = {float(torch.rand(1, generator=generator_for(*key))) for key in [(1, 2), (2, 1), (1,)]}
    assert len(draws) == 3
    again = [float(torch.rand(1, generator=generator_for(1, 2))) for _ in range(2)]
    assert again[0] == again[1] in draws


def test_a_share_generator_is_an_ordinary_one_too() -> None:
    shared = ShareGenerator(4, 5, rank=1, world=2)
    assert share_of(shared) == (1, 2)
    assert share_of(generator_for(4, 5)) == share_of(None) == (0, 1)
    expected = torch.rand(3, generator=generator_for(4, 5))
    assert torch.equal(torch.rand(3, generator=shared), expected)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_record_draws_the_same_however_many_processes_share_the_batch(world: int) -> None:
    whole_uniform = uniform((6, 2), generator=generator_for(9))
    whole_integers = integers(1000, (6, 4), generator=generator_for(9))
    for rank in range(world):
        mine = (6 // world, 2)
        drawn = uniform(mine, generator=ShareGenerator(9, rank=rank, world=world))
        assert torch.equal(drawn, whole_uniform[rank::world])
        numbers = integers(
            1000, (6 // world, 4), generator=ShareGenerator(9, rank=rank, world=world)
        )
        assert torch.equal(numbers, whole_integers[rank::world])


def test_successive_draws_stay_in_step() -> None:
    """After one draw the next still belongs to the same records."""
    alone, first = generator_for(3), ShareGenerator(3, rank=0, world=2)
    uniform((4, 5), generator=alone)
    uniform((2, 5), generator=first)
    assert torch.equal(
        integers(50, (4, 3), generator=alone)[0::2], integers(50, (2, 3), generator=first)
    )
