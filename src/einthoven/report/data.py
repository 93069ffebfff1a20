"""All numbers of a report as one dictionary, from runs in memory or from their folders."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from einthoven import __version__
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError, EvaluationError, RecordError
from einthoven.evaluate.comparison import Comparison, compare
from einthoven.evaluate.scores import plain, score_predictions, suitable_policy
from einthoven.files import Json, read_json, read_lines
from einthoven.predictions import Predictions
from einthoven.records import read_record
from einthoven.records.record import Record
from einthoven.report.description import cohort_of, describe, flat, is_synthetic

RUN, METRICS, PREDICTIONS = "run.json", "metrics.json", "predictions"
RARE = 10
"""Labels with fewer positives are counted among the limitations."""
PARTS = ("calibration", "subgroups", "robustness")
"""Parts of an evaluation that the page shows besides the scores."""
_SAME = 1e-9  # comparison and run are scored by different calls

History = Sequence[Mapping[str, Any]]


REMEDY = "evaluate it again: einthoven card --model MODEL --cohort PATH"


class EvaluationWarning(UserWarning):
    """The evaluation in a model folder belongs to another model."""


@dataclass(frozen=True, eq=False)
class ReportRun:
    """The results of one run.

    Attributes
    ----------
    name : str
        Name in tables and figures.
    config : mapping
        The contents of `run.json` (`request`, `environment`, `command`).
    score : mapping
        `Score.to_dict()` of the test split.
    validation : mapping, optional
        `macro_auroc` and `macro_auprc` of the validation split, or its whole `Score.to_dict()`.
    history : sequence of mapping
        Lines of `metrics.jsonl`.
    predictions : Predictions, optional
        Of the test split; gives the number of patients, and metadata.
    seconds : float, optional
        Wall time of the run; the sum of the epochs by default.
    evaluation : mapping, optional
        The contents of `evaluation.json`; `calibration`, `subgroups` and `robustness` of the first
        run are shown where they are present.
    synthetic : bool
        Trained on simulated ECGs.
    """

    name: str
    config: Mapping[str, Any]
    score: Mapping[str, Any]
    validation: Mapping[str, Any] | None = None
    history: History = ()
    predictions: Predictions | None = None
    seconds: float | None = None
    evaluation: Mapping[str, Any] | None = None
    synthetic: bool = False


@dataclass(frozen=True, eq=False)
class PairedRuns:
    """The comparison of two runs by name, `run` minus `reference`."""

    run: str
    reference: str
    comparison: Comparison


@dataclass(frozen=True, eq=False)
class Example:
    """One ECG with its true labels and the probabilities of the first run.

    The name of a record is not shown unless it is given as `title`: names of hospital files can
    identify patients.
    """

    record: Record
    truth: tuple[str, ...]
    probabilities: Mapping[str, float]
    title: str = ""


def report_data(
    runs: Sequence[ReportRun],
    *,
    title: str,
    comparisons: Sequence[PairedRuns] = (),
    examples: Sequence[Example] = (),
    commands: Sequence[str] = (),
    descriptions: Mapping[str, str] | None = None,
) -> Json:
    """Every number of a page, ready for JSON; the page is written from it.

    Parameters
    ----------
    runs : sequence of ReportRun
        The first one is the subject of the report.
    title : str
    comparisons : sequence of PairedRuns
        Gains are relative to the reference of the first one.
    examples : sequence of Example
    commands : sequence of str
        Commands that reproduce runs and page.
    descriptions : mapping of str to str, optional
        Wording of labels.

    Raises
    ------
    EvaluationError
        If there is no run, names repeat, or a comparison is not of the runs that it names.
    """
    _check_names([run.name for run in runs])
    by_name = {run.name: run for run in runs}
    for pair in comparisons:
        _check_pair(pair, by_name)
    reference = comparisons[0].reference if comparisons else None
    positives = [entry["positives"] for entry in runs[0].score["per_label"].values()]
    data: Json = plain(
        {
            "title": title,
            "einthoven": __version__,
            "reference": reference,
            "runs": [_run(run, by_name.get(reference or "")) for run in runs],
            "comparisons": [_comparison(pair) for pair in comparisons],
            "labels": {
                "all": len(positives),
                "few_limit": RARE,
                "few": sum(0 < count < RARE for count in positives),
            },
            "descriptions": dict(descriptions or {}),
            "examples": [_example(each, i) for i, each in enumerate(examples, 1)],
            "commands": list(commands),
        }
    )
    return data


def best_line(history: History) -> Mapping[str, Any] | None:
    """The line of the epoch with the highest validation macro AUROC, the earliest on a tie."""
    scored = [line for line in history if line.get("macro_auroc") is not None]
    return max(scored, key=lambda line: float(line["macro_auroc"]), default=None)


def lowest_line(history: History) -> Mapping[str, Any] | None:
    """The line of the epoch with the lowest validation loss, the earliest on a tie."""
    scored = [line for line in history if line.get("validation_loss") is not None]
    return min(scored, key=lambda line: float(line["validation_loss"]), default=None)


def seconds_of(history: History) -> float | None:
    """Time of training and validation over all epochs; None where it is not recorded."""
    clocks = ("seconds", "validation_seconds")
    spent = [line[clock] for line in history for clock in clocks if clock in line]
    return float(sum(spent)) if spent else None


def read_run(folder: Path, name: str, *, resamples: int) -> ReportRun:
    """Read the results of a finished run; scores of another number of resamples are repeated.

    Raises
    ------
    EvaluationError
        If the run is not finished.
    """
    if not (folder / METRICS).is_file():
        raise EvaluationError(
            f"{folder} is not a finished run: {METRICS} is missing",
            remedy="run the same posttrain command again to finish it",
        )
    numbers = read_json(folder / METRICS)
    model = folder / "model"
    config = read_json(model / "config.json") if (model / "config.json").is_file() else {}
    test = Predictions.load(folder / PREDICTIONS / "test.parquet")
    score = numbers["test"]
    if score["resamples"] != resamples:
        score = score_predictions(test, resamples=resamples).to_dict()
    return ReportRun(
        name=name,
        config=read_json(folder / RUN),
        score=score,
        validation=numbers["validation"],
        history=stage_history(folder),
        predictions=test,
        seconds=numbers["seconds"],
        evaluation=evaluation_beside(model),
        synthetic=is_synthetic(cohort_of(flat(config))),
    )


def paired(run: ReportRun, reference: ReportRun, *, resamples: int) -> PairedRuns:
    """Compare two runs on their test predictions."""
    if run.predictions is None or reference.predictions is None:
        raise EvaluationError("a run has no predictions", remedy="finish both runs")
    difference = compare(
        run.predictions,
        reference.predictions,
        resamples=resamples,
        undefined_labels=suitable_policy(run.predictions),
    )
    return PairedRuns(run.name, reference.name, difference)


def stage_history(folder: Path) -> list[Json]:
    """The epochs of a run: those of fine-tuning, or of the selected rate of the linear probe."""
    fine = folder / "stage2" / "metrics.jsonl"
    if fine.is_file():
        return read_lines(fine)
    if not (folder / "stage1").is_dir():  # an ensemble is not trained
        return []
    probes = [read_lines(file) for file in sorted(folder.glob("stage1/lr-*/metrics.jsonl"))]
    last = flat(read_json(folder / RUN))["recipe"]["stage1"]["hand_on"] == "last"

    def value(lines: list[Json]) -> float:
        return float(max(line["macro_auroc"] for line in lines[-1 if last else 0 :]))

    return max(probes, key=value) if probes else []


def draw_examples(run: ReportRun, cohort: Cohort, number: int) -> list[Example]:
    """Test records with several true labels, spread over the table, independent of predictions.

    Raises
    ------
    CohortError
        If a record of the predictions is not in the cohort.
    """
    predictions = run.predictions
    if predictions is None or predictions.targets is None or number == 0:
        return []
    paths = dict(zip(cohort.ids(), cohort.paths(), strict=True))
    rich = np.argsort(-predictions.targets.sum(axis=1), kind="stable")
    pool = rich[: max(number, len(rich) // 4)]
    examples = []
    for row in pool[np.linspace(0, len(pool) - 1, number).astype(int)]:
        name = str(predictions.records[row])
        if name not in paths:
            raise CohortError(
                f"record {name} of the predictions is not in {cohort.name}",
                remedy="use the cohort that the run was tested on",
            )
        try:
            record = read_record(paths[name])
        except RecordError:
            continue  # the signals may be in the store alone
        pairs = zip(predictions.labels, predictions.targets[row], strict=True)
        truth = tuple(label for label, value in pairs if value)
        values = predictions.probabilities[row].tolist()
        probabilities = dict(zip(predictions.labels, values, strict=True))
        examples.append(Example(record, truth, probabilities, name))
    return examples


def _run(run: ReportRun, reference: ReportRun | None) -> Json:
    table, evaluation = run.predictions, run.evaluation or {}
    whole = run.seconds is not None
    return {
        "name": run.name,
        "config": dict(run.config),
        "model": describe(run.config),
        "synthetic": run.synthetic,
        "score": dict(run.score),
        "validation": dict(run.validation or {}),
        "training": {
            "epochs": len(run.history),
            "best": dict(best_line(run.history) or {}),
            "passes_reference_in_epoch": _passes(run, reference),
            "seconds": run.seconds if whole else seconds_of(run.history),
            "seconds_of": "the whole run" if whole else "the epochs shown",
            "history": [dict(line) for line in run.history],
        },
        "patients": None if table is None else _patients(table.patients),
        "predictions": {} if table is None else dict(table.metadata),
        "evaluation": {key: evaluation[key] for key in PARTS if evaluation.get(key)},
    }


def _patients(patients: np.ndarray) -> int | None:
    return None if (patients == "").any() else len(np.unique(patients))


def _passes(run: ReportRun, reference: ReportRun | None) -> int | None:
    """The first epoch above the best one of the reference."""
    best = best_line(reference.history) if reference else None
    if best is None or run is reference:
        return None
    above = (
        line["epoch"]
        for line in run.history
        if (line.get("macro_auroc") or 0.0) > best["macro_auroc"]
    )
    return next(above, None)


def _comparison(pair: PairedRuns) -> Json:
    return {
        "run": pair.run,
        "reference": pair.reference,
        "labels": len(pair.comparison.labels),
        **pair.comparison.to_dict(),
    }


def _example(example: Example, place: int) -> Json:
    return {
        "title": example.title or f"Example {place}",
        "rate": example.record.rate,
        "seconds": example.record.duration,
        "leads": list(example.record.leads),
        "source_hash": example.record.source_hash,
        "truth": list(example.truth),
        "probabilities": {name: float(p) for name, p in example.probabilities.items()},
    }


def evaluation_beside(model: Path) -> Json | None:
    """Read the evaluation in a model folder; None, with a warning, if it is of another model."""
    file = model / "evaluation.json"
    if not file.is_file():
        return None
    evaluation: Json = read_json(file)
    if difference := mismatch(read_json(model / "config.json"), evaluation):
        warnings.warn(
            f"{file} {difference}; it is left out; {REMEDY}", EvaluationWarning, stacklevel=3
        )
        return None
    return evaluation


def identity(config: Mapping[str, Any]) -> Json | None:
    """Identify the model of an evaluation; None for one that was never saved.

    `weights` is the checksum of the weights, `digest` that of all that decides a prediction.
    """
    checksum = config.get("weights_sha256")
    return {"weights": checksum, "digest": config["digest"]} if checksum else None


def mismatch(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """Describe why an evaluation belongs to another model; empty if it belongs to this one."""
    measured, current = evaluation.get("measured_on"), identity(config)
    if not measured or not current or measured == current:
        return ""
    if measured["weights"] != current["weights"]:
        return (
            f"was measured on other weights (SHA-256 {measured['weights'][:12]}...; the model's "
            f"are {current['weights'][:12]}...)"
        )
    return "was measured before the model's labels, preparation or calibration were changed"


def _check_names(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names or repeated or not all(names):
        raise EvaluationError(
            f"a report needs at least one run, each with a unique name; got {names}",
            remedy="name every run once",
        )


def _check_pair(pair: PairedRuns, runs: Mapping[str, ReportRun]) -> None:
    for name, score in ((pair.run, pair.comparison.a), (pair.reference, pair.comparison.b)):
        if name not in runs:
            raise EvaluationError(
                f"a comparison names the run {name!r}; the runs are {', '.join(runs)}",
                remedy="use the names of two runs of the report",
            )
        known = runs[name].score["macro_auroc"]
        if known is not None and not abs(score.macro_auroc - known) < _SAME:
            raise EvaluationError(
                f"the comparison of {pair.run} with {pair.reference} has macro AUROC "
                f"{score.macro_auroc:.6f} for {name}, but the score of the run is {known:.6f}",
                remedy="compare the predictions that were scored, with the same settings, in the "
                "order run, reference",
            )
