"""From finished runs to the sections of a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from einthoven.reproduce.evidence import Evidence, Group
from einthoven.reproduce.experiments import OURS, PLAIN
from einthoven.reproduce.figures import figure_2, figure_3, figure_4, figure_5
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.sections import Section, write_sections
from einthoven.reproduce.tables import grid_table, table_1, table_2
from einthoven.run_report import write_run_report

SECTIONS: dict[str, Callable[[Evidence], Section]] = {
    "table-1": table_1,
    "table-2": table_2,
    "figure-2": figure_2,
    "figure-3": figure_3,
    "figure-4": figure_4,
    "figure-5": figure_5,
    "grid": grid_table,
}


def write(request: Request, what: str, page: Path) -> list[Path]:
    """Write a table or figure, or all of them, from the runs that are finished.

    Parameters
    ----------
    request : Request
    what : str
        A table or figure, or `grid`: all of them.
    page : Path
        Markdown; sections go between their markers, figures and JSON into `figures/` beside it.

    Returns
    -------
    list of Path
        Every file that was written, the page first.
    """
    evidence = Evidence(request)
    names = list(SECTIONS) if what == "grid" else [what]
    written = write_sections(page, [SECTIONS[name](evidence) for name in names])
    report = _report(evidence)
    return [*written, report] if report else written


def _report(evidence: Evidence) -> Path | None:
    """The HTML page of the main task's first seed: every arm that is finished, beside plain."""
    request = evidence.request
    task = request.experiment.main_task
    groups = [Group(request.backbone, arm, task) for arm in (OURS, *request.experiment.arms)]
    cells = {group.arm: evidence.cells(group)[0] for group in groups}
    done = [cell for cell in cells.values() if evidence.state(cell) is State.DONE]
    folders = [request.run_folder(cell) for cell in done]
    if len(done) < 2 or cells[PLAIN] not in done:
        return None
    return write_run_report(
        folders,
        request.out / "report.html",
        reference=request.run_folder(cells[PLAIN]),
        resamples=request.experiment.resamples,
    )
