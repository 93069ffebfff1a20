"""The data of page and card: numbers of runs, and in words how a model was made."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from einthoven.licences import Licence
from einthoven.predictions import Predictions
from einthoven.records import read_record
from einthoven.records.record import Record

RUN, METRICS, PREDICTIONS = "run.json", "metrics.json", "predictions"
RARE = 10
"""Labels with fewer positives are counted among the limitations."""
PARTS = ("calibration", "subgroups", "robustness")
"""Parts of an evaluation that the page shows besides the scores."""
UNKNOWN = "not recorded"

_STAGES = {"stage1": "linear probe", "stage2": "fine-tuning"}
_SELECTIONS = {
    "best": "highest macro AUROC on the validation split",
    "lowest-loss": "lowest loss on the validation split",
    "last": "last epoch, not selected by validation",
}
_MEMBERS = "those of the ensemble's members"
_SAME = 1e-9  # comparison and run are scored by different calls

History = Sequence[Json]


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
    config: Json
    score: Json
    validation: Json | None = None
    history: History = ()
    predictions: Predictions | None = None
    seconds: float | None = None
    evaluation: Json | None = None
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
            "comparisons": [
                {
                    "run": pair.run,
                    "reference": pair.reference,
                    "labels": len(pair.comparison.labels),
                    **pair.comparison.to_dict(),
                }
                for pair in comparisons
            ],
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


def best_line(history: History) -> Json | None:
    """The line of the epoch with the highest validation macro AUROC, the earliest on a tie."""
    scored = [line for line in history if line.get("macro_auroc") is not None]
    return max(scored, key=lambda line: float(line["macro_auroc"]), default=None)


def lowest_line(history: History) -> Json | None:
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
        "patients": None
        if table is None or (table.patients == "").any()
        else len(np.unique(table.patients)),
        "predictions": {} if table is None else dict(table.metadata),
        "evaluation": {key: evaluation[key] for key in PARTS if evaluation.get(key)},
    }


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


def identity(config: Json) -> Json | None:
    """Identify the model of an evaluation; None for one that was never saved.

    `weights` is the checksum of the weights, `digest` that of all that decides a prediction.
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


def describe(config: Json) -> dict[str, Any]:
    """Describe how a model was made, for page and card.

    Parameters
    ----------
    config : mapping
        The contents of `config.json`, or of `run.json`.

    Returns
    -------
    dict
        Values as recorded, with `cohort_text`, `stages`, `weights_text`, `weights_licence`,
        `selected_epochs`, `preparation_steps` and `settings` in words; what is not recorded is
        None, empty or `not recorded`.
    """
    values = flat(config)
    recipe = values.get("recipe") or {}
    labels = values.get("labels") or list((values.get("id2label") or {}).values())
    return {
        "name": values.get("name"),
        "backbone": values.get("backbone"),
        "labels": list(labels),
        "descriptions": dict(values.get("descriptions") or {}),
        "members": list(values.get("members") or ()),
        "cohort": cohort_of(values),
        "cohort_text": cohort_text(values),
        "recipe": text(recipe.get("name")),
        "stages": _stages(recipe),
        "settings": list(flattened(recipe)),
        "weights_text": _weights(values, recipe),
        "weights_licence": _weights_licence(values),
        "public_weights": values.get("public_weights") or None,
        "contains_ptbxl": _contains_ptbxl(values),
        "selected_epochs": _selected_epochs(values, recipe),
        "selection": values.get("selection") or None,
        "preparation_steps": text(values.get("preparation_text")).split("; "),
        "aggregate": text(values.get("aggregate")),
        "licence": str(Licence.from_dict(values)),
        "license": values.get("license"),
        "commercial_use": _commercial_use(values),
        "environment": list(flattened({**values, **config}.get("environment") or {})),
        "records_digest": values.get("records_digest"),
        "processes": values.get("world"),
    }


def flat(config: Json) -> dict[str, Any]:
    """The fields of a config.json with those of its provenance, or the request of a run.json."""
    request = config.get("request")
    if request is not None:
        return dict(request)
    provenance = dict(config.get("provenance") or {})
    weights = {"weights": provenance["initial_weights"]} if "initial_weights" in provenance else {}
    return {**provenance, **weights, **config}


