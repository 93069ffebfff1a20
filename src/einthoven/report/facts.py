"""What `run.json` and `bundle.json` say of a model, in words, and what they do not say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

UNKNOWN = "not recorded"

About = Mapping[str, Any]

_OF_MEMBERS = "those of its members"
_OF_PTB_XL = (
    "none of their own; they were pretrained with einthoven on PTB-XL, which is published under "
    "CC BY 4.0 (attribute Wagner et al. 2020)"
)
_STAGES = {"stage1": "linear probe", "stage2": "fine-tuning"}
_SELECTIONS = {
    "best": "the best by macro AUROC on the validation split",
    "lowest-loss": "the one with the lowest loss on the validation split",
    "last": "the last one; validation chose nothing",
}
_UNITS = {"rate": "Hz", "cutoff": "Hz", "mean": "mV", "std": "mV", "seconds": "s"}


def asked_of(about: About) -> About:
    """What was asked of a run: `asked` of run.json; a bundle's description itself."""
    asked: About = about.get("request", about)
    return asked


def text(value: object) -> str:
    """A recorded value; `not recorded` for none."""
    if value is None or value == "" or value == {} or value == []:
        return UNKNOWN
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def cohort_of(about: About) -> dict[str, Any]:
    """Name, version, task and digest of the training cohort.

    A bundle holds them as a table `cohort`, a run beside the cohort's name.
    """
    cohort = about.get("cohort")
    if isinstance(cohort, Mapping):
        return dict(cohort)
    keys = {"version": "version", "task": "task", "digest": "cohort_digest"}
    return {"name": cohort} | {key: about.get(source) for key, source in keys.items()}


def cohort_sentence(about: About) -> str:
    """`ptb-xl 1.0.3, task all-71 (71 labels)`."""
    cohort, labels = cohort_of(about), about.get("labels")
    parts = [text(cohort.get("name"))]
    if cohort.get("version"):
        parts[0] += f" {cohort['version']}"
    if cohort.get("task"):
        parts.append(f"task {cohort['task']}")
    return ", ".join(parts) + (f" ({len(labels)} labels)" if labels else "")


def recipe_name(about: About) -> str:
    """The recipe's name."""
    return text((about.get("recipe") or {}).get("name"))


def recipe_sentence(about: About) -> str:
    """The stages of a recipe and what regularises them."""
    recipe = about.get("recipe") or {}
    stages = [
        _stage("a linear probe of the head", recipe.get("stage1")),
        _stage("full fine-tuning", recipe.get("stage2")),
    ]
    known = [stage for stage in stages if stage]
    if not known:
        return UNKNOWN
    start = "from random weights: " if recipe.get("initialise") == "random" else ""
    return start + ", then ".join(known)


def weights_sentence(about: About) -> str:
    """Where the backbone's weights came from."""
    weights, recipe = about.get("weights"), about.get("recipe") or {}
    if about.get("members"):
        return _OF_MEMBERS
    if isinstance(weights, Mapping):
        digest, before = weights.get("sha256"), weights.get("pretraining")
        named = text(weights.get("path")) + (f" (SHA-256 {digest})" if digest else "")
        return named + (f", pretrained with einthoven: {before}" if before else "")
    if weights is None and recipe.get("initialise") == "random":
        return "none: random weights"
    return text(weights)


def weights_licence(about: About) -> str:
    """The terms of the initial weights; `none needed` where there are none.

    Weights that einthoven pretrained have no terms but those of their data, where these are known.
    """
    weights = about.get("weights")
    if about.get("members"):
        return _OF_MEMBERS
    if isinstance(weights, Mapping):
        own = weights.get("licence")
        return _OF_PTB_XL if not own and pretrained_on_ptbxl(about) else text(own)
    return "none needed" if weights_sentence(about) != UNKNOWN else UNKNOWN


def pretrained_on_ptbxl(about: About) -> bool:
    """Whether the initial weights were pretrained with einthoven, on PTB-XL under its own name."""
    weights = about.get("weights")
    said = weights.get("pretraining") if isinstance(weights, Mapping) else None
    return bool(re.search(r"(?<![\w-])ptb-xl(?![\w-])", said or "", flags=re.IGNORECASE))


