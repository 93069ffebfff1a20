"""An ECG as it comes out of a cart: 25 mm/s and 10 mm/mV on millimetre paper."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from einthoven.errors import RecordError
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.report.paper import MM_PER_MV, Row, Strip, paper_figure
from einthoven.report.svg import drawing, to_svg

Layout = Literal["auto", "3x4", "stacked"]

ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
RHYTHM = "II"
SHEET = 10.0  # s that a sheet shows


def ecg_paper(
    record: Record, *, title: str = "", leads_layout: Layout = "auto", name: str = "ecg"
) -> str:
    """Draw an ECG on paper, as SVG in its true size.

    Twelve leads of at least 10 s are drawn in the standard layout: 2.5 s of each lead in three
    rows of four, without a break in time between columns, and 10 s of lead II below. Other records
    are drawn with all their leads one below the other, at most 10 s of them. Every lead is drawn
    about its median; no filter is applied.

    Parameters
    ----------
    record : Record
    title : str
        Above the paper. The record's name and patient are not printed.
    leads_layout : {"auto", "3x4", "stacked"}
    name : str
        Put before the ids in the SVG; give each figure of a page its own.

    Returns
    -------
    str
        One `<svg>` element.

    Raises
    ------
    RecordError
        When the standard layout is asked for and the record has fewer leads or is shorter.
    """
    with drawing():
        figure = ecg_figure(record, title=title, leads_layout=leads_layout)
        return to_svg(figure, name=name, alt=_alt(record))


def ecg_figure(record: Record, *, title: str = "", leads_layout: Layout = "auto") -> Figure:
    """The figure behind `ecg_paper`, for those who save it in another format."""
    standard = leads_layout != "stacked" and fits_standard(record)
    if leads_layout == "3x4" and not standard:
        raise _misfit(record)
    rows = _standard(record) if standard else [[_strip(record, x)] for x in record.leads]
    caption = f"25 mm/s · 10 mm/mV · {record.rate:g} Hz · no display filter"
    return paper_figure(rows, title=title, caption=caption)


def fits_standard(record: Record) -> bool:
    """Whether a record has the twelve leads, for 10 s."""
    long_enough = record.signal.shape[1] >= int(SHEET * record.rate)
    return long_enough and set(STANDARD_LEADS) <= set(record.leads)


def _standard(record: Record) -> list[Row]:
    quarter = SHEET / 4
    rows: list[Row] = [
        [_strip(record, lead, i * quarter, seconds=quarter) for i, lead in enumerate(leads)]
        for leads in ROWS
    ]
    return [*rows, [_strip(record, RHYTHM)]]


def _strip(record: Record, lead: str, start: float = 0.0, *, seconds: float = SHEET) -> Strip:
    voltage = record.signal[record.leads.index(lead)].astype(np.float64)
    known = voltage[~np.isnan(voltage)]
    first, last = (round(time * record.rate) for time in (start, start + seconds))
    # One sample more, so that a strip reaches to where the next one starts.
    shown = voltage[first : last + 1] - (np.median(known) if known.size else 0.0)
    return Strip(lead, first / record.rate, record.rate, MM_PER_MV * shown)


def _alt(record: Record) -> str:
    leads = "the twelve standard leads" if fits_standard(record) else ", ".join(record.leads)
    shown = min(record.duration, SHEET)
    return f"Electrocardiogram, {shown:.3g} s of {leads}, at 25 mm/s and 10 mm/mV"


def _misfit(record: Record) -> RecordError:
    lacking = [lead for lead in STANDARD_LEADS if lead not in record.leads]
    return RecordError(
        record.source or record.name,
        "leads and duration",
        f"{len(record.leads)} leads, {record.duration:.4g} s",
        f"the standard layout shows twelve leads of {SHEET:g} s"
        + (f"; {', '.join(lacking)} not in the record" if lacking else ""),
        remedy='draw it with leads_layout="stacked"',
    )
