"""The data of a page: every number of the runs that it is about."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from einthoven import __version__
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import EvaluationError, listed
from einthoven.evaluate.comparison import compare
from einthoven.evaluate.reliability import predictive_values
from einthoven.evaluate.scores import plain, score_predictions
from einthoven.files import (
    CONFIG_FILE,
    EVALUATION_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    RUN_FILE,
    Json,
    read_json,
    read_lines,
)
from einthoven.predictions import Predictions
from einthoven.predictions.table import run_table
from einthoven.records.record import Record
from einthoven.report.cases import calls_of, examples_of, gallery_of, reader_of, wrong_classes
from einthoven.report.description import cohort_of, describe, flat, leakage, text
from einthoven.report.format import without_folder
from einthoven.report.tables import RARE

PARTS = (
    "population", "curves", "calibration", "class_calibration", "subgroups", "coverage",
    "robustness",
)  # fmt: skip
"""Parts of an evaluation that the page shows besides the scores."""
REMEDY = "evaluate it again: einthoven card --model MODEL --cohort PATH"

_ROUNDING = 1e-3  # of a macro value that is predicted again

History = Sequence[Json]


class EvaluationWarning(UserWarning):
    """The evaluation in a model folder belongs to another model."""


def report_data(
    runs: Mapping[str, Path],
    reference: str,
    *,
    cohort: Cohort | None = None,
    resamples: int = 1000,
    prevalence: Mapping[str, float] | None = None,
    command: str = "",
) -> tuple[Json, list[Record]]:
    """Collect every number of a page about finished runs, and the ECGs that it draws.

    These are the ECGs of `examples`, then those of `gallery["drawn"]`.

    Raises EvaluationError if a run is not finished, runs have different test records or labels, or
    a prevalence is not in (0, 1) or of a label without a threshold, and CohortError if a record of
    the predictions is not in the cohort.

    Parameters
    ----------
    runs : mapping of str to Path
        Run folders by name; the first one is the subject of the page.
    reference : str
        The run that all others are compared with.
    cohort : Cohort, optional
        Source of the example ECGs and of the descriptions of labels.
    resamples : int
        Bootstrap resamples; scores of another number are computed again.
    prevalence : mapping of str to float, optional
        Prevalence by label, at which the predictive values of the first run are computed.
    command : str
        The command that writes the page.
    """
    tables = {name: _test_table(folder) for name, folder in runs.items()}
    entries = [_run(name, runs[name], table, resamples) for name, table in tables.items()]
    if any(table.form == "values" for table in tables.values()):
        return _value_data(
            entries, tables, reference, cohort=cohort, prevalence=prevalence, command=command,
            resamples=resamples,
        )  # fmt: skip
    best = {run["name"]: run["training"]["best"] for run in entries}[reference]
    for run in entries if best else ():
        if run["name"] != reference:
            epoch = _first_epoch_above(run["training"]["history"], best["macro_auroc"])
            run["training"]["passes_reference_in_epoch"] = epoch
    first = entries[0]
    settings = {"resamples": resamples, "by": first["score"]["unit"]}
    comparisons = [
        _comparison(tables, name, reference, **settings) for name in tables if name != reference
    ]
    positives = [label["positives"] for label in first["score"]["per_label"].values()]
    table = tables[first["name"]]
    calls = calls_of(runs[first["name"]], table)
    read = reader_of(cohort, table.records)
    examples = examples_of(table, calls, read)
    rows = [entry["row"] for entry, _ in examples]
    gallery, drawings = gallery_of(calls, read, rows) if calls else (None, [])
    wrong = wrong_classes(table) if table.form == "classes" else None
    data = {
        "title": _title(first),
        "form": table.form,
        "einthoven": __version__,
        "reference": reference if comparisons else None,
        "runs": entries,
        "comparisons": comparisons,
        "labels": {
            "all": len(positives),
            "few_limit": RARE,
            "few": sum(0 < count < RARE for count in positives),
            "fewest": min(filter(None, positives), default=0),
            "most": max(positives, default=0),
        },
        "descriptions": dict(cohort.descriptions) if cohort is not None else {},
        "recalibrated": calls.is_recalibrated if calls else None,
        "examples": [entry for entry, _ in examples],
        "gallery": gallery,
        "wrong_classes": {"count": len(wrong), "errors": wrong} if wrong is not None else None,
        "prevalence": _at_prevalence(first["evaluation"], prevalence or {}),
        "command": command,
    }
    return plain(data), [*(record for _, record in examples), *drawings]


def _value_data(
    entries: list[Json],
    tables: Mapping[str, Predictions],
    reference: str,
    *,
    cohort: Cohort | None,
    prevalence: Mapping[str, float] | None,
    command: str,
    resamples: int,
) -> tuple[Json, list[Record]]:
    """The numbers of a page about runs that predict numbers, and the ECGs of `examples`."""
    if prevalence:
        raise EvaluationError(
            "a prevalence applies to labels, and these runs predict numbers", remedy="leave it out"
        )
    settings = {"resamples": resamples, "by": entries[0]["score"]["unit"]}
    table = tables[entries[0]["name"]]
    examples = examples_of(table, None, reader_of(cohort, table.records))
    data: Json = {
        "title": _title(entries[0]),
        "form": table.form,
        "einthoven": __version__,
        "reference": reference if len(tables) > 1 else None,
        "runs": entries,
        "comparisons": [
            _comparison(tables, name, reference, **settings) for name in tables if name != reference
        ],
        "descriptions": {},
        "examples": [entry for entry, _ in examples],
        "gallery": None,
        "command": command,
    }
    return plain(data), [record for _, record in examples]


def _at_prevalence(evaluation: Json, prevalence: Mapping[str, float]) -> Json:
    """Predictive values of labels at given prevalences."""
    calibration = evaluation.get("calibration") or {}
    decisions, values = calibration.get("decisions") or {}, {}
    for label, share in prevalence.items():
        if label not in decisions:
            raise EvaluationError(
                f"prevalence of {label!r}, which has no threshold in this run",
                remedy=f"name one of {listed(list(decisions)) or 'the labels of a calibrated run'}",
            )
        if not 0 < share < 1:
            raise EvaluationError(
                f"prevalence {share} of {label!r} is not between 0 and 1",
                remedy="write a share, such as 0.02 for 2 %",
            )
        values[label] = predictive_values(decisions[label], share, calibration["level"])
    return values


def pretraining_data(runs: Mapping[str, Path], command: str = "") -> Json:
    """Collect every number of a page about pretraining runs, finished or not.

    Raises EvaluationError if a run has not finished an epoch.
    """
    entries = []
    for name, folder in runs.items():
        config, history = _config(folder), read_lines(folder / "pretrain" / HISTORY_FILE)
        if not history:
            raise EvaluationError(
                f"{name} has not finished an epoch", remedy="wait for its first epoch"
            )
        clocks = ("seconds", "validation_seconds")
        times = [line[clock] for line in history for clock in clocks if clock in line]
        entries.append(
            {
                "name": name,
                "config": config,
                "command": shlex.join(config["command"]),
                "model": describe(config),
                "lowest": best_line(history, "validation_loss", min),
                "predictions": {},
                "training": {"history": history, "seconds": sum(times) if times else None},
            }
        )
    title = f"Pretraining {', '.join(runs)}"
    return {"title": title, "einthoven": __version__, "runs": entries, "command": command}


def _test_table(folder: Path) -> Predictions:
    if not (folder / METRICS_FILE).is_file():
        raise EvaluationError(
            f"{folder} is not a finished run: {METRICS_FILE} is missing",
            remedy="run the same posttrain command again to finish it",
        )
    return run_table(folder, "test")


def _run(name: str, folder: Path, table: Predictions, resamples: int) -> Json:
    numbers, config, model = read_json(folder / METRICS_FILE), _config(folder), folder / "model"
    score, history = numbers["test"], stage_history(folder)
    if score["resamples"] != resamples:
        score = score_predictions(table, resamples=resamples, by=score["unit"]).to_dict()
    evaluation = _evaluation_of_run(model, score)
    model_config = read_json(model / CONFIG_FILE) if (model / CONFIG_FILE).is_file() else config
    return {
        "name": name,
        "config": config,
        "command": shlex.join(config["command"]),
        "model": describe(config, model_config),
        "synthetic": bool(cohort_of(flat(model_config))["synthetic"]),
        "leakage": leakage(config),
        "score": score,
        "validation": numbers["validation"],
        "folds": numbers.get("folds"),
        "training": {
            "epochs": len(history),
            "best": best_line(history) or best_line(history, "validation_loss", min),
            "passes_reference_in_epoch": None,
            "seconds": numbers["seconds"],
            "history": history,
        },
        "patients": None if (table.patients == "").any() else len(np.unique(table.patients)),
        "predictions": dict(table.metadata),
        "evaluation": {key: evaluation[key] for key in PARTS if evaluation.get(key)},
    }


def _config(folder: Path) -> Json:
    """The `run.json` of a run, without the folders of this machine."""
    config: Json = read_json(folder / RUN_FILE)
    labels = config["request"].get("labels") or ()  # their names may have slashes
    parts = config.get("command") or ()
    config["command"] = [part if part in labels else without_folder(part) for part in parts]
    weights = config["request"].get("weights")
    if isinstance(weights, dict) and "path" in weights:
        weights["name"] = without_folder(weights.pop("path"))
    return config


def _first_epoch_above(history: History, best: float) -> int | None:
    """The first epoch with a macro AUROC above `best`, that of the reference."""
    above = (line["epoch"] for line in history if (line.get("macro_auroc") or 0.0) > best)
    return next(above, None)


def _comparison(
    tables: Mapping[str, Predictions], run: str, reference: str, **settings: Any
) -> Json:
    table = tables[run]
    comparison = compare(table, tables[reference], names=(run, reference), **settings)
    return {"run": run, "reference": reference, "labels": len(table.labels)} | comparison.to_dict()


def _title(run: Json) -> str:
    model = run["model"]
    records = f"on {text(model['cohort']['name'])}, {text(model['cohort']['task'])}"
    if model["members"]:
        return f"Ensemble of {len(model['members'])} runs {records}"
    return f"{run['name']} of {text(model['backbone'])} {records}"


def stage_history(folder: Path) -> list[Json]:
    """The epochs of fine-tuning, or of the linear probe at its selected rate or penalty."""
    fine = folder / "stage2" / HISTORY_FILE
    if fine.is_file():
        return read_lines(fine)
    if not (folder / "stage1").is_dir():  # an ensemble is not trained
        return []
    probes = [read_lines(file) for file in sorted(folder.glob(f"stage1/*/{HISTORY_FILE}"))]
    last = flat(read_json(folder / RUN_FILE))["recipe"]["stage1"]["select"] == "last"

    def value(lines: list[Json]) -> float:
        epochs = lines[-1 if last else 0 :]
        return float(max(line.get("macro_auroc", -line["validation_loss"]) for line in epochs))

    return max(probes, key=value, default=[])


def best_line(history: History, key: str = "macro_auroc", best: Callable[..., Json] = max) -> Json:
    """The line of the epoch with the highest value, the earliest on a tie; empty without values."""
    lines = [line for line in history if line.get(key) is not None]
    return best(lines, key=itemgetter(key), default={})


def read_evaluation(model: Path) -> Json | None:
    """Read the evaluation in a model folder; None, with a warning, if it is of another model."""
    file = model / EVALUATION_FILE
    if not file.is_file():
        return None
    evaluation: Json = read_json(file)
    if difference := mismatch(read_json(model / CONFIG_FILE), evaluation):
        warnings.warn(
            f"{file} {difference}; it is left out; {REMEDY}", EvaluationWarning, stacklevel=3
        )
        return None
    return evaluation


def _evaluation_of_run(model: Path, score: Json) -> Json:
    """The evaluation in a run's model folder; empty, with a warning, if it is on other records."""
    evaluation = read_evaluation(model) or {}
    pair = evaluation.get("score") or score, score
    counts = [(entry["records"], _positives(entry)) for entry in pair]
    first, second = map(_key_values, pair)
    # The model may have been evaluated again on another device.
    scale = np.maximum(1.0, np.abs(first))  # of numbers in their unit
    is_near = np.allclose(first / scale, second / scale, rtol=0, atol=_ROUNDING, equal_nan=True)
    if counts[0] == counts[1] and is_near:
        return evaluation
    warnings.warn(
        f"{model / EVALUATION_FILE} is on other records than the predictions of the run; it is "
        f"left out; {REMEDY}",
        EvaluationWarning,
        stacklevel=3,
    )
    return {}


def _key_values(score: Json) -> list[float]:
    """Values by which scores are recognised as equal."""
    if "macro_auroc" in score:
        values = [score["macro_auroc"], score["macro_auprc"]]
    else:
        values = [entry["mae"] for entry in score["per_label"].values() if "mae" in entry]
    return [np.nan if value is None else value for value in values]


def _positives(score: Json) -> tuple[tuple[str, int], ...]:
    key = "positives" if "macro_auroc" in score else "records"
    return tuple((label, entry[key]) for label, entry in score["per_label"].items())


def identity(config: Json) -> Json | None:
    """Identify the model of an evaluation; None for one that was never saved.

    `weights` is the checksum of the weights, `digest` that of all that determines a prediction.
    """
    checksum = config.get("weights_sha256")
    return {"weights": checksum, "digest": config["digest"]} if checksum else None


def mismatch(config: Json, evaluation: Json) -> str:
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
