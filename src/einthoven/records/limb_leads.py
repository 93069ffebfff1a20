"""Limb leads: any two of the six determine the other four.

Einthoven's law and Goldberger's definition of the augmented leads, in millivolts:

    III = II - I    aVR = -(I + II) / 2    aVL = I - II / 2    aVF = II - I / 2

They hold for voltages, and no longer once leads are filtered or scaled apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations, compress

import numpy as np
from numpy.typing import NDArray

from einthoven.records.calibration import without_calibration
from einthoven.records.digital import blocks
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


def repair_leads(record: Record) -> Record:
    """Leave out what is no ECG, and compute invalid samples of limb leads.

    A calibration pulse at the end (`records/calibration.py`) and leads without a valid sample are
    left out. An invalid sample of a limb lead is computed from two other limb leads that are valid
    at the same time.

    Parameters
    ----------
    record : Record
        In millivolts, as read; NaN marks invalid samples.

    Returns
    -------
    Record
        The record itself if it has neither a pulse nor an invalid sample. Otherwise with the
        number of computed samples of each lead under `repaired_leads` in its metadata. Invalid
        samples that follow from nothing stay NaN, and a record without any valid sample stays as
        it is.
    """
    record = without_calibration(record)
    invalid = np.isnan(record.signal)
    if not invalid.any() or invalid.all():
        return record
    rows = np.flatnonzero(~invalid.all(axis=1))
    leads, signal, invalid = [record.leads[row] for row in rows], record.signal[rows], invalid[rows]
    limb = [row for row, lead in enumerate(leads) if lead in LIMB_LEADS]
    repaired = {}
    for row in limb:
        gaps = invalid[row].copy()
        for one, other in combinations([place for place in limb if place != row], 2):
            here = gaps & ~invalid[one] & ~invalid[other]
            if here.any():
                (first, second), shares = derivation([leads[one], leads[other]])
                pair = [leads.index(first), leads.index(second)]
                place = derivable_leads([first, second]).index(leads[row])
                values = record.signal[rows[pair]][:, here].astype(np.float64)
                signal[row, here] = shares[place] @ values
                gaps &= ~here
        if count := int(invalid[row].sum() - gaps.sum()):
            repaired[leads[row]] = count
    signal.flags.writeable = False
    note = ", ".join(f"{lead} ({count} samples)" for lead, count in repaired.items())
    metadata = {**record.metadata, **({"repaired_leads": note} if note else {})}
    return replace(record, signal=signal, leads=tuple(leads), metadata=metadata)


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
    samples = record.signal.shape[1]
    signal = np.empty((len(record.leads) + len(missing), samples), np.float32)
    signal[: len(record.leads)] = record.signal
    for part, computed in zip(
        blocks(record.signal), blocks(signal[len(record.leads) :]), strict=True
    ):
        computed[:] = shares @ part[rows].astype(np.float64)
    signal.flags.writeable = False
    return replace(
        record,
        signal=signal,
        leads=(*record.leads, *missing),
        metadata={**record.metadata, "derived_leads": ", ".join(missing)},
    )


@dataclass(frozen=True)
class Contradiction:
    """What the laws of the limb leads leave unexplained in a recording.

    Attributes
    ----------
    share : float
        Root mean square of the difference from the closest leads that obey the laws, relative to
        that of the leads, 0 to 1. Offsets are not counted.
    millivolts : float
        Largest difference, mV.
    explained : tuple of str
        The two leads without whose exchange, or the lead without whose inversion, the laws would
        hold; empty unless it is one such pair or lead.
    """

    share: float
    millivolts: float
    explained: tuple[str, ...] = ()


_HELD = 0.02  # share up to which the laws count as obeyed; that of 99 % of PTB-XL is below 0.01


def contradiction(record: Record) -> Contradiction | None:
    """Measure how far the limb leads of a recording are from obeying the laws.

    None with fewer than three limb leads that are not constant, or without a sample that all have.
    """
    names = [lead for lead in LIMB_LEADS if lead in record.leads]
    x = record.signal[[record.leads.index(lead) for lead in names]].astype(np.float64)
    x = x[:, np.isfinite(x).all(axis=0)]
    varying = (x != x[:, :1]).any(axis=1)
    if varying.sum() < 3:
        return None
    names, x = list(compress(names, varying)), x[varying]
    x -= x.mean(axis=1, keepdims=True)
    laws = np.array([LIMB_LEADS[lead] for lead in names])
    outside = np.eye(len(laws)) - laws @ np.linalg.pinv(laws)  # projects on what breaks the laws
    gram = x @ x.T
    total = max(np.trace(gram), np.finfo(float).tiny)

    def share(change: NDArray[np.float64]) -> float:
        changed = change @ gram @ change.T
        return float(np.sqrt(max(np.trace(outside @ changed), 0.0) / total))

    unit = np.eye(len(names))
    before, largest = share(unit), float(np.abs(outside @ x).max())
    if before <= _HELD:
        return Contradiction(before, largest)
    changes: dict[tuple[str, ...], NDArray[np.float64]] = {}
    for i, j in combinations(range(len(names)), 2):
        changes[names[i], names[j]] = _exchange(unit, i, j)
    for i, name in enumerate(names):
        changes[(name,)] = unit - 2 * np.diag(unit[i])
    holding = [leads for leads, change in changes.items() if share(change) <= _HELD]
    return Contradiction(before, largest, holding[0] if len(holding) == 1 else ())


def _exchange(unit: NDArray[np.float64], i: int, j: int) -> NDArray[np.float64]:
    change = unit.copy()
    change[[i, j]] = unit[[j, i]]
    return change
