"""Settings of objectives: what is given, what is left, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from einthoven.backbones.registry import create_backbone
from einthoven.errors import RecipeError
from einthoven.objectives.objective import with_options
from einthoven.objectives.registry import create_objective


@dataclass(frozen=True)
class Config:
    share: float = 0.5
    offsets: tuple[int, ...] = (1, 2)


def test_options_replace_fields_and_none_keeps_them() -> None:
    given = {"share": None, "offsets": [3, 4]}
    assert with_options(Config(share=0.7), given, objective="x") == Config(0.7, (3, 4))
    assert with_options(Config(), {}, objective="x") == Config()


def test_unknown_options_are_refused_with_the_choices() -> None:
    with pytest.raises(RecipeError, match="unknown option ofsets, sahre for objective x") as said:
        with_options(Config(), {"sahre": 1, "ofsets": None}, objective="x", beside=["preset"])
    assert said.value.remedy == "choose among preset, share, offsets."


@pytest.mark.parametrize("objective", ["mae", "cpc", "cmsc", "ecg_fm", "wav2vec2"])
def test_every_objective_refuses_unknown_options(objective: str) -> None:
    small = {"depth": 1, "width": 16}
    backbone = {
        "mae": ("mtecg_tiny_100hz", {**small, "heads": 1}),
        "cpc": ("s4_tiny", small),
    }.get(objective, ("ecg_fm", {**small, "heads": 1, "conv_width": 8, "pos_groups": 4}))
    network = create_backbone(backbone[0], seed=0, **backbone[1])
    with pytest.raises(RecipeError, match=f"unknown option sahre for objective {objective}"):
        create_objective(objective, network, sahre=1)
