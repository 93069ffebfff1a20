"""An ECG before and after preparation on one sheet of paper: a picture, or a page with findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from einthoven.errors import FileError
from einthoven.records import Record
from einthoven.records.limb_leads import derive_limb_leads
from einthoven.report.ecg import SHEET
from einthoven.report.frame import framed
from einthoven.report.markup import Html, element, figure
from einthoven.report.paper import Row, Strip, paper_figure
from einthoven.report.svg import drawing, to_svg

__all__ = ["FORMATS", "before_and_after"]

FORMATS = (".html", ".png", ".svg")
_MM_PER_UNIT = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
_TALLEST = 20.0  # mm over or below a baseline, for all but a thousandth of the samples
_DPI = 110


def before_and_after(
    record: Record,
    prepared: NDArray[np.float32],
    leads: Sequence[str],
    *,
    rate: float,
    file: Path,
    start: float = 0.0,
    title: str = "Before and after preparation",
    findings: Sequence[str] = (),
) -> None:
    """Draw a record, and below each lead what a backbone would receive of it.

    Recordings are drawn about their median at 10 mm/mV, or less where they are taller; leads that
    the preparation computes are drawn as computed, and marked. Prepared leads have one scale of
    their own, in the network's unit; both pulses are one unit high. Neither name nor patient of the
    record is printed.

    Parameters
    ----------
    record : Record
        As it was read, mV.
    prepared : array, shape (leads, samples)
        A crop after preparation.
    leads : sequence of str
        Names of the prepared rows.
    rate : float
        Sampling rate of the prepared crop, Hz.
    file : Path
        What to write: .png, .svg, or .html, which has the findings above the picture.
    start : float
        Where the crop begins in the record, s.
    title : str
    findings : sequence of str
        Paragraphs of the page.

    Raises
    ------
    FileError
        For another kind of file, or one that cannot be written.
    """
    kind = file.suffix.lower()
    if kind not in FORMATS:
        raise FileError(
            f"{file}: {kind or 'no ending'} is no format of a picture",
            remedy=f"end the name with {', '.join(FORMATS)}.",
        )
    with drawing():
        sheet = _sheet(record, prepared, leads, rate=rate, start=start, title=title)
        try:
            if kind == ".png":
                sheet.savefig(file, dpi=_DPI, format="png")
                return
            svg = to_svg(sheet, name="doctor", alt=f"{title}: {', '.join(leads)}")
            text = svg if kind == ".svg" else _page(svg, title, findings)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise FileError(
                f"{file} cannot be written: {error.strerror}", remedy="name another place."
            ) from error


def _sheet(
    record: Record,
    prepared: NDArray[np.float32],
    leads: Sequence[str],
    *,
    rate: float,
    start: float,
    title: str,
) -> Figure:
    whole = derive_limb_leads(record)
    # A recording that is longer than a sheet is shown where the crop is.
    crop = prepared.shape[1] / rate
    begin = 0.0 if start + crop <= SHEET else start
    shown = slice(round(begin * record.rate), round((begin + max(SHEET, crop)) * record.rate))
    before = [_about_median(whole.signal[whole.leads.index(lead)][shown]) for lead in leads]
    after = [row.astype(np.float64) for row in prepared]
    per_mv, per_unit = _scale(before), _scale(after)
    rows: list[Row] = []
    for lead, voltage, row in zip(leads, before, after, strict=True):
        name = lead if lead in record.leads else f"{lead} (computed)"
        rows.append([Strip(name, 0.0, record.rate, per_mv * voltage)])
        rows.append([Strip(f"{lead}, prepared", start - begin, rate, per_unit * row)])
    caption = (
        f"25 mm/s · recorded: {per_mv:g} mm/mV, {record.rate:g} Hz · "
        f"prepared: {per_unit:g} mm/unit, {rate:g} Hz"
    )
    pulses = [per_mv, per_unit] * len(leads)
    return paper_figure(rows, title=title, caption=caption, pulses=pulses)


def _about_median(voltage: NDArray[np.float32]) -> NDArray[np.float64]:
    values = voltage.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    known = values[~np.isnan(values)]
    return values - (np.median(known) if known.size else 0.0)


def _scale(rows: Sequence[NDArray[np.float64]]) -> float:
    """The largest of some round scales at which the rows fit between baselines."""
    values = np.abs(np.concatenate(rows))
    known = values[~np.isnan(values)]
    reach = float(np.quantile(known, 0.999)) if known.size else 0.0
    fitting = (each for each in _MM_PER_UNIT if each * reach <= _TALLEST)
    return next(fitting, _MM_PER_UNIT[-1])


def _page(svg: str, title: str, findings: Sequence[str]) -> str:
    said = element("ul", *(element("li", each.strip()) for each in findings))
    caption = "Each lead as recorded, and below it as the network receives it."
    drawn = figure("figure-doctor", element("div", Html(svg), class_="wide"), caption)
    return framed(title, element("header", element("h1", title)), element("main", said, drawn))
