"""Leads by name: rows of an input, limb leads that follow from others, and inputs with some leads.

Limb leads that follow from two recorded ones are computed in millivolts, before anything else,
whatever the network: they equal what would have been recorded. Treatment of the other missing leads
depends on the network: ST-MEM has fewer tokens, MTECG and S4 have a smaller kernel,
ECGFounder and ECG-FM read zeros, and some refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from einthoven.errors import BackboneError
from einthoven.records.limb_leads import derivable_leads, derivation
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.steps import Derive

if TYPE_CHECKING:
    from torch import Tensor

_ROW = {name.lower(): row for row, name in enumerate(STANDARD_LEADS)}


def lead_rows(leads: Sequence[str]) -> list[int]:
    """Positions of leads among the twelve standard ones; names in any order and any case.

    Raises
    ------
    BackboneError
        If a name is unknown or repeated, or there is none.
    """
    if isinstance(leads, str):
        leads = (leads,)
    unknown = [name for name in leads if name.lower() not in _ROW]
    if unknown or not leads:
        raise BackboneError(
            f"unknown lead {', '.join(unknown)}" if unknown else "no lead is named",
            remedy=f"choose among {', '.join(STANDARD_LEADS)}",
        )
    rows = [_ROW[name.lower()] for name in leads]
    if len(set(rows)) < len(rows):
        raise BackboneError(
            f"leads = {tuple(leads)!r} names a lead twice",
            remedy="give every lead once",
        )
    return rows


def canonical_leads(leads: Sequence[str]) -> tuple[str, ...]:
    """The same leads in their standard spelling; refuses what `lead_rows` refuses."""
    return tuple(STANDARD_LEADS[row] for row in lead_rows(leads))


def check_leads(x: Tensor, leads: Sequence[str]) -> None:
    """Refuse an input that is not (batch, leads, samples) with a row for each name.

    Raises
    ------
    BackboneError
        If x has another number of axes or of rows.
    """
    if x.ndim != 3 or x.shape[1] != len(leads):
        raise BackboneError(
            f"input of shape {tuple(x.shape)} for {len(leads)} leads {tuple(leads)}",
            remedy="give (batch, leads, samples), and leads=(...) with one name for each row",
        )


def on_twelve_leads(x: Tensor, leads: Sequence[str]) -> Tensor:
    """Map (batch, leads, samples) to (batch, 12, samples) in standard order, missing leads zero."""
    rows = lead_rows(leads)
    if rows == list(range(len(STANDARD_LEADS))):
        return x
    whole = x.new_zeros(x.shape[0], len(STANDARD_LEADS), x.shape[-1])
    whole[:, rows] = x
    return whole


def weight_of_leads(weight: Tensor, leads: Sequence[str]) -> Tensor:
    """Restrict a weight (outputs, 12, ...) to some leads: the missing ones count as zero."""
    rows = lead_rows(leads)
    return weight if rows == list(range(len(STANDARD_LEADS))) else weight[:, rows]


def with_derived(leads: Sequence[str]) -> tuple[tuple[str, ...], tuple[Derive, ...]]:
    """Rows of an input made from recorded leads, and the step that computes those that follow.

    Parameters
    ----------
    leads : sequence of str
        Leads that records have.

    Returns
    -------
    rows : tuple of str
        The same leads in their standard spelling; when limb leads follow from two of them, those
        too, and all in the standard order.
    steps : tuple of Derive
        What a Preparation has to begin with: one step, or none where nothing follows.
    """
    recorded = canonical_leads(leads)
    derivable = derivable_leads(recorded)
    if not derivable:
        return recorded, ()
    pair, _ = derivation(recorded)
    rows = tuple(lead for lead in STANDARD_LEADS if lead in (*recorded, *derivable))
    return rows, (Derive(derivable, pair),)


def subset_of(leads: Sequence[str], all_leads: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Available leads of a network, in its order, and with those that follow from them.

    Raises
    ------
    BackboneError
        If the network was not built for one of the leads.
    """
    available = canonical_leads(leads)
    unknown = [lead for lead in available if lead not in all_leads]
    if unknown:
        raise BackboneError(
            f"{', '.join(unknown)} is not among the leads that this network reads, "
            f"{', '.join(all_leads)}",
            remedy="name some of the leads that it reads",
        )
    rows = {*available, *derivable_leads(available)}
    return tuple(tuple(lead for lead in all_leads if lead in some) for some in (available, rows))