def selection_sentence(about: About) -> str:
    """How the epochs that were kept were chosen: `epoch 20 of 24, ...` of every stage."""
    recipe, chosen = about.get("recipe") or {}, about.get("selected_epoch") or {}
    named = [
        f"{_STAGES.get(name, name)}: {_selected(epoch, recipe.get(name) or {})}"
        for name, epoch in chosen.items()
    ]
    return "; ".join(named) or UNKNOWN


def _selected(epoch: int, stage: Mapping[str, Any]) -> str:
    place = f"epoch {epoch}" + (f" of {stage['epochs']}" if stage.get("epochs") else "")
    rule = stage.get("select") or stage.get("hand_on")
    why = _SELECTIONS.get(str(rule))
    tried = stage.get("base_lr_sweep") or ()
    rates = f", at the best of {len(tried)} learning rates there" if len(tried) > 1 else ""
    return place + (f", {why}" if why else "") + rates


def seen_before(about: About, cohort: Any) -> list[str]:
    """What the weights had seen of the cohort that they were tested on, or may have; a text each.

    `public_weights` speaks of a release's weights, `overlap` of an encoder or a bundle that was
    trained here on those records: on test records of its run, which somebody allowed, or on what
    the bundle was measured on later (`measured`).
    """
    public, own = (about.get(key) or {} for key in ("public_weights", "overlap"))
    texts = [public["warning"]] if public.get("warning") and public.get("cohort") == cohort else []
    if own.get("cohort") == cohort and own.get("seen"):
        split = own.get("measured") or "test"
        whose, why = ("it", "") if own.get("measured") else ("the encoder", ", as somebody allowed")
        texts.append(
            f"{whose} {_how_seen(own)} {own['seen']} of the {text(own.get(f'{split} records'))} "
            f"{split} records of {cohort}{why}: results there are too good"
        )
    return [said[:1].upper() + said[1:] for said in texts]


def _how_seen(own: About) -> str:
    # Of a bundle the counts by use are there: it may have been trained on them with labels.
    return "has seen" if any(key.startswith("in ") for key in own) else "was pretrained on"


def ptbxl_inside(about: About) -> str | None:
    """Whether PTB-XL was among the pretraining data of the public weights; None without them."""
    public = about.get("public_weights")
    if not public:
        return None
    return {True: "yes", False: "no", None: "unknown"}[public.get("contains_ptbxl", True)]


def preparation_steps(about: About) -> list[str]:
    """What is done to a signal before the network sees it, one thing after the other.

    The wording `preparation_text` is preferred to the steps that `preparation` lists.
    """
    given, preparation = about.get("preparation_text"), about.get("preparation")
    if given or not isinstance(preparation, Mapping):
        return text(given).split("; ")
    leads = preparation.get("leads") or []
    steps = [_step(step) for step in preparation.get("steps") or []]
    return [f"{len(leads)} leads: {', '.join(leads)}", *steps]


def environment_text(about: About) -> str:
    """Versions that the model was made with, where they are recorded."""
    return ", ".join(f"{key} {value}" for key, value in flattened(about.get("environment") or {}))


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every entry of nested tables as `section.key` and its text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), "none" if value in (None, [], "") else text(value)


def _stage(what: str, stage: Any) -> str | None:
    if not stage:
        return None
    sentence = what
    if stage.get("epochs"):
        sentence += f" for {stage['epochs']} epoch{'s' if stage['epochs'] != 1 else ''}"
    drops = [
        f"{name} {stage[key]:g}"
        for key, name in (("drop_path", "stochastic depth"), ("dropout", "dropout"))
        if stage.get(key)
    ]
    return sentence + (f" with {' and '.join(drops)}" if drops else "")


def _step(step: Mapping[str, Any]) -> str:
    details = []
    for key, value in step.items():
        if key != "step":
            unit = f" {_UNITS[key]}" if key in _UNITS else ""
            details.append(f"{key.replace('_', ' ')} {text(value)}{unit}")
    return text(step.get("step")) + (f" ({', '.join(details)})" if details else "")
