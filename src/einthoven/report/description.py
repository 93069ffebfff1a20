"""How a model was made, in words: from the request of a run or the config.json of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from einthoven.licences import Licence

Json = Mapping[str, Any]

UNKNOWN = "not recorded"

_STAGES = {"stage1": "linear probe", "stage2": "fine-tuning"}
_SELECTIONS = {
    "best": "highest macro AUROC on the validation split",
    "lowest-loss": "lowest loss on the validation split",
    "last": "last epoch, not selected by validation",
}
_MEMBERS = "those of the ensemble's members"


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
        if isinstance(value, Mapping):
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
    public = values.get("public_weights")
    known = values if "contains_ptbxl" in values else public or {}
    if "contains_ptbxl" not in known:
        return None
    return {True: "yes", False: "no"}.get(known["contains_ptbxl"], "unknown")


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
