"""Descriptions in words: how a model was made, and which records its weights have seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

from einthoven.files import Json
from einthoven.licences import Licence
from einthoven.report.format import counted, without_folder
from einthoven.tasks import kind_of

UNKNOWN = "not recorded"

_SELECTIONS = {
    "best": "highest macro AUROC on the validation split",
    "lowest-loss": "lowest loss on the validation split",
    "last": "last epoch, not selected by validation",
}
_RESULTS = (
    "recipe", "policy", "without_effect", "penalty", "pretraining", "selected_epoch", "kept_stage",
    "selection",
)  # fmt: skip
_OUTPUTS = {"labels": "label", "values": "number"}
_NOT_SETTINGS = ("description", "extends")  # of a recipe; it may describe what was left out
_MEMBERS = "those of the ensemble's members"


def describe(config: Json, model: Json | None = None) -> Json:
    """Describe how a model was made, for page and card, from its `config.json` or `run.json`.

    `model` is the `config.json` of a run's model: what was done replaces what was requested.
    Values as recorded, with `cohort_text`, `stages`, `weights_text`, `weights_licence`,
    `selected_epochs`, `preparation_steps` and `settings` in words; what is not recorded is None,
    empty or `not recorded`.
    """
    values, results = flat(config), flat(model or {})
    values |= {key: results[key] for key in _RESULTS if key in results}
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
        + (f" ({_counted_outputs(len(labels), form_of(values))})" if labels else "")
    )


def _counted_outputs(count: int, form: str) -> str:
    """`71 labels`, `5 classes` or `1 number`."""
    return f"{count} classes" if form == "classes" else counted(count, _OUTPUTS.get(form, "label"))


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
    """Bias of results on PTB-XL by public weights that have seen it, or may have seen it."""
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
    for key, name in _names(recipe).items():
        stage = recipe.get(key) or {}
        epochs, drops = stage.get("epochs"), {"stochastic depth": "drop_path", "dropout": "dropout"}
        parts = [f"{words} {stage[drop]:g}" for words, drop in drops.items() if stage.get(drop)]
        if stage.get("solver") == "logistic":
            names = {"classes": "multinomial logistic", "values": "ridge"}
            name = names.get(form_of(values), "logistic")
            stages.append(f"{name} regression on frozen features (penalty {_penalty(values)})")
            continue
        if epochs:
            name += f" for {counted(epochs, 'epoch')}"
        if stage:
            stages.append(name + (f" with {' and '.join(parts)}" if parts else ""))
    if not stages:
        return UNKNOWN
    remarks = [
        f"; fine-tuning {'discarded' if entry['value'] == 'discarded' else 'left out'}: "
        f"{text(entry['reason'])}"
        for entry in _policy(values)
        if entry["key"] == "stage2" and (entry["value"] == "discarded" or not recipe.get("stage2"))
    ]
    if recipe.get("refit") == "always":
        remarks.append("; then trained again on training and validation records")
    start = "from random weights: " if recipe.get("initialise") == "random" else ""
    return start + ", then ".join(stages) + "".join(remarks)


def _names(recipe: Json) -> dict[str, str]:
    """Names of the stages of a recipe."""
    is_linear = recipe.get("head", "linear") == "linear"
    return {"stage1": f"{'linear' if is_linear else recipe['head']} probe", "stage2": "fine-tuning"}


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
    penalty = values.get("penalty")
    return "cross-validated" if penalty is None else f"{penalty:.3g}, cross-validated"


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


def form_of(values: Json) -> str:
    """Whether a model, or a run, predicts labels, classes or values."""
    task = values.get("target") or values.get("task")
    return kind_of(task["kind"]).form if isinstance(task, Mapping) else "labels"


def _selected_epochs(values: Json, recipe: Json) -> str:
    """`fine-tuning: epoch 2 of 5, highest macro AUROC on the validation split`."""
    stages, one = [], len(values.get("labels") or values.get("id2label") or ()) == 1
    for name, epoch in (values.get("selected_epoch") or {}).items():
        stage = recipe.get(name) or {}
        rule = _SELECTIONS.get(str(stage.get("select")), "")
        rule = rule.replace("macro ", "") if one else rule
        if form_of(values) != "labels" and stage.get("select") == "best":
            rule = _SELECTIONS["lowest-loss"]
        rates = stage.get("base_lr_sweep") or ()
        if stage.get("solver") == "logistic":
            stages.append("penalised regression: solved to its optimum")
            continue
        discarded = name == "stage2" and values.get("kept_stage") == "stage1"
        stages.append(
            f"{_names(recipe).get(name, name)}: epoch {epoch}"
            + (f" of {stage['epochs']}" if stage.get("epochs") else "")
            + (f", {rule}" if rule else "")
            + (f", best of {len(rates)} learning rates" if len(rates) > 1 else "")
            + (", discarded: no better than the probe on the validation split" if discarded else "")
        )
    return "; ".join(stages) or UNKNOWN
