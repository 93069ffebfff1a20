"""Licences of weights and data: they apply to every model that is trained from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CC_BY_4", "OWN_DATA", "SIMULATED", "UNKNOWN", "Licence", "LicenceWarning", "combined"]


def __dir__() -> list[str]:
    return sorted(__all__)


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
        Whether commercial use is allowed; None if the terms do not state it or are unknown.
    """

    id: str = "unknown"
    text: str = ""
    commercial_use: bool | None = None

    def __str__(self) -> str:
        if not self.text:
            return self.id
        return self.text if self.id in ("other", "unknown") else f"{self.id}: {self.text}"

    def to_dict(self) -> dict[str, Any]:
        """Entries `license`, `license_text` and `commercial_use` of a model's config.json."""
        return {
            "license": self.id,
            "license_text": self.text,
            "commercial_use": self.commercial_use,
        }

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Licence:
        """Read the entries of `to_dict`; an unknown licence if they are missing."""
        return cls(
            str(entries.get("license") or UNKNOWN.id),
            str(entries.get("license_text") or ""),
            entries.get("commercial_use"),
        )


UNKNOWN = Licence()
CC_BY_4 = Licence(
    "CC-BY-4.0", "trained on PTB-XL; attribute Wagner et al., Scientific Data 7:154, 2020", True
)
OWN_DATA = Licence(
    "other", "trained on the user's data; terms are set by the owner of the data", None
)
SIMULATED = Licence("other", "trained on simulated ECGs; no third-party rights", True)


def combined(*licences: Licence) -> Licence:
    """Licence of a model that depends on all of these: data and initial weights.

    Commercial use is allowed if all of them allow it, and forbidden if one of them forbids it.
    """
    different = list(dict.fromkeys(licences))
    if len(different) < 2:
        return different[0] if different else UNKNOWN
    identifiers = {licence.id for licence in different}
    allowed = {licence.commercial_use for licence in different}
    return Licence(
        identifiers.pop() if len(identifiers) == 1 else "other",
        "; ".join(str(licence) for licence in different),
        False if False in allowed else None if None in allowed else True,
    )
