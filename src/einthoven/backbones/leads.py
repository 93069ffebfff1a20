"""Leads by name: which rows of a lead-wise table an input uses, and which follow from others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from einthoven.errors import BackboneError
from einthoven.records.limb_leads import derivable_leads, derivation
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.steps import Derive

__all__ = [
    "canonical_leads",
    "check_leads",
    "derive_leads",
    "lead_rows",
    "on_twelve_leads",
    "with_derived",
]

_ROW = {name.lower(): row for row, name in enumerate(STANDARD_LEADS)}


def lead_rows(leads: Sequence[str]) -> list[int]:
    """Positions of the named leads among the twelve standard ones.

    Parameters
    ----------
    leads : sequence of str
        Lead names, in any order and any case.

    Raises
    ------
    BackboneError
        If a name is unknown, comes twice, or none is given.
    """
    if isinstance(leads, str):
        leads = (leads,)
    unknown = [name for name in leads if name.lower() not in _ROW]
    if unknown or not leads:
        raise BackboneError(
            f"leads = {tuple(leads)!r}: {unknown or 'nothing'} is not among {STANDARD_LEADS}",
            remedy="name the leads of the input's rows, for example leads=('II', 'V1').",
        )
    rows = [_ROW[name.lower()] for name in leads]
    if len(set(rows)) < len(rows):
        raise BackboneError(
            f"leads = {tuple(leads)!r} names a lead twice",
            remedy="give every lead once.",
        )
    return rows


def canonical_leads(leads: Sequence[str]) -> tuple[str, ...]:
    """The same leads in their standard spelling; refuses what `lead_rows` refuses."""
    return tuple(STANDARD_LEADS[row] for row in lead_rows(leads))


def check_leads(x: Tensor, leads: Sequence[str]) -> None:
    """Refuse an input whose rows are not the named leads.

    Parameters
    ----------
    x : Tensor, shape (batch, leads, samples)
    leads : sequence of str
        Names of the rows.

    Raises
    ------
    BackboneError
        If x has another number of axes or of rows.
    """
    if x.ndim != 3 or x.shape[1] != len(leads):
        raise BackboneError(
            f"input of shape {tuple(x.shape)} for {len(leads)} leads {tuple(leads)}",
            remedy="give (batch, leads, samples), and leads=(...) with one name for each row.",
        )


def on_twelve_leads(x: Tensor, leads: Sequence[str]) -> Tensor:
    """(batch, leads, samples) to (batch, 12, samples) in the standard order, missing leads zero."""
    rows = lead_rows(leads)
    if rows == list(range(len(STANDARD_LEADS))):
        return x
    whole = x.new_zeros(len(x), len(STANDARD_LEADS), x.shape[-1])
    whole[:, rows] = x
    return whole


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


def derive_leads(x: Tensor, leads: Sequence[str]) -> Tensor:
    """Append the limb leads that follow from the given ones, see `einthoven.records.limb_leads`.

    What was measured is left as it is.

    Parameters
    ----------
    x : Tensor, shape (batch, leads, samples)
        In mV, or in mV times a factor that all leads share. Once a mean has been subtracted, or
        each lead has been scaled on its own, the relations do not hold.
    leads : sequence of str
        Names of the rows.

    Returns
    -------
    Tensor, shape (batch, leads + derived, samples)
        The derived leads last, in the order of `derivable_leads`.

    Raises
    ------
    BackboneError
        If names and rows do not agree.
    """
    check_leads(x, leads)
    if not derivable_leads(leads):
        return x
    names = canonical_leads(leads)
    pair, shares = derivation(leads)
    first, second = (x[:, names.index(lead), None] for lead in pair)
    weights = torch.from_numpy(shares).to(x)[:, :, None]
    # Two products and a sum, which autocast leaves in full precision, unlike a matrix product.
    return torch.cat([x, weights[:, 0] * first + weights[:, 1] * second], dim=1)
