"""The tables of page and card: each is built once, and written as HTML or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from einthoven.files import Json
from einthoven.report import format as form
from einthoven.report.format import NONE, Interval, Number, confidence

TEMPLATES = Path(__file__).with_name("templates")
METRICS = {"auroc": "AUROC", "auprc": "AUPRC"}
ATTRIBUTES = {"sex": "sex", "age": "age in years"}
MEASURES = (
    ("macro", "log_loss", "log loss"),
    ("macro", "brier", "Brier score"),
    ("macro", "ece_mass", "mean ECE over labels, bins of equal mass"),
    ("macro", "ece_width", "mean ECE over labels, bins of equal width"),
    ("micro", "ece_mass", "ECE over all record-label pairs, bins of equal mass"),
    ("micro", "ece_width", "ECE over all record-label pairs, bins of equal width"),
)
"""Macro or micro, the key of a measure of calibration, and its name."""
UNDEFINED = {
    "resample": "a resample without a positive or a negative of some label is drawn again",
    "skip": "labels without positives or without negatives are left out of the mean",
    "zero": "labels without positives or without negatives count as 0 in the mean",
    "error": "every label needs positives and negatives in every resample",
}
"""Policies for undefined labels."""
_POLICIES = {
    "native": "the network's handling of missing leads",
    "derived": "limb leads that follow from others are computed",
}


@dataclass(frozen=True)
class Value:
    """A number with its interval: in HTML as `<data>` elements of full precision, else as text."""

    value: Number
    limits: Interval = None
    write: Callable[[Any], str] = form.number
    mark: str = ""

    def __str__(self) -> str:
        span = self._interval()
        return self.write(self.value) + (f" ({' to '.join(map(self.write, span))})" if span else "")

    def __html__(self) -> str:
        shown, span = self._data(self.value), self._interval()
        if span:
            ends = Markup(" to ").join(self._data(limit) for limit in span)
            shown += Markup('<span class="limits"> ({})</span>').format(ends)
        if self.mark:
            arrow = "▲" if self.mark == "better" else "▼"
            return Markup('<strong class="{}">{} {}</strong>').format(self.mark, shown, arrow)
        return shown

    def _interval(self) -> list[float] | None:
        low, high = (None, None) if self.limits is None else self.limits
        return None if self.value is None or low is None or high is None else [low, high]

    def _data(self, value: Number) -> Markup:
        text = self.write(value)
        if value is None or value != value:
            return Markup(text)
        return Markup('<data value="{}">{}</data>').format(repr(value), text)


def metric(
    value: Number, limits: Interval = None, *, signed: bool = False, places: int = 3
) -> Value:
    """A metric, or with a sign a difference of metrics."""
    return Value(value, limits, partial(form.number, signed=signed, places=places))


def share(value: Number, *, signed: bool = False) -> Value:
    """A share, in per cent."""
    return Value(value, write=partial(form.percent, signed=signed))


def count(value: int | None) -> Value:
    """A whole number."""
    return Value(value, write=form.count)


def seconds(value: float | None) -> Value:
    """A duration."""
    return Value(value, write=form.duration)


def significant(value: Number) -> Value:
    """A number of any magnitude, to four digits."""
    return Value(value, write=lambda each: NONE if each is None else f"{each:.4g}")


@dataclass(frozen=True)
class Label:
    """A label with its wording; Markdown has the label alone."""

    name: str
    wording: str | None = None

    def __str__(self) -> str:
        return self.name

    def __html__(self) -> str:
        if not self.wording or self.wording == self.name:
            return Markup("{}").format(self.name)
        return Markup('{} <span class="wording">{}</span>').format(self.name, self.wording)


Cell = str | int | Value | Label
"""Plain text, a count, a number, or a label."""


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of a row is its heading."""

    identity: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: str = "numbers"

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, with counts as values."""
        return [[count(c) if isinstance(c, int) else c for c in row] for row in self.rows]

    def markdown(self) -> Markup:
        """The table without its caption."""
        rows = [[escaped(str(cell)) for cell in row] for row in (self.head, *self.cells)]
        rows.insert(1, ["---"] * len(self.head))
        return Markup("\n".join(f"| {' | '.join(row)} |" for row in rows))


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands, in one line."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|])|(?<!\w)_|_(?!\w)", lambda match: "\\" + match.group(), flat)


def pair_of(report: Json, run: str) -> Json | None:
    """The comparison of a run with the reference."""
    wanted = (run, report["reference"])
    pairs = (pair for pair in report["comparisons"] if (pair["run"], pair["reference"]) == wanted)
    return next(pairs, None)


def intervals_of(score: Json) -> str:
    """`95 % percentile bootstrap intervals`."""
    if not score["resamples"]:
        return "no intervals, since no resamples were drawn"
    return f"{confidence(score['level'])} {score['interval']} bootstrap intervals"


def resamples_of(result: Json) -> str:
    """`1,000 resamples by record, seed 0`."""
    if not result["resamples"]:
        return "no resamples"
    unit = result.get("unit") or result.get("by")
    return f"{result['resamples']:,} resamples by {unit}, seed {result['seed']}"


def macro_table(report: Json, key: str) -> Table:
    """Macro values of every run, and their gains over the reference."""
    name, reference = METRICS[key], report["reference"]
    caption = f"Macro {name} on the test split, with {intervals_of(report['runs'][0]['score'])}."
    head = ["Run", "Labels", f"Macro {name}"]
    head += ["Bootstrap bias"] if key == "auprc" else []
    head += ["Validation"]
    if reference:
        caption += f" Gains are relative to {reference}, on paired resamples."
        head += ["Gain", "Relative gain"]
    rows = [_macro_row(report, run, key) for run in report["runs"]]
    return Table(f"table-{key}", caption, head, rows)


def _macro_row(report: Json, run: Json, key: str) -> list[Cell]:
    score, macro = run["score"], f"macro_{key}"
    row: list[Cell] = [run["name"], score["defined_labels"]]
    row.append(metric(score[macro], score[f"{macro}_interval"]))
    if key == "auprc":
        row.append(metric(score[f"{macro}_bias"], signed=True))
    row.append(metric(run["validation"].get(macro)))
    if not report["reference"]:
        return row
    pair = pair_of(report, run["name"])
    if pair is None:
        return [*row, "reference" if run["name"] == report["reference"] else NONE, NONE]
    difference = pair[key]
    gain = metric(difference["macro"], difference["macro_interval"], signed=True)
    return [*row, gain, share(difference["relative_gain"], signed=True)]


def paired_table(report: Json) -> Table:
    """Every paired comparison, in both metrics."""
    level = confidence(report["runs"][0]["score"]["level"])
    caption = (
        "Paired differences. “Above zero” is the share of resamples with a positive difference. "
        "“Better” and “worse” count the labels whose interval excludes zero, without correction "
        "for multiple comparisons."
    )
    head = ["Comparison", "Metric", f"Difference ({level} interval)", "Relative", "Above zero"]
    head += ["Labels improved", "Better", "Worse"]
    rows = [
        [f"{pair['run']} minus {pair['reference']}", *_paired_row(pair, key)]
        for pair in report["comparisons"]
        for key in METRICS
    ]
    return Table("table-paired", caption, head, rows)


def splits_table(evaluation: Json) -> Table:
    """Macro values of one model on the splits of its evaluation, as a card has them."""
    splits = {evaluation.get("split") or "test": evaluation["score"]}
    if evaluation.get("validation"):
        splits["validation"] = evaluation["validation"]
    head = ["Split", *(f"Macro {name}" for name in METRICS.values())]
    rows: list[list[Cell]] = [
        [split]
        + [metric(score.get(f"macro_{key}"), score.get(f"macro_{key}_interval")) for key in METRICS]
        for split, score in splits.items()
    ]
    return Table("", "", head, rows)


def comparison_table(comparison: Json) -> Table:
    """One paired comparison, as a card has it."""
    head = ["Metric", "Difference", "Relative", "Above zero", "Labels improved", "Better", "Worse"]
    return Table("", "", head, [_paired_row(comparison, key) for key in METRICS])


def _paired_row(pair: Json, key: str) -> list[Cell]:
    difference = pair[key]
    return [
        METRICS[key],
        metric(difference["macro"], difference["macro_interval"], signed=True),
        share(difference["relative_gain"], signed=True),
        share(difference["share_above_zero"]),
        f"{difference['improved']} of {len(difference['per_label'])}",
        count(difference["significantly_better"]),
        count(difference["significantly_worse"]),
    ]


def training_table(report: Json) -> Table:
    """The best epoch of every run by validation, and the time of training."""
    reference = report["reference"]
    caption = "Best epochs by validation macro AUROC."
    head = ["Run", "Epochs", "Best epoch", "Macro AUROC", "Macro AUPRC"]
    if reference:
        caption += f" A run exceeds {reference} where it is above the best epoch of {reference}."
        head.append(f"Exceeds {reference} in epoch")
    rows = []
    for run in report["runs"]:
        training, best = run["training"], run["training"]["best"]
        row: list[Cell] = [run["name"], training["epochs"], count(best.get("epoch"))]
        row += [metric(best.get(f"macro_{key}")) for key in METRICS]
        row += [count(training["passes_reference_in_epoch"])] if reference else []
        rows.append([*row, seconds(training["seconds"])])
    return Table("table-training", caption, [*head, "Wall time"], rows)


def label_table(report: Json) -> Table:
    """Every label of the first run, with its differences to the reference."""
    run = report["runs"][0]
    pair = pair_of(report, run["name"])
    caption = f"Every label of {run['name']} on the test split"
    caption += f" ({confidence(run['score']['level'])} intervals)"
    caption += f", and the paired difference to {pair['reference']}" if pair else ""
    return labels_table(run["score"], pair, report["descriptions"], f"{caption}.")


def labels_table(score: Json, pair: Json | None, descriptions: Json, caption: str = "") -> Table:
    """Positives, AUROC and AUPRC of every label."""
    head = ["Label", "Positives", *METRICS.values()]
    head += [f"{name} difference" for name in METRICS.values()] if pair else []
    rows = []
    for label, entry in score["per_label"].items():
        row: list[Cell] = [Label(label, descriptions.get(label)), entry["positives"]]
        row += [metric(entry[key], entry[f"{key}_interval"]) for key in METRICS]
        row += [_difference(pair[key]["per_label"].get(label)) for key in METRICS] if pair else []
        rows.append(row)
    return Table("table-labels", caption, head, rows, kind="numbers dense")


def _difference(entry: Json | None) -> Cell:
    if entry is None or entry["difference"] is None:
        return NONE
    low, high = entry["interval"] or (None, None)
    better, worse = low is not None and low > 0, high is not None and high < 0
    mark = "better" if better else "worse" if worse else ""
    return Value(entry["difference"], entry["interval"], partial(form.number, signed=True), mark)


def runs_by_label(report: Json) -> Table:
    """AUROC and AUPRC of every label in every run."""
    runs = report["runs"]
    head = ["Label"] + [f"{name}, {run['name']}" for name in METRICS.values() for run in runs]
    rows: list[list[Cell]] = [
        [label]
        + [
            metric(run["score"]["per_label"].get(label, {}).get(key))
            for key in METRICS
            for run in runs
        ]
        for label in runs[0]["score"]["per_label"]
    ]
    caption = "Every label in every run, without intervals."
    return Table("table-runs-by-label", caption, head, rows, kind="numbers dense")


def evaluation_tables(evaluation: Json) -> dict[str, Any]:
    """The tables of calibration, decisions, subgroups and robustness; None for missing parts."""
    calibration, subgroups = evaluation.get("calibration"), evaluation.get("subgroups")
    robustness = evaluation.get("robustness")
    return {
        "calibration_table": calibration_table(calibration) if calibration else None,
        "decisions_table": decisions_table(calibration)
        if calibration and calibration["after"]
        else None,
        "subgroup_tables": subgroup_tables(subgroups) if subgroups else {},
        "robustness_table": robustness_table(robustness) if robustness else None,
    }


def calibration_table(calibration: Json) -> Table:
    """Measures of calibration before, after, and their change."""
    after = calibration["after"]
    caption, head = "Calibration on the test split", ["Measure", "Before"]
    if after:
        caption += (
            ", before and after the calibration that was fitted on the validation split, with "
            f"{confidence(calibration['level'])} intervals of {resamples_of(calibration)}"
        )
        head += ["After", "Change"]
    rows = []
    for kind, key, name in MEASURES:
        row: list[Cell] = [name, metric(calibration["before"][kind][key], places=5)]
        if after:
            change = calibration["change"].get(key) if kind == "macro" else None
            row.append(metric(after[kind][key], places=5))
            row.append(
                metric(change["difference"], change["interval"], signed=True, places=5)
                if change
                else NONE
            )
        rows.append(row)
    return Table("table-calibration", f"{caption}.", head, rows)


def decisions_table(calibration: Json) -> Table:
    """The threshold of every label, and the decisions that follow from it."""
    head = ["Label", "Threshold", "Positives", "Called", "Sensitivity", "Specificity"]
    head += ["Precision", "F1"]
    rows: list[list[Cell]] = [
        [
            label,
            metric(entry["threshold"], places=4),
            calibration["positives"][label],
            entry["called"],
            *(metric(entry[key]) for key in ("sensitivity", "specificity", "precision", "f1")),
        ]
        for label, entry in calibration["decisions"].items()
    ]
    caption = "Decisions on the test split with thresholds from the validation split."
    return Table("table-decisions", caption, head, rows, kind="numbers dense")


def subgroup_tables(subgroups: Json) -> dict[str, Table]:
    """A table for every attribute."""
    head = ["Group", "Records", "Patients", "Labels", "Macro AUROC", "Gap", "Macro AUPRC", "Gap"]
    tables: dict[str, Table] = {}
    for attribute, groups in subgroups["attributes"].items():
        unknown = subgroups["unknown"][attribute]
        caption = (
            f"By {ATTRIBUTES.get(attribute, attribute)}, with {confidence(subgroups['level'])} "
            f"intervals of {resamples_of(subgroups)}."
            + (f" {unknown:,} records without a value are in no group." if unknown else "")
        )
        rows = [_group_row(group) for group in groups]
        identity = f"table-subgroups-{len(tables) + 1}"
        tables[attribute] = Table(identity, caption, head, rows, kind="numbers dense")
    return tables


def _group_row(group: Json) -> list[Cell]:
    row: list[Cell] = [group[key] for key in ("name", "records", "patients", "labels")]
    for key in METRICS:
        value, gap = group[key], group[f"{key}_gap"]
        row.append(metric(value["value"], value["interval"]))
        row.append(metric(gap["value"], gap["interval"], signed=True))
    return row


def robustness_table(robustness: Json) -> Table:
    """The clean split, then every condition beside it."""
    head = ["Condition"]
    for name in METRICS.values():
        head += [f"Macro {name}", "Difference"]
    clean = [robustness["clean"]] if robustness["clean"] else []
    changed = [each for key in ("leads", "noise", "offsets") for each in robustness.get(key, ())]
    rows = []
    for condition in (*clean, *changed):
        row: list[Cell] = [_condition(condition)]
        for key in METRICS:
            value = condition[key]
            limits = value.get("difference_interval")
            row.append(metric(value["value"], value["interval"]))
            row.append(metric(value.get("difference"), limits, signed=True))
        rows.append([*row, *(metric(condition[key], places=4) for key in ("log_loss", "ece"))])
    caption = (
        f"Fewer leads, noise and offsets on {robustness['records']:,} records, with paired "
        f"differences to the clean signals; intervals of {resamples_of(robustness)}."
    )
    head += ["Log loss", "ECE"]
    return Table("table-robustness", caption, head, rows, kind="numbers dense")


def _condition(condition: Json) -> str:
    if "leads" not in condition:
        return str(condition.get("name", "all leads, no noise"))
    policy = _POLICIES.get(condition["policy"], condition["policy"])
    return f"{condition['name']} ({', '.join(condition['leads'])}; {policy})"
