"""Overrides of a preset: fields by name and type, and refusals that say what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from einthoven.backbones.config import check_choice, fields_of, override
from einthoven.errors import BackboneError


@dataclass(frozen=True)
class Config:
    name: str = "tiny"
    width: int = 8
    rate: float = 0.5
    leads: tuple[str, ...] = ("I", "II")
    pair: tuple[int, int] = (1, 2)
    window: int | None = None
    causal: bool = True
    kind: Literal["fast", "slow"] = "fast"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 4), ("width", np.int64(4)), ("rate", 1), ("rate", np.float32(0.25)),
        ("leads", ("V1",)), ("pair", (3, 4)), ("window", None), ("window", 5), ("causal", False),
        ("kind", "slow"),
    ],
)  # fmt: skip
def test_a_value_of_the_right_type_replaces_the_preset_s(field: str, value: Any) -> None:
    changed = override(Config(), {field: value})
    assert getattr(changed, field) == value
    assert fields_of(changed) == fields_of(Config()) | {field: value}


def test_a_list_becomes_the_tuple_that_it_stands_for() -> None:
    changed = override(Config(), {"leads": ["V1", "V2"], "pair": [3, 4]})
    assert (changed.leads, changed.pair) == (("V1", "V2"), (3, 4))
    assert hash(changed) == hash(override(Config(), {"leads": ("V1", "V2"), "pair": (3, 4)}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", "8"), ("width", 8.5), ("width", True), ("width", None), ("rate", "half"),
        ("rate", False), ("leads", "I,II"), ("leads", [1]), ("pair", (1, 2, 3)),
        ("window", 2.5), ("causal", 1), ("kind", 3), ("name", "other"), ("widht", 4),
    ],
)  # fmt: skip
def test_values_of_another_type_and_unknown_fields_are_refused(field: str, value: Any) -> None:
    with pytest.raises(BackboneError, match=field) as refusal:
        override(Config(), {field: value})
    assert refusal.value.remedy is not None


def test_a_choice_is_one_of_those_allowed() -> None:
    check_choice("init", "scratch", ("scratch", "pretraining"))
    with pytest.raises(BackboneError, match="init = 'best'"):
        check_choice("init", "best", ("scratch", "pretraining"))