def text(value: object) -> str:
    """A recorded value; `not recorded` for none."""
    if value is None or value == "" or value == {} or value == []:
        return UNKNOWN
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def flattened(values: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every entry of nested tables as `section.key` and its text."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), "none" if value in (None, [], "") else text(value)


def cohort_of(config: Json) -> dict[str, Any]:
    """Name, version, task and digest of the training cohort.

    A model holds them as a table `cohort`, a run beside the name of the cohort.
    """
    cohort = config.get("cohort")
    if isinstance(cohort, Mapping):
        return dict.fromkeys(("name", "version", "task", "digest")) | dict(cohort)
    keys = {"version": "version", "task": "task", "digest": "cohort_digest"}
    return {"name": cohort} | {key: config.get(source) for key, source in keys.items()}


def cohort_text(config: Json) -> str:
    """`ptb-xl 1.0.3, task all-71 (71 labels)`."""
    cohort, labels = cohort_of(config), config.get("labels") or config.get("id2label")
    parts = [text(cohort.get("name"))]
    if cohort.get("version"):
        parts[0] += f" {cohort['version']}"
    if cohort.get("task"):
        parts.append(f"task {cohort['task']}")
    return ", ".join(parts) + (f" ({len(labels)} labels)" if labels else "")


def history_text(history: Sequence[Json]) -> str:
    """Training data of weights in words, oldest first."""
    stages = []
    for stage in history:
        details = [f"labels of {stage['task']}" if stage.get("task") else "without labels"]
        if stage.get("records"):
            details.insert(0, f"{stage['records']:,} records")
        if stage.get("recipe"):
            details.append(f"recipe {stage['recipe']}")
        stages.append(f"{stage['cohort']} {stage['version']} ({', '.join(details)})")
    return ", then ".join(stages)


def is_synthetic(cohort: Json) -> bool:
    """Whether the records were simulated."""
    return bool(cohort.get("synthetic")) or "synthetic" in str(cohort.get("name")).lower()


def leakage(config: Json, evaluation: Json | None = None) -> list[str]:
    """Sentences on what the weights have seen of the records that they were evaluated on.

    Parameters
    ----------
    config : mapping
        The contents of `config.json` or of `run.json`: `public_weights` is about a public
        release, `overlap` about the test records of the run, which `--allow-overlap` permitted.
    evaluation : mapping, optional
        The contents of `evaluation.json`, which may be about other records than those of the run:
        its `public_weights` and `overlap` then replace those of the config.
    """
    values, evaluation = flat(config), evaluation or {}
    cohort = (evaluation.get("cohort") or cohort_of(values)).get("name")
    split = evaluation.get("split") or "test"
    public = evaluation.get("public_weights") or values.get("public_weights") or {}
    overlap = values.get("overlap") or {}
    if (overlap.get("cohort"), split) != (cohort, "test"):
        overlap = evaluation.get("overlap") or {}
    sentences = []
    if public.get("warning") and public.get("cohort") == cohort:
        sentences.append(str(public["warning"]))
    if overlap.get("cohort") == cohort and overlap.get("seen"):
        # Counts by use are there for weights that were trained with labels.
        labelled = any(key.startswith("in ") for key in overlap)
        sentences.append(
            f"the weights were {'trained' if labelled else 'pretrained'} on {overlap['seen']} of "
            f"the {text(overlap.get(f'{split} records'))} {split} records of {cohort}: results on "
            "this split are optimistically biased"
        )
    return [sentence[:1].upper() + sentence[1:] for sentence in sentences]


def _stages(recipe: Json) -> str:
    stages = [
        _stage("a linear probe", recipe.get("stage1")),
        _stage("full fine-tuning", recipe.get("stage2")),
    ]
    known = [stage for stage in stages if stage]
    if not known:
        return UNKNOWN
    start = "from random weights: " if recipe.get("initialise") == "random" else ""
    return start + ", then ".join(known)


def _stage(name: str, stage: Any) -> str | None:
    if not stage:
        return None
    sentence = name
    if stage.get("epochs"):
        sentence += f" for {stage['epochs']} epoch{'s' if stage['epochs'] != 1 else ''}"
    drops = [
        f"{wording} {stage[key]:g}"
        for key, wording in (("drop_path", "stochastic depth"), ("dropout", "dropout"))
        if stage.get(key)
    ]
    return sentence + (f" with {' and '.join(drops)}" if drops else "")


def _weights(values: Json, recipe: Json) -> str:
    weights = values.get("weights")
    if values.get("members"):
        return _MEMBERS
    if isinstance(weights, Mapping):
        digest = weights.get("sha256")
        named = text(weights.get("path") or weights.get("name"))
        history = values.get("pretraining")
        return (
            named
            + (f" (SHA-256 {digest})" if digest else "")
            + (f", trained with einthoven: {history_text(history)}" if history else "")
        )
    trained = "weights" in values and not values.get("public_weights")
    if weights is None and (trained or recipe.get("initialise") == "random"):
        return "random initialisation"
    return text(weights)


def _weights_licence(values: Json) -> str:
    weights = values.get("weights")
    if values.get("members"):
        return _MEMBERS
    if isinstance(weights, Mapping):
        return str(Licence.from_dict(weights))
    random = (values.get("recipe") or {}).get("initialise") == "random"
    return "not applicable" if weights is None and random else UNKNOWN


def _contains_ptbxl(values: Json) -> str | None:
    """Whether PTB-XL is in the pretraining data; None where no pretraining is recorded."""
    for record in (values, values.get("public_weights"), values.get("weights")):
        if isinstance(record, Mapping) and "contains_ptbxl" in record:
            return {True: "yes", False: "no"}.get(record["contains_ptbxl"], "unknown")
    return None


def _commercial_use(values: Json) -> bool | None:
    if "commercial_use" in values:
        allowed: bool | None = values["commercial_use"]
        return allowed
    weights = values.get("weights")
    return Licence.from_dict(weights).commercial_use if isinstance(weights, Mapping) else None


def _selected_epochs(values: Json, recipe: Json) -> str:
    stages = [
        f"{_STAGES.get(name, name)}: {_selected(epoch, recipe.get(name) or {})}"
        for name, epoch in (values.get("selected_epoch") or {}).items()
    ]
    return "; ".join(stages) or UNKNOWN


def _selected(epoch: int, stage: Json) -> str:
    place = f"epoch {epoch}" + (f" of {stage['epochs']}" if stage.get("epochs") else "")
    rule = _SELECTIONS.get(str(stage.get("select") or stage.get("hand_on")))
    rates = stage.get("base_lr_sweep") or ()
    return (
        place
        + (f", {rule}" if rule else "")
        + (f", best of {len(rates)} learning rates" if len(rates) > 1 else "")
    )
