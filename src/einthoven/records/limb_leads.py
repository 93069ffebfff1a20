"""Limb leads: any two of the six determine the other four.

Einthoven's law and Goldberger's definition of the augmented leads, in millivolts:

    III = II - I    aVR = -(I + II) / 2    aVL = I - II / 2    aVF = II - I / 2

They hold for voltages, and no longer once leads are filtered or scaled apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from einthoven.records.record import Record, canonical_lead

# Shares of I and of II, in the standard order.
LIMB_LEADS = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}


def derivable_leads(leads: Iterable[str]) -> tuple[str, ...]:
    """Limb leads that can be computed from some leads, without those; case does not matter.

    In the standard order; empty with fewer than two limb leads. Chest leads never follow.
    """
    limb = {canonical_lead(lead) for lead in leads} & set(LIMB_LEADS)
    return tuple(lead for lead in LIMB_LEADS if len(limb) >= 2 and lead not in limb)


def derivation(leads: Iterable[str]) -> tuple[tuple[str, str], NDArray[np.float64]]:
    """Linear map from two limb leads to the leads of `derivable_leads`.

    Parameters
    ----------
    leads : iterable of str
        Names of the leads at hand, two limb leads at least.

    Returns
    -------
    pair : (str, str)
        The two that the others are computed from: the first limb leads of the record in the
        standard order. Further ones are ignored, even if they contradict these two;
        `einthoven doctor` looks for that.
    shares : ndarray, shape (derivable leads, 2)
        Share of each of the two.
    """
    names = list(leads)
    limb = {canonical_lead(lead) for lead in names}
    first, second = [lead for lead in LIMB_LEADS if lead in limb][:2]
    rows = np.array([LIMB_LEADS[lead] for lead in derivable_leads(names)]).reshape(-1, 2)
    pair = np.array([LIMB_LEADS[first], LIMB_LEADS[second]])
    shares: NDArray[np.float64] = rows @ np.linalg.inv(pair)
    return (first, second), shares


def derive_limb_leads(record: Record) -> Record:
    """Add the limb leads that a record lacks and that follow from two it has.

    Parameters
    ----------
    record : Record
        In millivolts, as read.

    Returns
    -------
    Record
        The record itself when nothing follows. Otherwise with the derived leads behind its own,
        and their names under `derived_leads` in its metadata. A sample is NaN where one of the
        two leads it comes from is.
    """
    missing = derivable_leads(record.leads)
    if not missing:
        return record
    pair, shares = derivation(record.leads)
    rows = [record.leads.index(lead) for lead in pair]
    derived = (shares @ record.signal[rows].astype(np.float64)).astype(np.float32)
    signal = np.concatenate([record.signal, derived])
    signal.flags.writeable = False
    return replace(
        record,
        signal=signal,
        leads=(*record.leads, *missing),
        metadata={**record.metadata, "derived_leads": ", ".join(missing)},
    )
