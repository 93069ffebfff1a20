"""The HTML pages: results of runs, losses of pretraining, a record before and after preparation."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count as counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import EvaluationError, FileError
from einthoven.files import RUN_FILE, Json, read_json, replacing, write_json, write_text
from einthoven.records.record import Record
from einthoven.report import format as form
from einthoven.report import measures, tables
from einthoven.report.cases import CLASS_COLUMNS, Explain, explain_examples, write_errors
from einthoven.report.checklists import CHECKLISTS
from einthoven.report.clinical import clinical_tables
from einthoven.report.coverage import coverage_tables
from einthoven.report.data import pretraining_data, report_data
from einthoven.report.description import flat, text
from einthoven.report.ecg import AGAINST, FOR, ecg_paper, prepared_figure
from einthoven.report.figures import (
    PANELS,
    curves,
    drawing,
    has_logarithmic_panel,
    label_differences,
    reliability_diagram,
    to_svg,
)
from einthoven.report.format import without_folder
from einthoven.report.overview import Overview, overview
from einthoven.report.panels import label_panels, macro_panels
from einthoven.report.robustness import robustness_table

if TYPE_CHECKING:
    from einthoven.explain import Attribution

MOST_ERRORS = 200  # wrong calls on the page and in its JSON; the others are in the CSV file only
PICTURES = (".html", ".png", ".svg")
MOST_ROWS = 12
"""Rows of a table that is not folded."""
_DPI = 110
_LOSSES = {"train_loss": "Training loss", "validation_loss": "Validation loss"}
_MOST_PANELS = 4
_CLASS_PANELS = {
    "validation_loss": "Validation loss",
    "accuracy": "Validation accuracy",
    "train_loss": "Training loss",
}
_VALUE_PANELS = {
    "validation_loss": "Validation loss",
    "mae": "Validation MAE",
    "train_loss": "Training loss",
}


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    reference: str | Path | None = None,
    cohort: Cohort | None = None,
    resamples: int = 1000,
    prevalence: Mapping[str, float] | None = None,
    options: Sequence[str] = (),
    explain: Explain | None = None,
) -> Path:
    """Write one HTML page about finished runs, and its numbers as JSON beside it.

    `NAME.errors.csv` lists every wrong call of the first run, if it has thresholds, or every record
    with a wrong class. The page of
    pretraining runs, finished or not, has their losses.

    Parameters
    ----------
    runs : sequence of paths
        Run folders; the first one is the subject of the page.
    out : path
        The page; the JSON has the same name with `.json`.
    reference : path, optional
        The run that all others are compared with; the last one by default.
    cohort : Cohort, optional
        Source of the example ECGs; without it there are none.
    resamples : int
        Bootstrap resamples.
    prevalence : mapping of str to float, optional
        Prevalence by label, for predictive values elsewhere than in the test records.
    options : sequence of str
        Further options of the command that the page states, such as `--cohort` and its path.
    explain : callable, optional
        Attributes a label of an example to its samples (`experiment.explanation.explainer`); one
        missed label, one false alarm and one hit are explained.

    Raises
    ------
    EvaluationError
        If a run is not finished, runs have different test records or labels, `out` does not end in
        `.html`, or a prevalence is not in (0, 1), of a label without a threshold or of pretraining.
    """
    page, folders = Path(out), [Path(run) for run in runs]
    _check_names(page, folders)
    command = ["einthoven", "report", *(run.resolve().name for run in folders), "--out", page.name]
    command += ["--reference", Path(reference).resolve().name] if reference else []
    command += _options(resamples, prevalence or {}, options)
    if all(_is_pretraining(folder) for folder in folders):
        if prevalence:
            raise EvaluationError(
                "a prevalence applies to calls, which pretraining does not make",
                remedy="leave it out, or name runs of posttrain",
            )
        data = pretraining_data(_by_name(folders), shlex.join(command))
        html = _pretraining_page(data)
    else:
        reference_folder = Path(reference or folders[-1])
        names = _by_name(list(dict.fromkeys([*folders, reference_folder])))
        data, records = report_data(
            names,
            next(name for name, folder in names.items() if folder == reference_folder),
            cohort=cohort,
            resamples=resamples,
            prevalence=prevalence,
            command=shlex.join(command),
        )
        if gallery := data["gallery"]:
            gallery["file"] = page.with_suffix(".errors.csv").name
            write_errors(page.with_name(gallery["file"]), gallery["errors"])
            gallery["errors"] = gallery["errors"][:MOST_ERRORS]
        if wrong := data.get("wrong_classes"):
            wrong["file"] = page.with_suffix(".errors.csv").name
            write_errors(page.with_name(wrong["file"]), wrong["errors"], CLASS_COLUMNS)
            wrong["errors"] = wrong["errors"][:MOST_ERRORS]
        is_numeric = "agreement" in data["runs"][0]["score"]
        attributions = explain_examples(data["examples"], records, explain) if explain else {}
        build = _value_page if is_numeric else build_page
        html = build(data, records, attributions)
    write_text(page, html)
    write_json(page.with_suffix(".json"), data)
    return page


def _check_names(page: Path, folders: Sequence[Path]) -> None:
    if page.suffix.lower() not in (".html", ".htm"):
        raise EvaluationError(
            f"the report {page} does not end in .html",
            remedy="name it report.html; a browser prints it to a PDF",
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise EvaluationError(
            f"a run is named more than once: {', '.join(map(str, folders))}",
            remedy="name every run once",
        )


def _options(resamples: int, prevalence: Mapping[str, float], options: Sequence[str]) -> list[str]:
    """The options of the command that the page states, without the folders of this machine."""
    changes = ["--resamples", str(resamples)] if resamples != 1000 else []
    for label, value in prevalence.items():
        changes += ["--prevalence", f"{label}={value:g}"]
    return [*changes, *map(without_folder, options)]


def build_page(
    data: Json,
    records: Sequence[Record] = (),
    attributions: Mapping[int, Attribution] | None = None,
) -> str:
    """Render a report as one HTML page without scripts, fonts or requests to the network.

    Every number on the page is a `<data>` element, whose value has full precision and is in `data`;
    `records` are the ECGs of `data["examples"]` and `data["gallery"]["drawn"]` (`report_data`),
    `attributions` are drawn as colour under the examples, by row (`explain_examples`).
    """
    first, gallery = data["runs"][0], data["gallery"]
    anchors = _anchors([*data["examples"], *(gallery["drawn"] if gallery else ())])
    evaluation, histories = first["evaluation"], _histories(data)
    labels = len(first["score"]["per_label"])
    parts = tables.results_tables(data) | clinical_tables(evaluation, data["prevalence"])
    policy = first["model"]["policy"]
    covered = coverage_tables(evaluation["coverage"]) if evaluation.get("coverage") else []
    sections = {
        "summary": "Summary",
        "population": "population" in evaluation and "Records and patients",
        "results": "Results",
        "differences": data["comparisons"] and "Differences by label",
        "training": histories and "Training",
        "classes": "measures" in first["score"] and "Classes",
        "labels": "Every class against the others"
        if "measures" in first["score"]
        else "Every label",
        "decisions": parts["decision_tables"] and "Decisions at the thresholds",
        "curves": "curves" in evaluation and "Curves of every label",
        "calibration": "calibration" in evaluation and "Calibration",
        "coverage": covered and "Prediction sets",
        "subgroups": "subgroups" in evaluation and "Subgroup analysis",
        "robustness": "robustness" in evaluation and "Fewer leads and noise",
        "examples": data["examples"] and "Examples",
        "errors": "Wrong classes" if data.get("wrong_classes") else "Wrong calls",
        "provenance": "Provenance",
        "limitations": "Limitations",
        "checklists": "Reporting checklists",
    }
    headings = {key: str(heading) for key, heading in sections.items() if heading}
    return render(
        "page.html.j2",
        data=data,
        simulated=any(run["synthetic"] for run in data["runs"]),
        first=first,
        model=first["model"],
        score=first["score"],
        evaluation=evaluation,
        overview=_overview(first),
        pair=tables.pair_of(data, first["name"]),
        sections=headings,
        checklists=[(checklist, checklist.table(headings)) for checklist in CHECKLISTS],
        histories=histories,
        panels={
            key: title.replace("macro ", tables.macro(labels))
            for key, title in (_CLASS_PANELS if "measures" in first["score"] else PANELS).items()
        },
        labels=labels,
        coverage_tables=covered,
        robustness_table=robustness_table(evaluation, first["score"]),
        **_class_parts(data),
        policy_table=tables.policy_table(policy) if policy else None,
        gallery=gallery,
        **_drawings(anchors, records, attributions),
        errors_table=tables.errors_table(gallery, anchors) if gallery else None,
        wrong_classes_table=tables.wrong_classes_table(data["wrong_classes"]["errors"])
        if data.get("wrong_classes")
        else None,
        **parts,
    )


def _anchors(ecgs: Sequence[Json]) -> dict[int, str]:
    """Name of each drawn ECG in the page, by row."""
    return {entry["row"]: f"ecg-{place}" for place, entry in enumerate(ecgs)}


def _drawings(
    anchors: Mapping[int, str],
    records: Sequence[Record],
    attributions: Mapping[int, Attribution] | None,
) -> Json:
    """What the templates of ECGs need."""
    return {
        "anchors": anchors,
        "attributions": attributions or {},
        "colours": {"for": FOR, "against": AGAINST},
        "sheets": dict(zip(anchors, records, strict=True)),
    }


def _overview(run: Json) -> Overview:
    """The first screen of a page about a run."""
    return overview(
        run["model"],
        run["score"],
        run["evaluation"] | {"folds": run["folds"]},
        patients=run["patients"],
        leakage=run["leakage"],
        simulated=run["synthetic"],
    )


def _class_parts(data: Json) -> Json:
    """Tables and figures of classes by name; empty for labels."""
    score = data["runs"][0]["score"]
    if "measures" not in score:
        return {"classes": None}
    scores = {run["name"]: run["score"] for run in data["runs"]}
    calibration = data["runs"][0]["evaluation"].get("class_calibration")
    level = form.confidence(score["level"])
    few = len(score["per_label"]) <= measures.MOST_CLASSES_DRAWN
    items = [measures.measures_table(scores, f"Metrics of classes, with {level} intervals.")]
    items += [measures.differences_table(pair) for pair in data["comparisons"]]
    items += [measures.classes_table(score), measures.confusion_table(score)]
    items += [measures.class_calibration_table(calibration)] if calibration else []
    return {"classes": {"tables": items, "figure": measures.confusion_figure(score) if few else ""}}


def _value_page(
    data: Json,
    records: Sequence[Record] = (),
    attributions: Mapping[int, Attribution] | None = None,
) -> str:
    """Render the page of runs that predict numbers; arguments as in `build_page`."""
    first = data["runs"][0]
    score, evaluation = first["score"], first["evaluation"]
    histories, policy = _histories(data), first["model"]["policy"]
    agreement = {}
    if measures.draws_agreement(score):
        agreement = {
            label: measures.agreement_figures(score, label, place)
            for place, label in enumerate(score["per_label"], 1)
        }
    subgroups = evaluation.get("subgroups")
    covered = coverage_tables(evaluation["coverage"]) if evaluation.get("coverage") else []
    level = form.confidence(score["level"])
    sections = {
        "summary": "Summary",
        "population": "population" in evaluation and "Records and patients",
        "results": "Results",
        "agreement": agreement and "Agreement",
        "coverage": covered and "Prediction intervals",
        "subgroups": subgroups and "Subgroup analysis",
        "robustness": "robustness" in evaluation and "Fewer leads and noise",
        "training": histories and "Training",
        "examples": data["examples"] and "Examples",
        "provenance": "Provenance",
        "limitations": "Limitations",
    }
    scores = {run["name"]: run["score"] for run in data["runs"]}
    return render(
        "values.html.j2",
        data=data,
        simulated=any(run["synthetic"] for run in data["runs"]),
        first=first,
        model=first["model"],
        score=score,
        evaluation=evaluation,
        overview=_overview(first),
        sections={key: str(heading) for key, heading in sections.items() if heading},
        measures=measures.measures_table(scores, f"Metrics, with {level} intervals."),
        differences_tables=[measures.differences_table(pair) for pair in data["comparisons"]],
        agreement=agreement,
        coverage_tables=covered,
        subgroup_tables=measures.value_subgroup_tables(subgroups) if subgroups else [],
        robustness_table=robustness_table(evaluation, score),
        histories=histories,
        panels=_VALUE_PANELS,
        **_drawings(_anchors(data["examples"]), records, attributions),
        policy_table=tables.policy_table(policy) if policy else None,
        **clinical_tables(evaluation),
    )


def _pretraining_page(data: Json) -> str:
    """Render the page of pretraining runs: curves of losses, every epoch, provenance."""
    histories = _histories(data)
    return render(
        "pretraining.html.j2",
        data=data,
        simulated=any(
            cohort.get("cohort_synthetic")
            for run in data["runs"]
            for cohort in _cohorts_of(flat(run["config"]))
        ),
        sections={"losses": "Losses", "epochs": "Every epoch", "provenance": "Provenance"},
        cohorts=_cohorts_text(flat(data["runs"][0]["config"])),
        histories=histories,
        panels=_panels([line for history in histories.values() for line in history]),
        losses=tables.losses_table(data),
        epochs=[tables.epochs_table(run, i) for i, run in enumerate(data["runs"])],
    )


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
    """Write the drawing of `prepared_figure` as .png or .svg, or as .html with findings above it.

    Raises FileError if the ending is another one, or the file cannot be written.
    """
    kind = file.suffix.lower()
    if kind not in PICTURES:
        raise FileError(
            f"{file}: {kind or 'no ending'} is not a supported picture format",
            remedy=f"use a name that ends in {', '.join(PICTURES)}",
        )
    with drawing():
        sheet = prepared_figure(record, prepared, leads, rate=rate, start=start, title=title)
        if kind == ".png":
            with replacing(file) as temporary:
                sheet.savefig(temporary, dpi=_DPI, format="png")
            return
        svg: str = to_svg(sheet, name="doctor", alt=f"{title}: {', '.join(leads)}")
        if kind == ".html":
            svg = render(
                "preparation.html.j2", simulated=False, title=title, findings=findings, figure=svg
            )
        write_text(file, svg)


def render(template: str, **context: Any) -> str:
    numbers = {key: partial(next, counter(1)) for key in ("next_table", "next_figure")}
    style = Markup((tables.TEMPLATES / "page.css").read_text(encoding="utf-8"))
    page = _PAGES.get_template(template)
    return page.render(style=style, **numbers, **context)


def _differences(pair: Json, place: int) -> list[str]:
    names = pair["run"], pair["reference"]
    return [
        label_differences(pair, key, names=names, name=f"difference-{place}-{key}")
        for key in tables.SCORES
    ]


def _histories(data: Json) -> Json:
    """The epochs of every trained run by its name; empty if no run has two to draw."""
    histories = {run["name"]: run["training"]["history"] for run in data["runs"]}
    if max(map(len, histories.values())) < 2:
        return {}
    return {name: history for name, history in histories.items() if history}


def _cohorts_text(request: Json) -> str:
    """`ptb-xl 1.0.3 (17,418 records)`, or every cohort with its share of the mixture."""
    cohorts = _cohorts_of(request)
    draws = sum(cohort.get("draws", 0) for cohort in cohorts)
    return ", ".join(
        f"{text(cohort.get('cohort'))} {cohort.get('version') or ''}".rstrip()
        + f" ({form.count(cohort.get('records', 0))} records"
        + (f", {form.percent(cohort['draws'] / draws)} of the mixture)" if draws else ")")
        for cohort in cohorts
    )


def _cohorts_of(request: Json) -> list[Json]:
    """The cohorts of a pretraining run."""
    return request.get("cohorts") or [request]


def _panels(lines: Sequence[Json]) -> dict[str, str]:
    """Titles of the panels by key in a line: losses, then metrics of validation that vary."""
    metrics = {key for line in lines for key in line if key.startswith("validation_")}
    panels = {key: title for key, title in _LOSSES.items() if any(key in line for line in lines)}
    for key in sorted(metrics - {*_LOSSES, "validation_seconds"}):
        measured = [line for line in lines if line.get(key) is not None]
        is_loss = all(line[key] == line.get("validation_loss") for line in measured)
        if not is_loss and len({line[key] for line in measured}) > 1:
            panels[key] = key.replace("validation_", "Validation ").replace("_", " ")
    return dict(list(panels.items())[:_MOST_PANELS])


def _is_pretraining(folder: Path) -> bool:
    file = folder / RUN_FILE
    return file.is_file() and flat(read_json(file)).get("stage") == "pretrain"


def _by_name(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by the names of their recipes where these differ, else by their own, or numbered."""
    recipes = [str(flat(read_json(folder / RUN_FILE))["recipe"]["name"]) for folder in folders]
    for names in (recipes, [folder.name for folder in folders]):
        if len(set(names)) == len(folders):
            return dict(zip(names, folders, strict=True))
    return {f"{folder.name} ({place})": folder for place, folder in enumerate(folders, 1)}


_PAGES = tables.templates(autoescape=True)
_PAGES.globals |= {
    "most_rows": MOST_ROWS,
    "curves": curves,
    "differences": _differences,
    "ecg_paper": ecg_paper,
    "label_panels": label_panels,
    "macro_panels": macro_panels,
    "measured": measures.measured,
    "has_logarithmic_panel": has_logarithmic_panel,
    "reliability_diagram": reliability_diagram,
}
