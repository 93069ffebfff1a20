"""The model card: what a bundle is, what it was trained on, how good it is. Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from einthoven.licences import is_non_commercial, terms_of
from einthoven.report import facts
from einthoven.report.card_evidence import evidence_sections
from einthoven.report.format import (
    confidence,
    count,
    interval,
    number,
    percent,
    with_interval,
)
from einthoven.report.markdown import code, escaped, escaped_all, items, table

Json = Mapping[str, Any]

_PTB_XL = (
    "Attribution: Wagner et al., PTB-XL, a large publicly available electrocardiography dataset, "
    "Scientific Data 7:154, 2020. The data are published on PhysioNet under CC BY 4.0."
)
_SYNTHETIC = "The data are synthetic: computed waveforms of nobody, which say nothing of patients."
_USE = """\
Research on electrocardiograms with the leads and the labels named below. Not a medical device: it
was not validated for the diagnosis or the treatment of patients, and must not be used for either.

- Probabilities are those of the training cohort's statements and population. Elsewhere their level
  can be off, and their order too.
- The numbers below hold for the records that they were measured on. Other hospitals, devices and
  populations were not tested.
- Labels with few positives in the test split have wide intervals, or none."""


def model_card(
    about: Json,
    score: Json,
    validation: Json | None,
    *,
    comparison: Json | None = None,
    evidence: Json | None = None,
    reliability: str | None = None,
) -> str:
    """Write the model card of a bundle from its description and its numbers.

    What they do not say is written as `not recorded`.

    Parameters
    ----------
    about : mapping
        The contents of `bundle.json`. Read are `backbone`, `weights` (`path`, `sha256`,
        `licence`, `pretraining`), `cohort` (`name`, `version`, `task`, `digest`, `synthetic`),
        `labels`, `descriptions`, `recipe`, `selected_epoch`, `environment`, `preparation` (or its
        wording, `preparation_text`), `aggregate`, `licence`, what the initial weights had seen:
        `public_weights` and `overlap`, and, where its maker wrote them there (`update_bundle`),
        `name` and `chosen_among`.
    score : mapping
        `Score.to_dict()` of the test split.
    validation : mapping or None
        `macro_auroc` and `macro_auprc` of the validation split.
    comparison : mapping, optional
        `Comparison.to_dict()` with this model as a; `reference` in it names b.
    evidence : mapping, optional
        The contents of `evidence.json`: `calibration`, `subgroups` and `robustness` have a section
        where they are there, `cohort` and `split` say what was measured, `public_weights` what
        the initial weights had seen of it, `overlap` what the bundle has.
    reliability : str, optional
        File of the reliability diagram, relative to the card.

    Returns
    -------
    str
        Markdown.
    """
    asked = facts.asked_of(about)
    sections = (
        (None, _what(asked)),
        ("Intended use and limits", _USE),
        ("Training data", _data(asked)),
        ("Training", _training(asked)),
        ("Preparation of signals", _preparation(asked)),
        ("Results", _results(asked, score, validation, comparison, evidence or {})),
        *evidence_sections(evidence or {}, reliability),
        ("Results by label", _by_label(score, comparison)),
        ("Labels", _labels(asked)),
        ("How to use", _how_to_use()),
        ("Licence", _licence(asked)),
    )
    name = f"{escaped(facts.text(asked['name']))}: " if asked.get("name") else ""
    title = f"# {name}{escaped(facts.text(asked.get('backbone')))} on {_cohort_name(asked)}"
    parts = [text if name is None else f"## {name}\n\n{text}" for name, text in sections]
    return "\n\n".join([title, *parts]) + "\n"


def _what(about: Json) -> str:
    labels = about.get("labels") or []
    shown = f"{len(labels)} labels" if labels else "labels (not recorded)"
    return (
        f"An ECG classifier: the backbone `{code(about.get('backbone'))}` with a linear head that "
        f"gives a probability to each of {shown}, trained with einthoven by the recipe "
        f"“{escaped(facts.recipe_name(about))}”."
    )


def _data(about: Json) -> str:
    cohort = facts.cohort_of(about)
    lines = [
        items(
            ("cohort", cohort.get("name")),
            ("version", cohort.get("version")),
            ("task", cohort.get("task")),
            ("digest of ids, folds and targets", cohort.get("digest")),
        )
    ]
    if cohort.get("name") == "ptb-xl":
        lines.append(_PTB_XL)
    if cohort.get("synthetic") or "synthetic" in str(cohort.get("name")).lower():
        lines.append(_SYNTHETIC)
    return "\n\n".join(lines)


def _training(about: Json) -> str:
    sentence = facts.recipe_sentence(about)
    summary = items(
        ("initial weights of the backbone", facts.weights_sentence(about)),
        *_public(about),
        ("stages", sentence),
        ("epoch that was kept", facts.selection_sentence(about)),
        *([("chosen among", about["chosen_among"])] if about.get("chosen_among") else []),
        ("made with", facts.environment_text(about)),
    )
    settings = list(facts.flattened(about.get("recipe") or {}))
    if not settings:
        return summary
    return summary + "\n\n" + table(["Setting", "Value"], map(escaped_all, settings))


def _public(about: Json) -> list[tuple[str, str]]:
    inside = facts.ptbxl_inside(about)
    if inside is None:
        return []
    return [
        ("pretraining data of those weights", about["public_weights"]["pretraining_data"]),
        ("PTB-XL among them", inside),
    ]


def _preparation(about: Json) -> str:
    steps = [f"{i}. {escaped(step)}" for i, step in enumerate(facts.preparation_steps(about), 1)]
    crops = escaped(facts.text(about.get("aggregate")))
    return "\n".join(steps) + f"\n\nHow the crops of a record are joined: {crops}."


def _seen(about: Json, evidence: Json) -> list[str]:
    tested = evidence.get("cohort") or facts.cohort_of(about)
    newer = evidence.get("public_weights")  # it may have been measured on another cohort
    said = {**about, "public_weights": newer} if newer else dict(about)
    # What somebody allowed was of the run's own test split.
    split, allowed = evidence.get("split") or "test", about.get("overlap") or {}
    if (tested.get("name"), split) != (allowed.get("cohort"), "test"):
        overlap = evidence.get("overlap")
        said["overlap"] = {**overlap, "measured": split} if overlap else None
    return facts.seen_before(said, tested.get("name"))


def _results(
    asked: Json, score: Json, validation: Json | None, comparison: Json | None, evidence: Json
) -> str:
    head = ["Split", "Macro AUROC", "Macro AUPRC"]
    rows = [[evidence.get("split") or "test", _macro(score, "auroc"), _macro(score, "auprc")]]
    if validation:
        rows.append(["validation", _macro(validation, "auroc"), _macro(validation, "auprc")])
    parts = [table(head, rows), _conditions(score)]
    if evidence.get("cohort"):
        tested = facts.cohort_sentence({"cohort": evidence["cohort"]})
        parts.insert(0, f"Measured on the {evidence['split']} split of {escaped(tested)}.")
    parts[:0] = [f"**{escaped(each)}.**" for each in _seen(asked, evidence)]
    return "\n\n".join([*parts, *([_against(comparison)] if comparison else [])])


def _macro(score: Json, metric: str) -> str:
    return with_interval(score.get(f"macro_{metric}"), score.get(f"macro_{metric}_interval"))


def _conditions(score: Json) -> str:
    labels = len(score["per_label"])
    text = (
        f"{count(score['records'])} test records; means over labels, {score['defined_labels']} of "
        f"{labels} of which have positives and negatives (policy "
        f"`{score['undefined_labels']}`). AUPRC is "
        f"{score['auprc_definition'].replace('-', ' ')}."
    )
    if not score["resamples"]:
        return f"{text} No resamples were drawn, so there are no intervals."
    return (
        f"{text} In brackets: {confidence(score['level'])} {score['interval']} intervals from "
        f"{count(score['resamples'])} bootstrap resamples by {score['unit']}, seed "
        f"{score['seed']}. The bootstrap's bias is "
        f"{number(score['macro_auroc_bias'], signed=True)} in macro AUROC and "
        f"{number(score['macro_auprc_bias'], signed=True)} in macro AUPRC."
    )


def _against(comparison: Json) -> str:
    reference = escaped(comparison.get("reference", "the reference"))
    rows = [_against_row(name, comparison[key]) for key, name in _METRICS]
    head = ["Metric", "Difference", "Relative", "Labels improved", "Better", "Worse"]
    return (
        f"Paired differences to {reference} on the same records. Better and worse count the labels "
        f"whose own interval leaves out zero.\n\n{table(head, rows)}"
    )


_METRICS = (("auroc", "macro AUROC"), ("auprc", "macro AUPRC"))


def _against_row(name: str, found: Json) -> list[str]:
    return [
        name,
        with_interval(found["macro"], found["macro_interval"], signed=True),
        percent(found["relative_gain"], signed=True),
        f"{found['improved']} of {len(found['per_label'])}",
        count(found["significantly_better"]),
        count(found["significantly_worse"]),
    ]


def _by_label(score: Json, comparison: Json | None) -> str:
    head = ["Label", "Positives", "AUROC", "Interval", "AUPRC", "Interval"]
    head += ["AUROC difference"] if comparison else []
    return table(head, _label_rows(score, comparison))


def _label_rows(score: Json, comparison: Json | None) -> Iterator[list[str]]:
    for label, entry in score["per_label"].items():
        row = [escaped(label), count(entry["positives"])]
        for metric in ("auroc", "auprc"):
            row += [number(entry[metric]), interval(entry[f"{metric}_interval"])]
        if comparison:
            found = comparison["auroc"]["per_label"].get(label, {})
            difference, span = found.get("difference"), found.get("interval")
            row.append(with_interval(difference, span, signed=True))
        yield row


def _labels(about: Json) -> str:
    labels, descriptions = about.get("labels") or [], about.get("descriptions") or {}
    if not labels:
        return facts.UNKNOWN
    named = [(label, descriptions.get(label)) for label in labels]
    return "In the order of the model's outputs:\n\n" + "\n".join(
        f"{place}. {escaped(label)}" + (f": {escaped(wording)}" if wording else "")
        for place, (label, wording) in enumerate(named, 1)
    )


def _how_to_use() -> str:
    return (
        "```sh\neinthoven predict --bundle PATH FILE\n```\n\n"
        "`PATH` is the folder of this card, `FILE` an ECG. The bundle's weights and what "
        "else decides a prediction are checked against the checksums in `bundle.json` before they "
        "are used."
    )


def _licence(about: Json) -> str:
    initial = facts.weights_licence(about)
    terms = items(("of this model", about.get("licence")), ("of the initial weights", initial))
    if is_non_commercial(terms_of(about)):
        terms = f"**Not for commercial use.**\n\n{terms}"
    if facts.pretrained_on_ptbxl(about) and facts.cohort_of(about).get("name") != "ptb-xl":
        terms += f"\n\n{_PTB_XL}"  # otherwise it stands beside the training data
    return terms + "\n\nThe terms of the initial weights and of the training data hold beside it."


def _cohort_name(about: Json) -> str:
    cohort = facts.cohort_of(about)
    version = f" {cohort['version']}" if cohort.get("version") else ""
    return escaped(facts.text(cohort.get("name")) + version)
