"""Training data of weights, through all generations of models that they were trained from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from einthoven.files import Json
from einthoven.licences import Licence

PTB_XL = "ptb-xl"  # name of a cohort read from PTB-XL's own tables


def training_history(config: Mapping[str, Any]) -> list[Json]:
    """Training data of a model's weights, oldest first.

    Returns
    -------
    list of dict
        One entry for each cohort and stage: `cohort`, `version`, `records`, `recipe`, and
        `task` (None without labels).
    """
    provenance = config.get("provenance") or {}
    cohort = provenance.get("cohort")
    history: list[Json] = list(provenance.get("pretraining") or [])
    if cohort:
        history.append(
            {
                "cohort": cohort.get("name"),
                "version": cohort.get("version"),
                "task": cohort.get("task"),
                "records": cohort.get("training_records"),
                "recipe": (provenance.get("recipe") or {}).get("name"),
            }
        )
    return history


def contains_ptbxl(
    history: Iterable[Mapping[str, Any]], initial: bool | None = False
) -> bool | None:
    """Whether PTB-XL is among the training data; `initial`: among those of the initial weights."""
    return True if any(entry.get("cohort") == PTB_XL for entry in history) else initial


def initial_weights(config: Mapping[str, Any]) -> Json:
    """Name, checksum and licence of a model's weights, as `initial_weights` of another model."""
    name = config.get("name") or config.get("backbone")
    terms = Licence.from_dict(config).to_dict()
    return {"name": name, "sha256": config.get("weights_sha256"), **terms}


def derived_provenance(config: Mapping[str, Any] | None) -> Json:
    """Provenance of weights that were trained further from a model's weights.

    Parameters
    ----------
    config : mapping or None
        The config of the model that training began with; None for random weights.

    Returns
    -------
    dict
        `pretraining`, `public_weights` and `contains_ptbxl`, which is None where the origin of the
        weights is not recorded.
    """
    if config is None:
        return {"pretraining": [], "public_weights": None, "contains_ptbxl": False}
    provenance, history = config.get("provenance") or {}, training_history(config)
    return {
        "pretraining": history,
        "public_weights": provenance.get("public_weights"),
        "contains_ptbxl": contains_ptbxl(history, provenance.get("contains_ptbxl")),
    }
