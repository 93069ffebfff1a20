"""One row a measurement, printed the same way by every benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measurement against its baseline.

    Attributes
    ----------
    name : str
        What was timed.
    ours_s, baseline_s : float
        Seconds.
    ratio : float
        baseline_s / ours_s.
    target : float or None
        The ratio that is to be reached.
    note : str
        How it was measured, and the largest deviation from the baseline's result.
    """

    name: str
    ours_s: float
    baseline_s: float
    ratio: float
    target: float | None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`yes` or `no`: whether the target was reached; empty without one."""
        return "" if self.target is None else "yes" if self.ratio >= self.target else "no"


def print_table(rows: Sequence[Row], *, title: str = "") -> None:
    """Print the rows as a table."""
    table = Table(title=title or None)
    for heading in ("what", "ours (s)", "baseline (s)", "ratio", "target", "reached", "note"):
        right = heading not in ("what", "reached", "note")
        table.add_column(heading, justify="right" if right else "left")
    for row in rows:
        target = "" if row.target is None else f"{row.target:,.0f}x"
        times = f"{row.ours_s:.4g}", f"{row.baseline_s:.4g}", f"{row.ratio:,.1f}x"
        table.add_row(row.name, *times, target, row.verdict, row.note)
    # Where there is no terminal, rich would fold the notes to 80 columns.
    Console(width=max(Console().width, 120)).print(table)
