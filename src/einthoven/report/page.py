"""The HTML pages: results of runs, losses of pretraining, a record before and after preparation."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count as counter
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from einthoven import __version__
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import EvaluationError, FileError
from einthoven.files import Json, read_json, read_lines, write_json, write_text
from einthoven.records.record import Record
from einthoven.report import format as form
from einthoven.report import tables
from einthoven.report.data import (
    RUN,
    Example,
    History,
    PairedRuns,
    ReportRun,
    describe,
    draw_examples,
    flat,
    leakage,
    lowest_line,
    paired,
    read_run,
    report_data,
    seconds_of,
)
from einthoven.report.data import text as recorded
from einthoven.report.ecg import ecg_paper, prepared_figure
from einthoven.report.figures import (
    curves,
    drawing,
    label_differences,
    reliability_diagram,
    to_svg,
)

EXAMPLES = 3
LIKELY = 6  # labels with the highest probabilities; true ones are always shown
PICTURES = (".html", ".png", ".svg")
_DPI = 110
_LOSSES = {"train_loss": "Training loss", "validation_loss": "Validation loss"}
_MOST_PANELS = 4

_PAGES = Environment(
    loader=FileSystemLoader(tables.TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.globals |= {
    "confidence": form.confidence,
    "count": tables.count,
    "metric": tables.metric,
    "metrics": tables.METRICS,
    "policies": tables.UNDEFINED,
    "seconds": tables.seconds,
    "share": tables.share,
    "significant": tables.significant,
    "text": recorded,
}


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    reference: str | Path | None = None,
    cohort: Cohort | None = None,
    examples: int = EXAMPLES,
    resamples: int = 1000,
    commands: Sequence[str] = (),
) -> Path:
    """Write one HTML page about finished runs, and its numbers as JSON beside it.

    The page of pretraining runs, finished or not, has their losses.

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
    examples : int
        Number of example ECGs.
    resamples : int
        Bootstrap resamples.
    commands : sequence of str
        Commands that made the runs.

    Raises
    ------
    EvaluationError
        If a run is not finished, runs have different test records or labels, or `out` does not end
        in `.html`.
    """
    page = Path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise EvaluationError(
            f"the report {out} does not end in .html",
            remedy="name it report.html; a browser prints it to a PDF",
        )
    folders = [Path(run) for run in runs]
    pretrained = all(_is_pretraining(folder) for folder in folders)
    other = Path(reference) if reference else folders[-1]
    if other not in folders and not pretrained:
        folders.append(other)
    names = _names(folders)
    commands = [*commands, f"einthoven report {' '.join(map(str, folders))}"]
    if pretrained:
        data = _pretraining_data(folders, names, commands)
        text = _pretraining_page(data)
    else:
        results = [read_run(folder, names[folder], resamples=resamples) for folder in folders]
        by_name = {run.name: run for run in results}
        main = by_name[names[other]]
        text, data = build_page(
            results,
            title=_title(results[0]),
            comparisons=[
                paired(run, main, resamples=resamples) for run in results if run is not main
            ],
            examples=draw_examples(results[0], cohort, examples) if cohort is not None else [],
            commands=commands,
            descriptions=cohort.descriptions if cohort is not None else None,
        )
    write_text(page, text)
    write_json(page.with_suffix(".json"), data)
    return page


def build_page(
    runs: Sequence[ReportRun],
    *,
    title: str,
    comparisons: Sequence[PairedRuns] = (),
    examples: Sequence[Example] = (),
    **options: Any,
) -> tuple[str, Json]:
    """Write a report as one HTML page without scripts, fonts or requests to the network.

    Every number on the page is a `<data>` element, whose value has full precision and is in the
    second result.

    Parameters
    ----------
    runs, title, comparisons, examples, **options
        As for `report_data`.

    Returns
    -------
    page : str
        HTML.
    data : dict
        The numbers of the page, as from `report_data`.

    Raises
    ------
    EvaluationError
        As `report_data`.
    """
    data = report_data(runs, title=title, comparisons=comparisons, examples=examples, **options)
    first = data["runs"][0]
    evaluation = first["evaluation"]
    histories = {run.name: run.history for run in runs if run.history}
    figures = {
        "differences": [
            [
                Markup(
                    label_differences(
                        pair.comparison,
                        key,
                        names=(pair.run, pair.reference),
                        name=f"difference-{i}-{key}",
                    )
                )
                for key in tables.METRICS
            ]
            for i, pair in enumerate(comparisons)
        ],
        "training": histories and Markup(curves(histories, reference=data["reference"])),
        "reliability": "calibration" in evaluation
        and Markup(reliability_diagram(evaluation["calibration"])),
        "examples": [
            Markup(ecg_paper(each.record, title=entry["title"], name=f"example-{i}-ecg"))
            for i, (each, entry) in enumerate(zip(examples, data["examples"], strict=True), 1)
        ],
    }
    sections = {
        "summary": "Summary",
        "results": "Results",
        "differences": "Differences by label" if comparisons else None,
        "training": "Training" if histories else None,
        "labels": "Every label",
        "calibration": "Calibration" if "calibration" in evaluation else None,
        "subgroups": "Subgroup analysis" if "subgroups" in evaluation else None,
        "robustness": "Fewer leads and noise" if "robustness" in evaluation else None,
        "examples": "Examples" if examples else None,
        "provenance": "Provenance",
        "limitations": "Limitations",
    }
    page = _render(
        "page.html.j2",
        data=data,
        first=first,
        model=first["model"],
        score=first["score"],
        evaluation=evaluation,
        pair=tables.pair_of(data, first["name"]),
        leakage={run["name"]: leakage(run["config"]) for run in data["runs"]},
        sections={key: heading for key, heading in sections.items() if heading},
        figures=figures,
        likely=[_likely(entry) for entry in data["examples"]],
        provenance=[_provenance(run) for run in data["runs"]],
        **_results_tables(data),
    )
    return page, data


def _pretraining_page(data: Json) -> str:
    """Write the page of pretraining runs: curves of losses, every epoch, provenance."""
    histories = {run["name"]: run["history"] for run in data["runs"]}
    panels = _panels(list(histories.values()))
    sections = {"losses": "Losses", "epochs": "Every epoch", "provenance": "Provenance"}
    return _render(
        "pretraining.html.j2",
        data=data,
        sections=sections,
        cohorts=_cohorts(flat(data["runs"][0]["config"])),
        figure=Markup(curves(histories, panels)),
        losses=_losses_table(data["runs"]),
        epochs=[_epochs_table(run, i) for i, run in enumerate(data["runs"])],
        provenance=[_provenance(run) for run in data["runs"]],
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

    Raises
    ------
    FileError
        If the ending is another one, or the file cannot be written.
    """
    kind = file.suffix.lower()
    if kind not in PICTURES:
        raise FileError(
            f"{file}: {kind or 'no ending'} is not a supported picture format",
            remedy=f"use a name that ends in {', '.join(PICTURES)}",
        )
    with drawing():
        sheet = prepared_figure(record, prepared, leads, rate=rate, start=start, title=title)
        try:
            if kind == ".png":
                sheet.savefig(file, dpi=_DPI, format="png")
                return
            svg = to_svg(sheet, name="doctor", alt=f"{title}: {', '.join(leads)}")
            if kind == ".html":
                svg = _render(
                    "preparation.html.j2", title=title, findings=findings, figure=Markup(svg)
                )
            file.write_text(svg, encoding="utf-8")
        except OSError as error:
            raise FileError(
                f"{file} cannot be written: {error.strerror}", remedy="choose another folder"
            ) from error


