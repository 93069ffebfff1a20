"""Terms that travel with weights: from a public file to whatever is trained from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["LicenceWarning", "is_non_commercial", "joined", "terms_of"]

_SIGNS = ("non commercial", "noncommercial", "by nc")


class LicenceWarning(UserWarning):
    """A model whose weights must not be used commercially."""


def is_non_commercial(licence: str | None) -> bool:
    """Whether terms, in words or as an identifier, forbid commercial use."""
    said = re.sub(r"[^a-z]+", " ", (licence or "").lower())
    return any(sign in said for sign in _SIGNS)


def joined(own: str, initial: str | None) -> str:
    """What the licence of a model has to say, given that of the weights that it began with.

    Parameters
    ----------
    own : str
        What its training data ask for.
    initial : str or None
        Terms of the initial weights; empty or None where there are none or none are known.

    Returns
    -------
    str
        `own` alone, unless the initial weights forbid commercial use: then their terms too.
    """
    if not is_non_commercial(initial):
        return own
    begun = f"begun from weights under {initial}: this model is for non-commercial use only"
    return f"{own}; {begun}" if own else begun


def terms_of(about: Mapping[str, Any]) -> str:
    """The terms of a model from its description or its run's: its own and its initial weights'.

    Parameters
    ----------
    about : mapping
        With `licence` and `weights` (`licence`), either of which may be missing.
    """
    own = str(about.get("licence") or "")
    weights = about.get("weights")
    initial = str(weights.get("licence") or "") if isinstance(weights, Mapping) else ""
    return own if initial in own or not is_non_commercial(initial) else joined(own, initial)
