"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from einthoven.files import write_text
from einthoven.report import facts
from einthoven.report.curves import validation_curves
from einthoven.report.differences import METRICS, label_differences
from einthoven.report.examples import example_section
from einthoven.report.frame import framed, section
from einthoven.report.inputs import Contents, Example, PairedRuns, ReportRun
from einthoven.report.markup import Html, element, figure, fragment
from einthoven.report.numbers import document
from einthoven.report.provenance import provenance
from einthoven.report.results import (
    label_table,
    macro_table,
    paired_table,
    runs_by_label,
    training_table,
)
from einthoven.report.summary import caveats, summary
from einthoven.report.trust import calibration, robustness, subgroups


def build_page(
    runs: Sequence[ReportRun],
    *,
    title: str,
    comparisons: Sequence[PairedRuns] = (),
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
    descriptions: Mapping[str, str] | None = None,
) -> str:
    """Write a report as one HTML page: no scripts, no fonts, no network.

    Every number on the page is a `<data>` element whose value has full precision and stands in
    `report_json` of the same arguments.

    Parameters
    ----------
    runs : sequence of ReportRun
        The first one is what the report is about.
    title : str
    comparisons : sequence of PairedRuns
        Gains are counted from the reference of the first one. None: a page without differences.
    examples : sequence of Example
        ECGs with the first run's probabilities.
    notes : sequence of str
        Paragraphs of the author, below the summary.
    commands : sequence of str
        What makes runs and page again.
    descriptions : mapping of str to str, optional
        Wording of labels.

    Raises
    ------
    EvaluationError
        When there is no run, names repeat, or a comparison does not belong to the runs it names.
    """
    contents = Contents(
        runs, title, comparisons, examples, notes, commands, dict(descriptions or {})
    )
    report = document(contents)
    sections = list(_sections(contents, report))
    main = element("main", *(section(*each) for each in sections))
    return framed(title, _header(report, sections), main)


def write_report(path: str | Path, page: str) -> Path:
    """Write a page, all of it or nothing."""
    file = Path(path)
    write_text(file, page)
    return file


Section = tuple[str, str, Html]


def _sections(contents: Contents, report: dict[str, Any]) -> Iterator[Section]:
    tables, figures = count(1), count(1)
    yield "summary", "Summary", summary(report)
    yield "results", "Results", _results(report, tables)
    if contents.comparisons:
        yield "differences", "Differences by label", _differences(contents, figures)
    if any(run.history for run in contents.runs):
        yield "training", "Training", _training(contents, report, tables, figures)
    yield "labels", "Every label", _labels(report, tables)
    evidence = report["runs"][0]["evidence"]
    if "calibration" in evidence:
        yield "calibration", "Calibration", calibration(report, tables, figures)
    if "subgroups" in evidence:
        yield "subgroups", "Subgroups", subgroups(report, tables)
    if "robustness" in evidence:
        yield "robustness", "Fewer leads and noise", robustness(report, tables)
    if contents.examples:
        yield "examples", "Examples", _examples(contents, report, figures)
    yield "provenance", "Provenance", provenance(report)
    yield "caveats", "Caveats", caveats(report)


def _header(report: dict[str, Any], sections: list[Section]) -> Html:
    asked = facts.asked_of(report["runs"][0]["about"])
    about = f"{facts.text(asked.get('backbone'))} on {facts.cohort_sentence(asked)}"
    links = [
        element("li", element("a", heading, href=f"#{identity}"))
        for identity, heading, _ in sections
    ]
    return element(
        "header",
        element("h1", report["title"]),
        element("p", about, class_="subtitle"),
        element("nav", element("ul", *links), aria_label="Sections"),
    )


def _results(report: dict[str, Any], tables: Iterator[int]) -> Html:
    paired = None
    first = macro_table(report, "auroc", identity="table-auroc", place=next(tables))
    second = macro_table(report, "auprc", identity="table-auprc", place=next(tables))
    if report["comparisons"]:
        paired = paired_table(report, identity="table-paired", place=next(tables))
    return fragment(first, second, paired)


def _differences(contents: Contents, figures: Iterator[int]) -> Html:
    drawn = [_pair_figure(pair, i, next(figures)) for i, pair in enumerate(contents.comparisons)]
    first, *others = drawn
    folded = [
        element("details", element("summary", f"{pair.run} minus {pair.reference}"), each)
        for pair, each in zip(contents.comparisons[1:], others, strict=True)
    ]
    return fragment(first, *folded)


def _pair_figure(pair: PairedRuns, place: int, number: int) -> Html:
    names = (pair.run, pair.reference)
    drawings = [
        Html(label_differences(pair.comparison, m, names=names, name=f"difference-{place}-{m}"))
        for m in METRICS
    ]
    undefined = len(pair.comparison.labels) - pair.comparison.a.defined_labels
    caption = (
        f"Figure {number}. Difference by label, {pair.run} minus {pair.reference}, in AUROC and in "
        "AUPRC, with intervals from paired resamples. Coloured and in bold: the interval leaves "
        "out zero. In brackets: positives in the test split."
        + (f" Not drawn: {undefined} labels without a value." if undefined else "")
    )
    return figure(f"figure-differences-{place}", element("div", *drawings, class_="pair"), caption)


def _training(
    contents: Contents, report: dict[str, Any], tables: Iterator[int], figures: Iterator[int]
) -> Html:
    histories = {run.name: run.history for run in contents.runs if run.history}
    drawing = Html(validation_curves(histories, reference=contents.reference))
    caption = (
        f"Figure {next(figures)}. Validation metrics and training loss by epoch. Dots: each run's "
        "best epoch by validation macro AUROC."
        + (f" Thin lines: the best of {contents.reference}." if contents.reference else "")
    )
    curves = figure("figure-training", element("div", drawing, class_="wide"), caption)
    best = training_table(report, identity="table-training", place=next(tables))
    return fragment(curves, best)


def _labels(report: dict[str, Any], tables: Iterator[int]) -> Html:
    first = label_table(report, identity="table-labels", place=next(tables))
    if len(report["runs"]) == 1:
        return first
    others = runs_by_label(report, identity="table-runs-by-label", place=next(tables))
    return fragment(first, element("details", element("summary", "Every run"), others))


def _examples(contents: Contents, report: dict[str, Any], figures: Iterator[int]) -> Html:
    return fragment(
        *(
            example_section(report, i, example.record, number=next(figures))
            for i, example in enumerate(contents.examples)
        )
    )
