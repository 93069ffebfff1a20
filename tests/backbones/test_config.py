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
    ("field", "value", "remedy"),
    [
        ("width", "8", "a whole number"), ("width", 8.5, "a whole number"),
        ("width", True, "a whole number"), ("width", None, "a whole number"),
        ("rate", "half", "a number"), ("rate", False, "a number"),
        ("leads", "I,II", "a list of texts"), ("leads", [1], "a list of texts"),
        ("pair", (1, 2, 3), "a list of 2 whole numbers"),
        ("window", 2.5, "a whole number or nothing"), ("causal", 1, "true or false"),
        ("kind", 3, "'fast' or 'slow'"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_with_what_the_field_takes(
    field: str, value: Any, remedy: str
) -> None:
    with pytest.raises(BackboneError, match=f"{field} = .* of tiny") as said:
        override(Config(), {field: value})
    assert said.value.remedy == f"give {remedy}."


def test_an_unknown_field_is_answered_with_those_that_come_close_and_all_there_are() -> None:
    with pytest.raises(BackboneError, match="unknown option widht of tiny") as said:
        override(Config(), {"widht": 4})
    assert said.value.remedy.startswith("did you mean width? Choose among width, rate, leads, ")
    with pytest.raises(BackboneError) as said:
        override(Config(), {"zzz": 4})
    assert said.value.remedy.startswith("Choose among width, ")
    with pytest.raises(BackboneError, match="unknown option name"):
        override(Config(), {"name": "other"})


def test_a_choice_is_one_of_those_allowed() -> None:
    check_choice("init", "scratch", ("scratch", "pretraining"))
    with pytest.raises(BackboneError, match="init = 'best' is unknown") as said:
        check_choice("init", "best", ("scratch", "pretraining"))
    assert said.value.remedy == "choose 'scratch' or 'pretraining'."
