"""Terms that travel with weights: from a public file to whatever is trained from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Licence", "LicenceWarning", "is_non_commercial", "joined", "terms_of"]

_SIGNS = ("non commercial", "noncommercial", "by nc")


class LicenceWarning(UserWarning):
    """A model whose weights must not be used commercially."""


@dataclass(frozen=True)
class Licence:
    """Terms of use of weights or data.

    Attributes
    ----------
    id : str
        SPDX identifier, or `other` for terms without one, or `unknown`.
    text : str
        The terms in words: attribution, exceptions, where they are stated.
    commercial_use : bool or None
        Whether commercial use is allowed; None where the terms do not state it, or are unknown.
    """

    id: str = "unknown"
    text: str = ""
    commercial_use: bool | None = None

    def __str__(self) -> str:
        if not self.text:
            return self.id
        return self.text if self.id in ("other", "unknown") else f"{self.id}: {self.text}"

    def to_dict(self) -> dict[str, Any]:
        """The entries `license`, `license_text` and `commercial_use` of a model's config.json."""
        return {
            "license": self.id,
            "license_text": self.text,
            "commercial_use": self.commercial_use,
        }

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Licence:
        """The licence that `to_dict` wrote; an unknown one where the entries are missing."""
        return cls(
            str(entries.get("license") or "unknown"),
            str(entries.get("license_text") or ""),
            entries.get("commercial_use"),
        )


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
