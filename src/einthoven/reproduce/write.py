"""From finished runs to the sections of a page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from einthoven.progress import Progress
from einthoven.report import write_report
from einthoven.reproduce.bundles import predict_bundles
from einthoven.reproduce.contenders import best_contender
from einthoven.reproduce.earlier import Earlier
from einthoven.reproduce.evidence import Evidence, Group
from einthoven.reproduce.experiments import OURS, PLAIN, TABLE_1
from einthoven.reproduce.figures import figure_2, figure_3, figure_4, figure_5
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import rows_of
from einthoven.reproduce.means import save_means
from einthoven.reproduce.sections import Section, write_sections
from einthoven.reproduce.standings import model_of
from einthoven.reproduce.table_1 import table_1
from einthoven.reproduce.tables import grid_table, table_2
from einthoven.reproduce.wording import command

SECTIONS: dict[str, Callable[[Evidence], Section]] = {
    TABLE_1: table_1,
    "table-2": table_2,
    "figure-2": figure_2,
    "figure-3": figure_3,
    "figure-4": figure_4,
    "figure-5": figure_5,
    "grid": grid_table,
}


def write(
    request: Request,
    what: str,
    page: Path,
    *,
    keep_rows: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a table or figure, or all of them, from the runs that are finished.

    For table 1, the mean predictions of its rows of several networks are saved first, and bundles
    that the rows are held against predict both splits, once.

    Parameters
    ----------
    request : Request
    what : str
        A table or figure, or `grid`: all of them.
    page : Path
        Markdown; sections go between their markers, figures and JSON into `figures/` beside it.
    keep_rows : bool
        Leave the page's numbers of table 1's rows that no run is at hand of.
    progress : callable, optional
        `(what, done, total)`, of predictions.

    Returns
    -------
    list of Path
        Every file that was written, the page first.

    Raises
    ------
    ReproduceError
        When the markers of the page, or what is to be kept of it, are damaged.
    """
    evidence = Evidence(request)
    names = _sections(request, what)
    if TABLE_1 in names:
        predict_bundles(request, progress)
        save_means(evidence)
    make = SECTIONS
    if keep_rows:
        whose = Section(TABLE_1, request.backbone, request.experiment.name, "")
        make = SECTIONS | {TABLE_1: partial(table_1, earlier=Earlier.beside(page, whose.name))}
    sections = [make[name](evidence) for name in names]
    written = write_sections(page, sections)
    report = _report(evidence, what)
    return [*written, report] if report else written


def _sections(request: Request, what: str) -> list[str]:
    """The sections of a page: one, or for `grid` all that the experiment makes."""
    if request.experiment.table_1_only:
        return [TABLE_1]
    return list(SECTIONS) if what == "grid" else [what]


def _report(evidence: Evidence, what: str) -> Path | None:
    """The HTML page of the main task's first seed, with the exact command; None while there are
    no two runs to compare."""
    request, rows = evidence.request, evidence.request.experiment.table_1_only
    folders, reference = _rows_and_best(evidence) if rows else _arms_and_plain(evidence)
    if len(folders) < 2 or reference not in folders:
        return None
    return write_report(
        folders,
        request.out / (f"report-{request.experiment.name}.html" if rows else "report.html"),
        reference=reference,
        resamples=request.experiment.resamples,
        commands=[command(request, what, exact=True)],
    )


def _arms_and_plain(evidence: Evidence) -> tuple[list[Path], Path]:
    """Every arm that is finished, and the run that it is compared with."""
    request = evidence.request
    task = request.experiment.main_task
    groups = [Group(request.backbone, arm, task) for arm in (OURS, *request.experiment.arms)]
    cells = {group.arm: evidence.cells(group)[0] for group in groups}
    done = [cell for cell in cells.values() if evidence.state(cell) is State.DONE]
    return [request.run_folder(cell) for cell in done], request.run_folder(cells[PLAIN])


def _rows_and_best(evidence: Evidence) -> tuple[list[Path], Path | None]:
    """The best post-trained model, and every row that is finished."""
    request = evidence.request
    task = request.experiment.main_task
    best = best_contender(request, task)
    if best is None or best.bundle:  # a page of runs tells how they were trained
        return [], None
    reference = best.model.folders[0][1]
    models = [model_of(evidence, row, task) for row in rows_of(request.experiment) if row.arm]
    done = [evidence.folders(model) for model in models]
    firsts = [folder for runs in done for (folder,) in list(runs.values())[:1]]
    return list(dict.fromkeys([reference, *firsts])), reference
