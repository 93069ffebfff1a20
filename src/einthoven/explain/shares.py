"""Shares of an attribution by lead, by wave and by beat, as numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from einthoven.explain.attribution import Attribution
from einthoven.explain.beats import WAVES, Segment, segment_of, segments
from einthoven.explain.methods import Part
from einthoven.records.record import STANDARD_LEADS, Record

_MOST_LEADS = 3  # in a phrase
_ENOUGH = 0.8  # of a wave's share, from which on a phrase needs no further lead
_NAMES = {"P": "P windows", "QRS": "QRS", "ST-T": "ST-T", "TP": "pauses between beats"}


@dataclass(frozen=True, eq=False)
class Shares:
    """Where the evidence for a label lies.

    Values are summed within each window of each lead, so that what cancels there does not count;
    the positive sums are divided by their total.

    Attributes
    ----------
    windows : tuple of Segment
        Windows of all beats, in order.
    leads : tuple of str
    table : numpy.ndarray
        (windows, leads), of sum 1; all 0 without positive values.
    against : float
        Negative sums as a share of the magnitudes of all sums.
    resolves : tuple of {"lead", "beat", "wave"}
        What the method tells apart (`Attribution.resolves`).
    """

    windows: tuple[Segment, ...]
    leads: tuple[str, ...]
    table: NDArray[np.float64]
    against: float
    resolves: tuple[Part, ...]

    @property
    def by_lead(self) -> dict[str, float]:
        """Share of each lead."""
        return dict(zip(self.leads, self.table.sum(axis=0).tolist(), strict=True))

    @property
    def by_wave(self) -> dict[str, float]:
        """Share of the P, QRS, ST-T and TP windows of all beats."""
        return {wave: float(self.of_wave(wave).sum()) for wave in WAVES}

    @property
    def by_beat(self) -> dict[int, float]:
        """Share of each beat, from 1; 0 is what precedes the first one."""
        beats = dict.fromkeys((part.beat for part in self.windows), 0.0)
        for part, row in zip(self.windows, self.table, strict=True):
            beats[part.beat] += float(row.sum())
        return beats

    def of_wave(self, wave: str) -> NDArray[np.float64]:
        """Share of each lead in the windows of a wave, (leads,)."""
        rows = [part.wave == wave for part in self.windows]
        return np.asarray(self.table[rows].sum(axis=0))

    def in_words(self) -> str:
        """Describe the largest share, such as `62 % in the QRS of V1 to V3`."""
        if not self.table.any():
            return "no evidence for the label"
        if "wave" not in self.resolves and "beat" in self.resolves:
            beat, share = max(self.by_beat.items(), key=lambda item: item[1])
            start = min(part.start for part in self.windows if part.beat == beat)
            return f"{_percent(share)} in beat {beat}, from {start:.1f} s on"
        place, by_lead = "", self.table.sum(axis=0)
        if "wave" in self.resolves:
            wave = max(WAVES, key=lambda each: float(self.of_wave(each).sum()))
            place, by_lead = f"the {_NAMES[wave]}", self.of_wave(wave)
        if "lead" not in self.resolves:
            return f"{_percent(by_lead.sum())} in {place}"
        order = np.argsort(-by_lead, kind="stable")
        enough = np.cumsum(by_lead[order]) >= _ENOUGH * by_lead.sum()
        first = order[: min(int(enough.argmax()) + 1, _MOST_LEADS)]
        leads = listed_leads([self.leads[i] for i in first])
        where = f"{place} of {leads}" if place else leads
        return f"{_percent(by_lead[first].sum())} in {where}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def shares_of(attribution: Attribution, record: Record) -> Shares:
    """Divide an attribution among the windows of the record's beats."""
    windows = segments(record)
    values = attribution.values.astype(np.float64)
    times = (np.arange(values.shape[1], dtype=np.float64) + 0.5) / attribution.rate
    places = segment_of(windows, times)
    sums = np.stack([np.bincount(places, row, len(windows)) for row in values], axis=1)
    positive, magnitude = np.maximum(sums, 0.0), np.abs(sums).sum()
    total = positive.sum()
    return Shares(
        windows,
        attribution.leads,
        positive / total if total else positive,
        float(np.maximum(-sums, 0).sum() / magnitude) if magnitude else 0.0,
        attribution.resolves,
    )


def listed_leads(leads: Sequence[str]) -> str:
    """Join lead names in the standard order; neighbouring chest leads as `V1 to V3`."""
    order = [lead for lead in STANDARD_LEADS if lead in leads]
    order += [lead for lead in leads if lead not in order]
    runs: list[list[str]] = []
    for lead in order:
        follows = runs and (runs[-1][-1], lead) in pairwise(STANDARD_LEADS[6:])
        runs[-1].append(lead) if follows else runs.append([lead])
    names: list[str] = []
    for run in runs:
        names += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else run
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
