"""An ECG before and after preparation, as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from einthoven.records import Record


def before_and_after(
    record: Record,
    prepared: NDArray[np.float32],
    leads: tuple[str, ...],
    *,
    rate: float,
    file: Path,
) -> None:
    """Draw a record beside a crop that a backbone would receive, lead by lead.

    Parameters
    ----------
    record : Record
        As it was read, mV.
    prepared : array, shape (leads, samples)
        After preparation, in the backbone's own unit.
    leads : tuple of str
        Names of the prepared rows.
    rate : float
        Sampling rate of the prepared crop, Hz.
    file : Path
        PNG to write.
    """
    figure = Figure(figsize=(14, 1.1 * len(leads) + 1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_2d(figure.subplots(len(leads), 2, sharex="col"))
    for (left, right), lead, row in zip(axes, leads, prepared, strict=True):
        raw = record.signal[record.leads.index(lead)]
        _trace(left, np.arange(len(raw)) / record.rate, raw, lead)
        _trace(right, np.arange(len(row)) / rate, row, "")
    axes[0, 0].set_title(f"as recorded, mV, {record.rate:g} Hz")
    axes[0, 1].set_title(f"as the backbone receives it, {rate:g} Hz")
    for axis in axes[-1]:
        axis.set_xlabel("s")
    figure.savefig(file, dpi=100, format="png")


def _trace(axis: Any, seconds: NDArray[np.float64], values: Any, lead: str) -> None:
    axis.plot(seconds, values, linewidth=0.7, color="black")
    axis.set_ylabel(lead, rotation=0, ha="right", va="center")
    axis.grid(visible=True, linewidth=0.3)
    axis.margins(x=0)
