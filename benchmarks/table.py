"""One row a measurement, measured and printed the same way by every benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measurement against its baseline.

    Attributes
    ----------
    name : str
        What was measured.
    ours, baseline : float
        Wall-clock seconds, or megabytes (10^6 bytes).
    target : float or None
        For seconds, the least ratio baseline / ours; for megabytes, the largest difference
        ours - baseline.
    note : str
        How it was measured, and the largest deviation from the baseline's result.
    cpu_ratio : float or None
        The ratio in CPU time over all threads, which an otherwise busy machine changes least.
    unit : {"s", "MB"}
        What `ours` and `baseline` are counted in.
    """

    name: str
    ours: float
    baseline: float
    target: float | None = None
    note: str = ""
    cpu_ratio: float | None = None
    unit: Literal["s", "MB"] = "s"

    @property
    def result(self) -> float:
        """The ratio, or the difference in megabytes."""
        return self.baseline / self.ours if self.unit == "s" else self.ours - self.baseline

    @property
    def reached(self) -> bool | None:
        """Whether the target was reached; None without one."""
        if self.target is None:
            return None
        return self.result >= self.target if self.unit == "s" else self.result <= self.target

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"result": self.result, "reached": self.reached}


class Times(NamedTuple):
    """Seconds that a call took: by the clock, and on processors over all threads."""

    wall: float
    cpu: float


def timed(call: Callable[[], object]) -> Times:
    """Time one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def fastest(times: Sequence[Times]) -> Times:
    """The least of each: whatever else the machine does only ever adds time."""
    return Times(min(t.wall for t in times), min(t.cpu for t in times))


def alternately(
    ours: Callable[[], object], baseline: Callable[[], object], rounds: int
) -> tuple[Times, Times]:
    """The fastest of several calls of both, made in turn so that both see the same machine."""
    pairs = [(timed(ours), timed(baseline)) for _ in range(rounds)]
    return fastest([pair[0] for pair in pairs]), fastest([pair[1] for pair in pairs])


def speed_row(
    name: str,
    ours: Times,
    baseline: Times,
    *,
    per: int = 1,
    target: float | None = None,
    note: str = "",
) -> Row:
    """A row from times, given for each of `per` things done."""
    ratio = baseline.cpu / ours.cpu
    return Row(name, ours.wall / per, baseline.wall / per, target, note, cpu_ratio=ratio)


def print_table(rows: Sequence[Row], *, title: str = "") -> None:
    """Print the rows as a table."""
    table = Table(title=title or None)
    numbers = ("ours", "baseline", "ratio", "CPU ratio", "target")
    for heading in ("what", *numbers, "reached", "note"):
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for row in rows:
        sizes = f"{row.ours:.4g} {row.unit}", f"{row.baseline:.4g} {row.unit}"
        reached = {None: "", True: "yes", False: "no"}[row.reached]
        table.add_row(row.name, *sizes, *_figures(row), reached, row.note)
    # Where there is no terminal, rich would fold the notes to 80 columns.
    Console(width=max(Console().width, 140)).print(table)


def _figures(row: Row) -> tuple[str, str, str]:
    if row.unit == "MB":
        return f"{row.result:+.1f} MB", "", "" if row.target is None else f"≤ {row.target:g} MB"
    cpu = "" if row.cpu_ratio is None else f"{row.cpu_ratio:,.1f}x"
    return f"{row.result:,.1f}x", cpu, "" if row.target is None else f"≥ {row.target:,g}x"
