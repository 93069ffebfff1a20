"""What an experiment changes of a recipe, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from einthoven.stages.recipe import Recipe

# What a run is called, the seed and share that a cell has anyway, and epochs, which have a mark of
# their own where they are fewer.
_NO_CHANGE = ("name", "description", "seed", "data.fraction")
_EPOCHS = "stage2.epochs"


def changes(own: Recipe, source: Recipe) -> list[str]:
    """Every key in which a recipe differs from the one that it was made of.

    Parameters
    ----------
    own : Recipe
        As it is run.
    source : Recipe
        As it is written.

    Returns
    -------
    list of str
        `precision bf16 instead of fp32`, `without stage1`. Fewer epochs of fine-tuning are left
        out: they are a shorter schedule.
    """
    return list(_differences(own.model_dump(mode="json"), source.model_dump(mode="json")))


def _differences(own: Mapping[str, Any], source: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for name, written in source.items():
        key, value = at + name, own.get(name)
        if key in _NO_CHANGE or value == written:
            continue
        if key == _EPOCHS and value is not None and value < written:
            continue
        if isinstance(written, dict) and isinstance(value, dict):
            yield from _differences(value, written, key + ".")
        elif isinstance(written, dict):
            yield f"without {key}"
        elif isinstance(value, dict):
            yield f"with {key}"
        else:
            yield f"{key} {_shown(value)} instead of {_shown(written)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
