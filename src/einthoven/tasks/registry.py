"""The catalogue of kinds of targets."""

from __future__ import annotations

from difflib import get_close_matches

from einthoven.errors import CohortError
from einthoven.extensions import import_extensions
from einthoven.tasks.classes import Multiclass
from einthoven.tasks.kind import Kind
from einthoven.tasks.labels import Binary, Multilabel, Threshold
from einthoven.tasks.values import Regression

_KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Multilabel(), Binary(), Threshold(), Multiclass(), Regression())
}


def kind_names() -> list[str]:
    """Every registered name."""
    import_extensions()
    return list(_KINDS)


def register_kind(kind: Kind) -> None:
    """Add a kind of target to the catalogue.

    Raises
    ------
    CohortError
        If the name belongs to another kind.
    """
    if _KINDS.setdefault(kind.name, kind) is not kind:
        raise CohortError(
            f"the name {kind.name!r} belongs to another kind of target",
            remedy="choose another name",
        )


def kind_of(name: str) -> Kind:
    """Look a kind up.

    Raises
    ------
    CohortError
        For an unknown name.
    """
    if name not in _KINDS and name not in kind_names():
        near = get_close_matches(name, _KINDS, n=1)
        raise CohortError(
            f"unknown kind of target {name!r}" + (f" (did you mean {near[0]}?)" if near else ""),
            remedy=f"choose {', '.join(_KINDS)}",
        )
    return _KINDS[name]
