"""The data of page and card: numbers of runs, and in words how a model was made."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from operator import itemgetter
from pathlib import Path

import numpy as np

from einthoven import __version__
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import EvaluationError
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
from einthoven.licences import Licence
from einthoven.predictions import Predictions, listed
from einthoven.records.record import Record
from einthoven.report.cases import calls_of, examples_of, gallery_of, reader
from einthoven.report.format import counted, without_folder

PREDICTIONS = "predictions"
RARE = 10
"""Labels with fewer positives are counted among the limitations."""
PARTS = ("population", "curves", "calibration", "subgroups", "robustness")
"""Parts of an evaluation that the page shows besides the scores."""
UNKNOWN = "not recorded"
REMEDY = "evaluate it again: einthoven card --model MODEL --cohort PATH"

_STAGES = {"stage1": "linear probe", "stage2": "fine-tuning"}
_SELECTIONS = {
    "best": "highest macro AUROC on the validation split",
    "lowest-loss": "lowest loss on the validation split",
    "last": "last epoch, not selected by validation",
}
_MADE = (
    "recipe", "policy", "without_effect", "penalty", "pretraining", "selected_epoch", "kept_stage",
    "selection",
)  # fmt: skip
_NOT_SETTINGS = ("description", "extends")  # of a recipe; it may describe what was left out
_ROUNDING = 1e-3  # of a macro value that is predicted again
_MEMBERS = "those of the ensemble's members"

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
        Source of the example ECGs and of the wording of labels.
    resamples : int
        Bootstrap resamples; scores of another number are computed again.
    prevalence : mapping of str to float, optional
        Prevalence by label, at which the predictive values of the first run are computed.
    command : str
        The command that writes the page.
    """
    tables = {name: _test_table(folder) for name, folder in runs.items()}
    entries = [_run(name, runs[name], table, resamples) for name, table in tables.items()]
    best = {run["name"]: run["training"]["best"] for run in entries}[reference]
    for run in entries if best else ():
        if run["name"] != reference:
            run["training"]["passes_reference_in_epoch"] = _passes(run, best["macro_auroc"])
    comparisons = [
        {"run": name, "reference": reference}
        | _paired(tables, (name, reference), resamples=resamples, by=entries[0]["score"]["unit"])
        for name in tables
        if name != reference
    ]
    first = entries[0]
    positives = [label["positives"] for label in first["score"]["per_label"].values()]
    table = tables[first["name"]]
    calls = calls_of(runs[first["name"]], table)
    read = reader(cohort, table.records) if cohort is not None else None
    examples = examples_of(calls, read) if calls and read else []
    rows = [entry["row"] for entry, _ in examples]
    gallery, drawn = gallery_of(calls, read, rows) if calls else (None, [])
    data = {
        "title": _title(first),
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
        "prevalence": _at_prevalence(first["evaluation"], prevalence or {}),
        "command": command,
    }
    return plain(data), [*(record for _, record in examples), *drawn]


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
        spent = [line[clock] for line in history for clock in clocks if clock in line]
        entries.append(
            {
                "name": name,
                "config": config,
                "command": shlex.join(config["command"]),
                "model": describe(config),
                "lowest": best_line(history, "validation_loss", min),
                "predictions": {},
                "training": {"history": history, "seconds": sum(spent) if spent else None},
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
    return Predictions.load(folder / PREDICTIONS / "test.parquet")


def _run(name: str, folder: Path, table: Predictions, resamples: int) -> Json:
    numbers, config, model = read_json(folder / METRICS_FILE), _config(folder), folder / "model"
    score, history = numbers["test"], stage_history(folder)
    if score["resamples"] != resamples:
        score = score_predictions(table, resamples=resamples, by=score["unit"]).to_dict()
    evaluation = _evaluation_of_run(model, score)
    trained = read_json(model / CONFIG_FILE) if (model / CONFIG_FILE).is_file() else config
    return {
        "name": name,
        "config": config,
        "command": shlex.join(config["command"]),
        "model": describe(config, trained),
        "synthetic": bool(cohort_of(flat(trained))["synthetic"]),
        "leakage": leakage(config),
        "score": score,
        "validation": numbers["validation"],
        "folds": numbers.get("folds"),
        "training": {
            "epochs": len(history),
            "best": best_line(history),
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


def _passes(run: Json, best: float) -> int | None:
    """The first epoch above the best one of the reference."""
    history = run["training"]["history"]
    above = (line["epoch"] for line in history if (line.get("macro_auroc") or 0.0) > best)
    return next(above, None)


def _paired(
    tables: Mapping[str, Predictions], names: tuple[str, str], *, resamples: int, by: str
) -> Json:
    table, reference = (tables[name] for name in names)
    comparison = compare(table, reference, resamples=resamples, by=by, names=names)
    return {"labels": len(table.labels)} | comparison.to_dict()


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
        return float(max(line["macro_auroc"] for line in lines[-1 if last else 0 :]))

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
    counts = [(each["records"], _positives(each)) for each in pair]
    ours, theirs = ([x["macro_auroc"], x["macro_auprc"]] for x in pair)
    # The model may have been evaluated again on another device.
    if counts[0] == counts[1] and np.allclose(ours, theirs, rtol=0, atol=_ROUNDING):
        return evaluation
    warnings.warn(
        f"{model / EVALUATION_FILE} is on other records than the predictions of the run; it is "
        f"left out; {REMEDY}",
        EvaluationWarning,
        stacklevel=3,
    )
    return {}


def _positives(score: Json) -> tuple[tuple[str, int], ...]:
    return tuple((label, entry["positives"]) for label, entry in score["per_label"].items())


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


def describe(config: Json, trained: Json | None = None) -> Json:
    """Describe how a model was made, for page and card, from its `config.json` or `run.json`.

    `trained` is the `config.json` of a run's model: what was done replaces what was requested.
    Values as recorded, with `cohort_text`, `stages`, `weights_text`, `weights_licence`,
    `selected_epochs`, `preparation_steps` and `settings` in words; what is not recorded is None,
    empty or `not recorded`.
    """
    values, made = flat(config), flat(trained or {})
    values |= {key: made[key] for key in _MADE if key in made}
    recipe = values.get("recipe") or {}
    weights, licence = _initial_weights(values, recipe)
    return {
        "name": values.get("name"),
        "backbone": values.get("backbone"),
        "labels": list(values.get("labels") or (values.get("id2label") or {}).values()),
        "descriptions": dict(values.get("descriptions") or {}),
        "members": list(values.get("members") or ()),
        "cohort": cohort_of(values),
        "cohort_text": _cohort_text(values),
        "recipe": text(recipe.get("name")),
        "stages": _stages(values, recipe),
        "settings": _settings(values, recipe),
        "policy": _policy(values),
        "weights_text": weights,
        "weights_licence": licence,
        "public_weights": values.get("public_weights") or None,
        "contains_ptbxl": _contains_ptbxl(values),
        "weights_data": _weights_data(values, recipe),
        "records_among_them": _records_among_them(values, recipe),
        "selected_epochs": _selected_epochs(values, recipe),
        "selection": values.get("selection") or None,
        "preparation_steps": text(values.get("preparation_text")).split("; "),
        "aggregate": text(values.get("aggregate")),
        "licence": str(Licence.from_dict(values)),
        "license": values.get("license"),
        "commercial_use": _commercial_use(values),
        "environment": list(_flattened({**values, **config}.get("environment") or {})),
        "records_digest": values.get("records_digest"),
        "processes": values.get("world"),
    }


def flat(config: Json) -> Json:
    """The fields of a config.json with those of its provenance, or the request of a run.json.

    Values of the recipe that were left to `auto` are replaced by those of the policy.
    """
    if "request" in config:
        request: Json = deepcopy(config["request"])
        for key, value in (request.get("policy") or {}).items():
            section, _, name = key.rpartition(".")
            part = request["recipe"][section] if section else request["recipe"]
            part[name] = None if (key, value) == ("stage2", "none") else value
        return request
    provenance = dict(config.get("provenance") or {})
    weights = {"weights": provenance["initial_weights"]} if "initial_weights" in provenance else {}
    return {**provenance, **weights, **config}


def text(value: object) -> str:
    """A recorded value; `not recorded` for none."""
    if value in (None, "", {}, []):
        return UNKNOWN
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flattened(values: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every entry of nested tables as `section.key` and its text."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), "none" if value in (None, [], "") else text(value)


def cohort_of(config: Json) -> Json:
    """Name, version, task and digest of the training cohort, and whether it was simulated.

    A model holds them as a table `cohort`, a run beside the name of the cohort.
    """
    cohort = config.get("cohort")
    if isinstance(cohort, Mapping):
        return dict.fromkeys(("name", "version", "task", "digest", "synthetic")) | dict(cohort)
    keys = {"version": "version", "task": "task", "digest": "cohort_digest"}
    keys |= {"synthetic": "cohort_synthetic"}
    return {"name": cohort} | {key: config.get(source) for key, source in keys.items()}


def _cohort_text(values: Json) -> str:
    """`ptb-xl 1.0.3, task all-71 (71 labels)`."""
    cohort, labels = cohort_of(values), values.get("labels") or values.get("id2label")
    return (
        text(cohort["name"])
        + (f" {cohort['version']}" if cohort["version"] else "")
        + (f", task {cohort['task']}" if cohort["task"] else "")
        + (f" ({counted(len(labels), 'label')})" if labels else "")
    )


def history_text(history: Sequence[Json]) -> str:
    """Training data of weights in words, oldest first."""
    stages = []
    for stage in history:
        details = [f"labels of {stage['task']}" if stage.get("task") else "without labels"]
        if stage.get("records"):
            details.insert(0, f"{stage['records']:,} records")
        if stage.get("recipe"):
            details.append(f"recipe {stage['recipe']}")
        name = f"{stage['cohort']} {stage.get('version') or ''}".rstrip()
        stages.append(f"{name} ({', '.join(details)})")
    return ", then ".join(stages)


def public_weights_bias(data: Json) -> str:
    """What public weights imply for results on PTB-XL, which they have seen or may have seen."""
    name, source = data["backbone"], data["pretraining_data"]
    if data["contains_ptbxl"]:
        return (
            f"the public weights of {name} were pretrained on data that include PTB-XL "
            f"({source}): PTB-XL is not an unseen cohort for them"
        )
    return (
        f"it is unknown whether the public weights of {name} were pretrained on PTB-XL "
        f"({source}): PTB-XL may not be an unseen cohort for them"
    )


def leakage(config: Json, evaluation: Json | None = None) -> list[str]:
    """Sentences on what the weights have seen of the records that they were evaluated on.

    Parameters
    ----------
    config : mapping
        The contents of `config.json` or of `run.json`: `public_weights` is about a public
        release, `leakage` about the test records of the run, which `--allow-leakage` permitted.
    evaluation : mapping, optional
        The contents of `evaluation.json`, which may be about other records than those of the run:
        its `public_weights` and `leakage` then replace those of the config.
    """
    values, evaluation = flat(config), evaluation or {}
    cohort = (evaluation.get("cohort") or cohort_of(values)).get("name")
    split = evaluation.get("split") or "test"
    public = evaluation.get("public_weights") or values.get("public_weights") or {}
    sentences = []
    if cohort and public.get("cohort") == cohort:
        sentences.append(public_weights_bias(public))
    for record in filter(None, (values.get("leakage"), evaluation.get("leakage"))):
        if (record["cohort"], record["split"]) == (cohort, split) and record["seen"]:
            # Only weights that were trained with labels have counts by use.
            verb = "trained" if record["uses"] else "pretrained"
            sentences.append(
                f"the weights were {verb} on {record['seen']} of the {record['records']} {split} "
                f"records of {cohort}: results on this split are optimistically biased"
            )
            break
    return [sentence[:1].upper() + sentence[1:] for sentence in sentences]


def _stages(values: Json, recipe: Json) -> str:
    """`linear probe for 100 epochs, then fine-tuning for 2 epochs with dropout 0.01`."""
    stages = []
    for key, name in _STAGES.items():
        stage = recipe.get(key) or {}
        epochs, drops = stage.get("epochs"), {"stochastic depth": "drop_path", "dropout": "dropout"}
        parts = [f"{wording} {stage[drop]:g}" for wording, drop in drops.items() if stage.get(drop)]
        if stage.get("solver") == "logistic":
            stages.append(f"logistic regression on frozen features (penalty {_penalty(values)})")
            continue
        if stop := stage.get("stop_after"):
            name += f" for {stop} of {epochs} epochs"
        elif epochs:
            name += f" for {counted(epochs, 'epoch')}"
        if stage:
            stages.append(name + (f" with {' and '.join(parts)}" if parts else ""))
    if not stages:
        return UNKNOWN
    remarks = [
        f"; fine-tuning {'discarded' if each['value'] == 'discarded' else 'left out'}: "
        f"{text(each['reason'])}"
        for each in _policy(values)
        if each["key"] == "stage2" and (each["value"] == "discarded" or not recipe.get("stage2"))
    ]
    if recipe.get("refit") == "always":
        remarks.append("; then trained again on training and validation records")
    start = "from random weights: " if recipe.get("initialise") == "random" else ""
    return start + ", then ".join(stages) + "".join(remarks)


def _policy(values: Json) -> list[Json]:
    """Values that a recipe left to `auto`: `key`, `value`, `reason` and, of several runs, `folds`.

    A `run.json` has no reasons.
    """
    policy = values.get("policy") or []
    if isinstance(policy, Mapping):
        policy = [{"key": k, "value": value, "reason": None} for k, value in policy.items()]
    return [{"folds": None, **each} for each in policy]


def _penalty(values: Json) -> str:
    """`0.316, cross-validated`, or the penalty of the recipe."""
    requested = ((values.get("recipe") or {}).get("stage1") or {}).get("penalty")
    if requested is not None:
        return f"{requested:.3g}"
    found = values.get("penalty")
    return "cross-validated" if found is None else f"{found:.3g}, cross-validated"


def _settings(values: Json, recipe: Json) -> list[tuple[str, str]]:
    """Keys of a recipe that have an effect, and their values."""
    ignored = {*_NOT_SETTINGS, *(values.get("without_effect") or ())}
    settings = {key: value for key, value in _flattened(recipe) if key not in ignored}
    if "stage1.penalty" in settings:
        settings["stage1.penalty"] = _penalty(values)
    return list(settings.items())


def _initial_weights(values: Json, recipe: Json) -> tuple[str, str]:
    """The initial weights and their licence in words."""
    weights, history = values.get("weights"), values.get("pretraining")
    if values.get("members"):
        return _MEMBERS, _MEMBERS
    if isinstance(weights, Mapping):
        names = (weights.get(key) for key in ("path", "name", "file"))
        origin = without_folder(text(next(filter(None, names), None)))
        origin += f" (SHA-256 {weights['sha256']})" if weights.get("sha256") else ""
        origin += f", trained with einthoven: {history_text(history)}" if history else ""
        return origin, str(Licence.from_dict(weights))
    if weights is None and recipe.get("initialise") == "random":
        return "random initialisation", "not applicable"
    if weights is None and "weights" in values and not values.get("public_weights"):
        return "random initialisation", UNKNOWN
    return text(weights), UNKNOWN


def _weights_data(values: Json, recipe: Json) -> str:
    """The data that the initial weights were trained on."""
    if recipe.get("initialise") == "random":
        return "no data: random initialisation"
    if public := values.get("public_weights"):
        return text(public.get("pretraining_data"))
    return history_text(values.get("pretraining") or ()) or UNKNOWN


def _records_among_them(values: Json, recipe: Json) -> str:
    """`none of 420 tested records`: those that the initial weights have seen."""
    if recipe.get("initialise") == "random":
        return "none: random initialisation"
    leakage, compared = values.get("leakage"), values.get("compared_records")
    if leakage and leakage["seen"]:
        return f"{leakage['seen']:,} of {counted(leakage['records'], 'tested record')}"
    if compared is None:
        return UNKNOWN
    if not compared:
        return "not checkable, because the weights have no fingerprints of what they have seen"
    return f"none of {counted(compared, 'tested record')}"


def _contains_ptbxl(values: Json) -> str | None:
    """Whether PTB-XL is in the pretraining data; None where no pretraining is recorded."""
    for record in (values, values.get("public_weights"), values.get("weights")):
        if isinstance(record, Mapping) and "contains_ptbxl" in record:
            return {True: "yes", False: "no"}.get(record["contains_ptbxl"], "unknown")
    return None


def _commercial_use(values: Json) -> bool | None:
    weights = values.get("weights")
    terms = values if "commercial_use" in values else weights
    return Licence.from_dict(terms).commercial_use if isinstance(terms, Mapping) else None


def _selected_epochs(values: Json, recipe: Json) -> str:
    """`fine-tuning: epoch 2 of 5, highest macro AUROC on the validation split`."""
    stages, one = [], len(values.get("labels") or values.get("id2label") or ()) == 1
    for name, epoch in (values.get("selected_epoch") or {}).items():
        stage = recipe.get(name) or {}
        rule = _SELECTIONS.get(str(stage.get("select")), "")
        rule = rule.replace("macro ", "") if one else rule
        rates = stage.get("base_lr_sweep") or ()
        if stage.get("solver") == "logistic":
            stages.append("logistic regression: solved to its optimum")
            continue
        discarded = name == "stage2" and values.get("kept_stage") == "stage1"
        stages.append(
            f"{_STAGES.get(name, name)}: epoch {epoch}"
            + (f" of {stage['epochs']}" if stage.get("epochs") else "")
            + (f", {rule}" if rule else "")
            + (f", best of {len(rates)} learning rates" if len(rates) > 1 else "")
            + (", discarded: no better than the probe on the validation split" if discarded else "")
        )
    return "; ".join(stages) or UNKNOWN