def _render(template: str, **context: Any) -> str:
    numbers = {key: partial(next, counter(1)) for key in ("next_table", "next_figure")}
    style = Markup((tables.TEMPLATES / "page.css").read_text(encoding="utf-8"))
    page = _PAGES.get_template(template)
    return page.render(style=style, einthoven=__version__, **numbers, **context)


def _results_tables(data: Json) -> Json:
    first = data["runs"][0]
    return {
        "macro_tables": {key: tables.macro_table(data, key) for key in tables.METRICS},
        "notes": {key: _notes(data["runs"], key) for key in tables.METRICS},
        "intervals": tables.intervals_of(first["score"]),
        "paired_table": tables.paired_table(data) if data["comparisons"] else None,
        "training_table": tables.training_table(data),
        "label_table": tables.label_table(data),
        "runs_by_label": tables.runs_by_label(data) if len(data["runs"]) > 1 else None,
        **tables.evaluation_tables(first["evaluation"]),
    }


def _notes(runs: Sequence[Json], key: str) -> list[tuple[list[str], Json]]:
    """Names of runs that were scored alike, with one of their scores."""
    keys = ["defined_labels", "undefined_labels", "auprc_definition", "records", "unit"]
    keys += ["resamples", "seed", "interval", "level", "drawn", "acceptance"]
    groups: dict[tuple[Any, ...], tuple[list[str], Json]] = {}
    for run in runs:
        alike = tuple(run["score"].get(name) for name in keys)
        groups.setdefault(alike, ([], run["score"]))[0].append(run["name"])
    return list(groups.values())


def _likely(example: Json) -> list[str]:
    """The labels with the highest probabilities and the true ones, most probable first."""
    probabilities, truth = example["probabilities"], example["truth"]
    ranked = sorted(probabilities, key=lambda label: (-probabilities[label], label))
    unknown = [label for label in truth if label not in probabilities]
    return [x for i, x in enumerate(ranked) if i < LIKELY or x in truth] + unknown


