"""Settings of objectives: what is given, what is left, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from einthoven.errors import RecipeError
from einthoven.objectives.objective import with_options


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
