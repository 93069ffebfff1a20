"""Overrides of a configuration: fields by name and type, and refusals that name field and value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from pydantic.dataclasses import dataclass

from einthoven.backbones.config import BackboneConfig, Count, OddCounts, Share
from einthoven.errors import BackboneError


@dataclass(frozen=True, kw_only=True)
class Config(BackboneConfig):
    width: Count = 8
    rate: float = 0.5
    dropout: Share = 0.1
    pair: tuple[int, int] = (1, 2)
    kernels: OddCounts = (3, 5)
    window: int | None = None
    causal: bool = True
    kind: Literal["fast", "slow"] = "fast"


CONFIG = Config(name="tiny", leads=("I", "II"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 4), ("width", np.int64(4)), ("rate", 1), ("rate", np.float32(0.25)),
        ("leads", ("V1",)), ("pair", (3, 4)), ("kernels", (7,)), ("window", None), ("window", 5),
        ("causal", False), ("kind", "slow"),
    ],
)  # fmt: skip
def test_a_value_of_the_right_type_replaces_the_default(field: str, value: Any) -> None:
    changed = CONFIG.override({field: value})
    assert getattr(changed, field) == value
    assert changed.options == CONFIG.options | {field: value}


def test_lists_become_tuples_and_leads_have_their_standard_spelling() -> None:
    changed = CONFIG.override({"leads": ["v1", "V2"], "pair": [3, 4]})
    assert (changed.leads, changed.pair) == (("V1", "V2"), (3, 4))
    assert hash(changed) == hash(replace(CONFIG, leads=("V1", "V2"), pair=(3, 4)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", "8"), ("width", 8.5), ("width", True), ("width", None), ("width", 0),
        ("rate", "half"), ("rate", False), ("dropout", 1.0), ("leads", "I,II"), ("leads", [1]),
        ("pair", (1, 2, 3)), ("kernels", ()), ("kernels", (4,)), ("window", 2.5),
        ("causal", 1), ("kind", "best"), ("name", "other"), ("widht", 4), ("init", "best"),
    ],
)  # fmt: skip
def test_impossible_values_and_unknown_fields_are_refused(field: str, value: Any) -> None:
    with pytest.raises(BackboneError, match=field) as refusal:
        CONFIG.override({field: value})
    assert refusal.value.remedy is not None