def _provenance(run: Json) -> Json:
    model, training, command = run["model"], run["training"], run["config"].get("command")
    cohort = model["cohort"]
    entries = {
        "backbone": model["backbone"],
        "initial weights": model["weights_text"],
        "licence of the initial weights": model["weights_licence"],
        "PTB-XL among their training data": model["contains_ptbxl"],
        "cohort": cohort.get("name"),
        "version": cohort.get("version"),
        "task": cohort.get("task"),
        "labels": len(model["labels"]) or None,
        "digest of ids, folds and targets": cohort.get("digest"),
        "digest of the records": model["records_digest"],
        "processes": model["processes"],
        **{f"predictions: {key}": value for key, value in run["predictions"].items()},
    }
    if isinstance(command, list):
        command = shlex.join(map(str, command))
    return {
        "name": run["name"],
        "groups": {
            "Data and model": [
                *((key, recorded(value)) for key, value in entries.items()),
                (f"wall time of {training['seconds_of']}", tables.seconds(training["seconds"])),
            ],
            "Recipe": model["settings"],
            "Environment": model["environment"],
        },
        "command": shlex.join(map(str, command))
        if isinstance(command, list)
        else recorded(command),
    }


def _pretraining_data(
    folders: Sequence[Path], names: Mapping[Path, str], commands: Sequence[str]
) -> Json:
    runs = []
    for folder in folders:
        config, history = read_json(folder / RUN), read_lines(folder / "pretrain" / "metrics.jsonl")
        if not history:
            raise EvaluationError(
                f"{names[folder]} has not finished an epoch", remedy="wait for its first epoch"
            )
        runs.append(
            {
                "name": names[folder],
                "config": config,
                "model": describe(config),
                "history": history,
                "lowest": dict(lowest_line(history) or {}),
                "predictions": {},
                "training": {"seconds": seconds_of(history), "seconds_of": "pretraining"},
            }
        )
    title = f"Pretraining {', '.join(names[folder] for folder in folders)}"
    return {"title": title, "einthoven": __version__, "runs": runs, "commands": list(commands)}


def _cohorts(request: Json) -> str:
    """`ptb-xl 1.0.3 (17,418 records)`, or every cohort with its share of the mixture."""
    cohorts = request.get("cohorts") or [request]
    drawn = sum(cohort.get("draws", 0) for cohort in cohorts)
    return ", ".join(
        f"{recorded(cohort.get('cohort'))} {recorded(cohort.get('version'))} "
        f"({form.count(cohort.get('records', 0))} records"
        + (f", {form.percent(cohort['draws'] / drawn)} of the mixture)" if drawn else ")")
        for cohort in cohorts
    )


def _panels(histories: Sequence[History]) -> dict[str, str]:
    """Keys of the lines that are drawn: losses, then metrics of validation."""
    present = {key for history in histories for line in history for key in line}
    panels = {key: title for key, title in _LOSSES.items() if key in present}
    for key in sorted(present):
        if key.startswith("validation_") and key not in _LOSSES and _varies(key, histories):
            panels[key] = key.replace("validation_", "Validation ").replace("_", " ")
    return dict(list(panels.items())[:_MOST_PANELS])


def _varies(key: str, histories: Sequence[History]) -> bool:
    """Whether a number is neither a copy of the loss, nor a constant, nor a time."""
    lines = [line for history in histories for line in history if line.get(key) is not None]
    is_loss = all(line[key] == line.get("validation_loss") for line in lines)
    return not is_loss and key != "validation_seconds" and len({line[key] for line in lines}) > 1


def _losses_table(runs: Sequence[Json]) -> tables.Table:
    head = ["Run", "Epochs", "Training loss", "Validation loss", "Lowest", "At epoch", "Time"]
    rows: list[list[tables.Cell]] = []
    for run in runs:
        last, lowest = run["history"][-1], run["lowest"]
        planned = (flat(run["config"]).get("recipe") or {}).get("epochs")
        losses = [last.get(key) for key in _LOSSES] + [lowest.get("validation_loss")]
        row: list[tables.Cell] = [run["name"], f"{last['epoch']} of {recorded(planned)}"]
        row += [tables.significant(loss) for loss in losses]
        row += [tables.count(lowest.get("epoch")), tables.seconds(run["training"]["seconds"])]
        rows.append(row)
    return tables.Table("table-runs", "Progress of every run.", head, rows)


def _epochs_table(run: Json, place: int) -> tables.Table:
    keys = [key for key in run["history"][-1] if key != "epoch"]
    rows: list[list[tables.Cell]] = [
        [str(line["epoch"]), *(tables.significant(line.get(key)) for key in keys)]
        for line in run["history"]
    ]
    head = ["Epoch", *(key.replace("_", " ") for key in keys)]
    return tables.Table(f"table-epochs-{place}", f"Every epoch of {run['name']}.", head, rows)


def _is_pretraining(folder: Path) -> bool:
    file = folder / RUN
    return file.is_file() and flat(read_json(file)).get("stage") == "pretrain"


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """Names for the page: those of the recipes where they differ, else of the folders, or paths."""
    recipes = {folder: str(flat(read_json(folder / RUN))["recipe"]["name"]) for folder in folders}
    short = {folder: folder.name for folder in folders}
    for names in (recipes, short):
        if len(set(names.values())) == len(folders):
            return names
    return {folder: str(folder) for folder in folders}


def _title(run: ReportRun) -> str:
    request = flat(run.config)
    if members := request.get("members"):
        return f"Ensemble of {len(members)} runs on {request['cohort']}, {request['task']}"
    return f"{run.name} of {request['backbone']} on {request['cohort']}, {request['task']}"
