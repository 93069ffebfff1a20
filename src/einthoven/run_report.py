"""The report of finished runs: reads their folders, compares them, draws the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError, EvaluationError, RecordError
from einthoven.evaluate.comparison import compare
from einthoven.evaluate.scores import score_predictions, suitable_policy
from einthoven.experiment.evaluation import read_evidence
from einthoven.experiment.run import BUNDLE, METRICS, PREDICTIONS
from einthoven.files import read_json, read_lines, write_json
from einthoven.predictions import Predictions
from einthoven.records import read_record
from einthoven.report import (
    Example,
    PairedRuns,
    PretrainingRun,
    ReportRun,
    build_page,
    pretraining_page,
    report_json,
    write_report,
)

EXAMPLES = 3


def write_run_report(
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

    Of pretraining runs, finished or not, it shows the losses.

    Parameters
    ----------
    runs : sequence of paths
        Run folders; the first is what the page is about.
    out : path
        The page; the JSON has the same name with `.json`.
    reference : path, optional
        The run that all others are compared with; the last of several by default.
    cohort : Cohort, optional
        Where example ECGs are read from; none are drawn without it.
    examples : int
        How many ECGs to draw.
    resamples : int
        Bootstrap resamples.
    commands : sequence of str
        What made the runs, named before the command that makes the page again.

    Raises
    ------
    EvaluationError
        When a run is not finished, runs were tested on different records or labels, or `out` is
        no `.html`.
    """
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise EvaluationError(
            f"a report is an HTML page, and {out} is named as something else",
            remedy="name it report.html; a browser prints it to a PDF",
        )
    folders = [Path(run) for run in runs]
    if all(_is_pretraining(folder) for folder in folders):
        return _write_pretraining(folders, Path(out))
    other = Path(reference) if reference else folders[-1]
    if other not in folders:
        folders.append(other)
    names = _names(folders)
    found = [_report_run(folder, names[folder], resamples) for folder in folders]
    by_name = {run.name: run for run in found}
    pairs = [
        _pair(run, by_name[names[other]], resamples) for run in found if run.name != names[other]
    ]
    what: dict[str, Any] = {
        "title": _title(found[0]),
        "comparisons": pairs,
        "examples": _examples(found[0], cohort, examples) if cohort is not None else [],
        "commands": [*commands, f"einthoven report {' '.join(str(folder) for folder in folders)}"],
        "descriptions": cohort.descriptions if cohort is not None else None,
    }
    page = Path(out)
    write_report(page, build_page(found, **what))
    write_json(page.with_suffix(".json"), report_json(found, **what))
    return page


def _is_pretraining(folder: Path) -> bool:
    file = folder / "run.json"
    return file.is_file() and read_json(file)["request"].get("stage") == "pretrain"


def _write_pretraining(folders: Sequence[Path], page: Path) -> Path:
    names = _names(folders)
    runs = [
        PretrainingRun(
            names[folder],
            read_json(folder / "run.json"),
            read_lines(folder / "pretrain" / "metrics.jsonl"),
        )
        for folder in folders
    ]
    early = [run.name for run in runs if not run.history]
    if early:
        raise EvaluationError(
            f"{early[0]} has not finished an epoch", remedy="wait until its first one is done"
        )
    title = f"Pretraining {', '.join(run.name for run in runs)}"
    commands = [f"einthoven report {' '.join(map(str, folders))}"]
    write_report(page, pretraining_page(runs, title=title, commands=commands))
    numbers = [{"name": run.name, "about": run.about, "history": run.history} for run in runs]
    write_json(page.with_suffix(".json"), {"title": title, "runs": numbers})
    return page


def stage_history(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run: stage 2's, or the chosen rate's of stage 1 where there is no stage 2."""
    fine = folder / "stage2" / "metrics.jsonl"
    if fine.is_file():
        return read_lines(fine)
    if not (folder / "stage1").is_dir():  # an ensemble was not trained
        return []
    probes = [read_lines(file) for file in sorted(folder.glob("stage1/lr-*/metrics.jsonl"))]
    last = read_json(folder / "run.json")["request"]["recipe"]["stage1"]["hand_on"] == "last"

    def value(lines: list[dict[str, Any]]) -> float:
        return float(max(line["macro_auroc"] for line in lines[-1 if last else 0 :]))

    return max(probes, key=value) if probes else []


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """Names for the page: the recipe's where they differ, the folder's otherwise, or its path."""
    recipes = {folder: _recipe_name(folder) for folder in folders}
    short = {folder: folder.name for folder in folders}
    for names in (recipes, short):
        if len(set(names.values())) == len(folders):
            return names
    return {folder: str(folder) for folder in folders}


def _recipe_name(folder: Path) -> str:
    return str(read_json(folder / "run.json")["request"]["recipe"]["name"])


def _report_run(folder: Path, name: str, resamples: int) -> ReportRun:
    if not (folder / METRICS).is_file():
        raise EvaluationError(
            f"{folder} is no finished run: {METRICS} is missing",
            remedy="let it finish: the same posttrain command goes on",
        )
    numbers = read_json(folder / METRICS)
    test = Predictions.load(folder / PREDICTIONS / "test.parquet")
    score = numbers["test"]
    if score["resamples"] != resamples:
        score = score_predictions(test, resamples=resamples).to_dict()
    return ReportRun(
        name=name,
        about=read_json(folder / "run.json"),
        score=score,
        validation=numbers["validation"],
        history=stage_history(folder),
        predictions=test,
        seconds=numbers["seconds"],
        evidence=read_evidence(folder / BUNDLE),
    )


def _pair(run: ReportRun, reference: ReportRun, resamples: int) -> PairedRuns:
    if run.predictions is None or reference.predictions is None:
        raise EvaluationError("a run has no predictions", remedy="finish both runs")
    policy = suitable_policy(run.predictions)
    found = compare(
        run.predictions, reference.predictions, resamples=resamples, undefined_labels=policy
    )
    return PairedRuns(run.name, reference.name, found)


def _title(run: ReportRun) -> str:
    asked = run.about["request"]
    if members := asked.get("members"):
        return f"Ensemble of {len(members)} runs on {asked['cohort']}, {asked['task']}"
    return f"{run.name} of {asked['backbone']} on {asked['cohort']}, {asked['task']}"


def _examples(run: ReportRun, cohort: Cohort, count: int) -> list[Example]:
    """Test records with several true labels, spread over the table; never chosen by the model."""
    predictions = run.predictions
    if predictions is None or predictions.targets is None or count == 0:
        return []
    paths = dict(zip(cohort.ids(), cohort.paths(), strict=True))
    rich = np.argsort(-predictions.targets.sum(axis=1), kind="stable")
    pool = rich[: max(count, len(rich) // 4)]
    drawn = []
    for row in pool[np.linspace(0, len(pool) - 1, count).astype(int)]:
        name = str(predictions.records[row])
        if name not in paths:
            raise CohortError(
                f"record {name} of the predictions is not in {cohort.name}",
                remedy="name the cohort that the run was tested on",
            )
        try:
            record = read_record(paths[name])
        except RecordError:
            continue  # the signals may live in the store alone
        pairs = zip(predictions.labels, predictions.targets[row], strict=True)
        truth = tuple(label for label, value in pairs if value)
        values = predictions.probabilities[row].tolist()
        drawn.append(
            Example(record, truth, dict(zip(predictions.labels, values, strict=True)), name)
        )
    return drawn
