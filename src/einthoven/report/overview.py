"""The first screen of page and card: what a model is, how good, on whom, what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from einthoven.files import Json
from einthoven.report.measures import measured
from einthoven.report.tables import (
    RARE,
    RATES,
    Cell,
    Phrase,
    Value,
    count,
    macro_name,
    metric_of,
    share,
    significant,
)
from einthoven.tasks import kind_of

_CHANCE = 0.5
_MOST_NAMED = 3  # outputs that are named one by one
_MOST_MEASURES = 4
_RATES = ("sensitivity", "specificity", "precision")
_MEASURES_OF_NUMBERS = ("mae", "bias", "r2")
_NOT_A_DEVICE = "Not a medical device: not validated for the diagnosis or treatment of patients."

Item = tuple[str, Cell]


@dataclass(frozen=True)
class Overview:
    """The most important facts about a model.

    Attributes
    ----------
    panels : dict of str to list of (str, Cell)
        Named facts by heading.
    limits : list of Cell
        Sentences on what it cannot do.
    """

    panels: dict[str, list[Item]]
    limits: list[Cell] = field(default_factory=list)


def overview(
    model: Json,
    score: Json,
    evaluation: Json,
    *,
    patients: int | None = None,
    leakage: Sequence[str] = (),
    simulated: bool = False,
) -> Overview:
    """Select the facts of the first screen.

    Parameters
    ----------
    model : dict
        From `einthoven.report.description.describe`.
    score, evaluation : dict
        Of the tested records; parts that the evaluation lacks are left out.
    patients : int, optional
        Patients of the tested records, where the evaluation does not describe them.
    leakage : sequence of str
        Sentences on tested records that the weights have seen.
    simulated : bool
        Whether ECGs were simulated.
    """
    form = kind_of(score["kind"]).form if "kind" in score else "labels"
    results = {"labels": _of_labels, "classes": _of_classes, "values": _of_numbers}[form]
    return Overview(
        {
            "What it is": list(_model(model, score, form)),
            "How good": [*results(score, evaluation), *_coverage(evaluation)],
            "On whom": list(_records(model, score, evaluation, patients, simulated=simulated)),
        },
        list(_limits(model, score, evaluation, form, leakage, simulated=simulated)),
    )


def _model(model: Json, score: Json, form: str) -> Iterator[Item]:
    nouns = {"labels": ("Label", "labels"), "classes": ("Class", "classes")}
    one, several = nouns.get(form, ("Number", "numbers"))
    names = list(score["per_label"])
    if len(names) == 1:
        meaning = model["descriptions"].get(names[0])
        yield one, f"{names[0]}: {meaning}" if meaning and meaning != names[0] else names[0]
    else:
        yield several.capitalize(), Phrase([count(len(names)), f" ({named(names)})"])
    if model["members"]:
        yield "Ensemble", Phrase([count(len(model["members"])), " runs, unweighted mean"])
    else:
        yield "Network", str(model["backbone"] or "not recorded")
        yield "Recipe", str(model["recipe"])
    answers = {"labels": "a probability of each label", "classes": "a probability of each class"}
    yield "Answer", answers.get(form, "a number")
    yield "Use", "research only"


def _of_labels(score: Json, evaluation: Json) -> Iterator[Item]:
    per_label = score["per_label"]
    several = len(per_label) > 1
    yield (
        f"{macro_name('auroc', len(per_label))}, chance {_CHANCE}",
        metric_of(score, "macro_auroc"),
    )
    if len(per_label) > _MOST_NAMED:
        yield from _extremes(per_label)
        return
    decisions = (evaluation.get("calibration") or {}).get("decisions") or {}
    for label in per_label:
        for key in _RATES if label in decisions else ():
            yield RATES[key] + (f", {label}" if several else ""), metric_of(decisions[label], key)


def _extremes(per_label: Json) -> Iterator[Item]:
    """The labels with the highest and the lowest AUROC, of those with enough positives."""
    enough = [
        label
        for label, entry in per_label.items()
        if entry["auroc"] is not None and entry["positives"] >= RARE
    ]
    for name, best in (("Highest AUROC", max), ("Lowest AUROC", min)):
        if len(enough) > 1:
            label = best(enough, key=lambda x: per_label[x]["auroc"])
            yield name, Phrase([f"{label} ", metric_of(per_label[label], "auroc")])


def _of_classes(score: Json, _: Json) -> Iterator[Item]:
    for item in list(measured(score))[:_MOST_MEASURES]:
        yield item.name, item.cell()


def _of_numbers(score: Json, _: Json) -> Iterator[Item]:
    several = len(score["per_label"]) > _MOST_NAMED
    shown = _MEASURES_OF_NUMBERS[: 1 if several else None]
    for item in [x for x in measured(score) if x.metric in shown][: 3 * _MOST_NAMED]:
        yield item.name + (f", {item.unit}" if item.unit else ""), item.cell()


def _coverage(evaluation: Json) -> Iterator[Item]:
    overall = (evaluation.get("coverage") or {}).get("overall") or {}
    sides = {"present": " of positives", "absent": " of negatives", "true": " of records"}
    parts: list[str | Value | Phrase] = []
    for side, words in sides.items():
        if side in overall and overall[side]["covered"] is not None:
            parts += [", "] if parts else []
            parts += [share(overall[side]["covered"]), words]
    if parts:
        asked = evaluation["coverage"]["coverage"]
        yield f"Prediction sets with the truth, {100 * asked:g} % asked for", Phrase(parts)


def _records(
    model: Json, score: Json, evaluation: Json, patients: int | None, *, simulated: bool
) -> Iterator[Item]:
    split = "test" if evaluation.get("split") is None else evaluation["split"]
    parts = (evaluation.get("population") or {}).get("parts") or {}
    folds = bool(evaluation.get("folds"))
    part = parts.get("all" if folds else split) or parts.get("all" if len(parts) == 1 else "") or {}
    people = part.get("patients") or patients
    where = " records, out of fold" if folds else f" {split} records".replace("all ", "")
    words: list[str | Value | Phrase] = [count(score["records"]), where]
    yield "Records", Phrase([*words, ", of ", count(people), " patients"] if people else words)
    cohort = evaluation.get("cohort") or model["cohort"]
    name = f"{cohort['name'] or 'not recorded'} {cohort.get('version') or ''}".rstrip()
    yield "Cohort", name + (" (simulated)" if simulated else "")
    yield from _positives(score, part)
    if age := part.get("age"):
        values = [significant(age[key]) for key in ("median", "lower_quartile", "upper_quartile")]
        median, lower, upper = values
        yield "Age, years", Phrase([median, " (quartiles ", lower, " and ", upper, ")"])
    if sexes := part.get("sex"):
        shares: list[str | Value | Phrase] = []
        for sex, entry in list(sexes.items())[:_MOST_NAMED]:
            shares += [", "] if shares else []
            shares += [share(entry["share"]), f" {sex or 'not recorded'}"]
        yield "Sex", Phrase(shares)


def _positives(score: Json, part: Json) -> Iterator[Item]:
    found = {x: y["positives"] for x, y in score["per_label"].items() if "positives" in y}
    if len(found) == 1:
        (label, number), *_ = found.items()
        shown = (part.get("positives") or {}).get(label) or {}
        is_same = shown.get("records") == number
        words: list[str | Value | Phrase] = [count(number)]
        yield "Positives", Phrase([*words, " (", share(shown["share"]), ")"] if is_same else words)
    elif found:
        noun = "class" if "measures" in score else "label"
        fewest, most = count(min(found.values())), count(max(found.values()))
        yield (
            "Positives",
            Phrase([fewest, " to ", most, f" by {noun}"]),
        )


def _limits(
    model: Json,
    score: Json,
    evaluation: Json,
    form: str,
    leakage: Sequence[str],
    *,
    simulated: bool,
) -> Iterator[Cell]:
    yield _NOT_A_DEVICE
    if simulated:
        yield "Simulated ECGs: the results do not hold for patients."
    per_label = score["per_label"]
    if form == "labels":
        noun = "this label" if len(per_label) == 1 else "these labels"
        yield f"Other findings than {noun} are not looked for."
    elif form == "classes":
        yield "One of these classes is always answered, even where none is right."
    else:
        yield "Extreme values are predicted towards the mean of the training records."
    yield "Other hospitals, devices and populations were not tested."
    noun = "classes" if form == "classes" else "labels"
    few = [label for label, entry in per_label.items() if 0 < entry.get("positives", RARE) < RARE]
    if few:
        words = f" with fewer than {RARE} positives, with imprecise results: {named(few)}."
        yield Phrase([count(len(few)), f" of {len(per_label)} {noun}", words])
    chance = [
        label
        for label, entry in per_label.items()
        if (entry.get("auroc_interval") or (1.0, 1.0))[0] <= _CHANCE
    ]
    if chance:
        yield f"Not shown to be better than chance: {named(chance)}."
    undecided = (evaluation.get("coverage") or {}).get("overall", {}).get("undecided")
    if undecided:
        yield Phrase([share(undecided), " of the prediction sets have no single answer."])
    for sentence in leakage:
        yield f"{sentence}."
    if model["commercial_use"] is False:
        yield "Not for commercial use."


def named(names: Sequence[str]) -> str:
    """The first three names and the number of the others: `A, B, C and 68 others`."""
    others = len(names) - _MOST_NAMED
    if others < 2:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMED])} and {others} others"
