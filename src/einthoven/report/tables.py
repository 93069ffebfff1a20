"""The tables of page and card: each is built once, and written as HTML or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from einthoven.evaluate.calibrate import MIN_FOR_TEMPERATURES
from einthoven.files import Json
from einthoven.predictions.missing_leads import LARGEST_LOSS, LOWEST_AUROC, answered_labels
from einthoven.report import format as form
from einthoven.report.description import flat, text
from einthoven.report.format import NONE, Limits, Number, confidence

TEMPLATES = Path(__file__).with_name("templates")
SCORES = {"auroc": "AUROC", "auprc": "AUPRC"}
ATTRIBUTES = {"sex": "sex", "age": "age in years"}
CONFUSION = {
    "true_positives": "True positives",
    "false_positives": "False positives",
    "false_negatives": "False negatives",
    "true_negatives": "True negatives",
}
RATES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "PPV",
    "npv": "NPV",
    "f1": "F1",
}
MEASURES = (
    ("macro", "log_loss", "log loss"),
    ("macro", "brier", "Brier score"),
    ("macro", "ece_mass", "mean ECE over labels, bins of equal mass"),
    ("macro", "ece_width", "mean ECE over labels, bins of equal width"),
    ("micro", "ece_mass", "ECE over all record-label pairs, bins of equal mass"),
    ("micro", "ece_width", "ECE over all record-label pairs, bins of equal width"),
)
"""Macro or micro, the key of a measure of calibration, and its name."""
RARE = 10
"""Labels with fewer positives are counted among the limitations."""
UNDEFINED = {
    "resample": "a resample without a positive or a negative of some label is drawn again",
    "skip": "labels without positives or without negatives are left out of the mean",
    "zero": "labels without positives or without negatives count as 0 in the mean",
    "error": "every label needs positives and negatives in every resample",
}
"""Policies for undefined labels."""


@dataclass(frozen=True)
class Value:
    """A number with its interval: in HTML as `<data>` elements of full precision, else as text.

    `mark` is "better" or "worse" where the interval excludes zero; `reason` is shown in place of
    an interval that is absent.
    """

    value: Number
    limits: Limits = None
    write: Callable[[Any], str] = form.number
    mark: str = ""
    reason: str | None = None

    def __str__(self) -> str:
        return " ".join([self.write(self.value), *self._span(self.write)])

    def __html__(self) -> str:
        markup = self._data(self.value)
        for span in self._span(self._data):
            markup += Markup(' <span class="limits">{}</span>').format(Markup(span))
        if self.mark:
            arrow = "▲" if self.mark == "better" else "▼"
            return Markup('<strong class="{}">{} {}</strong>').format(self.mark, markup, arrow)
        return markup

    def _span(self, write: Callable[[Any], str]) -> list[str]:
        low, high = self.limits or (None, None)
        if self.value is None:
            return []
        if low is None or high is None:
            return [f"({self.reason})"] if self.reason else []
        return [f"({write(low)} to {write(high)})"]

    def _data(self, value: Number) -> Markup:
        string = self.write(value)
        if value is None or value != value:
            return Markup(string)
        return Markup('<data value="{}">{}</data>').format(repr(value), string)


def metric(
    value: Number, limits: Limits = None, *, signed: bool = False, places: int = 3, mark: str = ""
) -> Value:
    """A metric, or with a sign a difference of metrics."""
    return Value(value, limits, partial(form.number, signed=signed, places=places), mark)


def metric_of(values: Json, name: str, *, signed: bool = False, mark: str = "") -> Value:
    """The metric `name` of a score, comparison or label, with its interval."""
    limits = "interval" if name in ("value", "difference") else f"{name}_interval"
    value = metric(values.get(name), values.get(limits), signed=signed, mark=mark)
    return replace(value, reason=values.get(f"{limits}_reason"))


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
    return Value(value, write=lambda value: NONE if value is None else f"{value:.4g}")


@dataclass(frozen=True)
class Phrase:
    """Numbers with text between them: `48 (13.1 %)`."""

    parts: Sequence[str | Value | Phrase]

    def __str__(self) -> str:
        return "".join(map(str, self.parts))

    def __html__(self) -> str:
        return Markup("").join(self.parts)


Cell = str | int | Value | Phrase
"""Plain text or markup, a count, or numbers."""


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


def escaped(value: str) -> str:
    """Text that Markdown shows as it stands, in one line."""
    line = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|])|(?<!\w)_|_(?!\w)", lambda match: "\\" + match.group(), line)


def pair_of(report: Json, run: str) -> Json | None:
    """The comparison of a run with the reference."""
    return next((pair for pair in report["comparisons"] if pair["run"] == run), None)


def resamples_of(result: Json) -> str:
    """`1,000 resamples by record, seed 0`."""
    if not result["resamples"]:
        return "no resamples"
    return f"{result['resamples']:,} resamples by {result['unit']}, seed {result['seed']}"


def kind_of_intervals(score: Json) -> str:
    """`percentile`; for `auto` the kinds of either metric, exact for an AUROC of 1 or 0."""
    if score["interval"] != "auto":
        return str(score["interval"])
    values = [score["macro_auroc"], *(entry["auroc"] for entry in score["per_label"].values())]
    exact = [value in (0, 1) for value in values if value is not None]
    kinds = [*(["exact"] if any(exact) else []), *(["percentile"] if not all(exact) else [])]
    return f"{' or '.join(kinds)} (AUROC) and leave-one-out (AUPRC)"


def macro(labels: int) -> str:
    """`macro ` before the name of a metric that is a mean over labels."""
    return "macro " if labels != 1 else ""


def macro_name(key: str, labels: int) -> str:
    """`Macro AUROC`, or `AUROC` of a single label."""
    name = macro(labels) + SCORES[key]
    return name[0].upper() + name[1:]


def results_tables(report: Json) -> Json:
    """The tables of a page about results, by name; None for missing parts."""
    run, reference = report["runs"][0], report["reference"]
    score, pair = run["score"], pair_of(report, run["name"])
    intervals = "no intervals, since no resamples were drawn"
    if score["resamples"]:
        intervals = f"{confidence(score['level'])} intervals"
    caption = f"Every label of {run['name']} {_split(run['folds'])}"
    caption += f" ({confidence(score['level'])} intervals)"
    caption += f", and the paired difference to {reference}." if pair else "."
    return {
        "intervals": intervals,
        "macro_tables": [_macro_table(report, key, intervals) for key in SCORES],
        "paired_table": _paired_table(report) if report["comparisons"] else None,
        "training_table": _training_table(report),
        "label_table": labels_table(score, pair, report["descriptions"], caption),
        **evaluation_tables(run["evaluation"], len(score["per_label"])),
    }


def _split(folds: object) -> str:
    """The records of a result in words; `folds` is true for out-of-fold predictions."""
    return "out of fold" if folds else "on the test split"


def _macro_table(report: Json, key: str, intervals: str) -> Table:
    """Macro values of every run, and their gains over the reference."""
    reference = report["reference"]
    name = macro_name(key, len(report["runs"][0]["score"]["per_label"]))
    caption = f"{name} {_split(report['runs'][0]['folds'])}, with {intervals}."
    head = ["Run", "Labels", name, "Estimated bias", "Validation"]
    if reference:
        caption += f" Gains are relative to {reference}, on paired resamples."
        head += ["Gain", "Relative gain"]
    rows: list[list[Cell]] = []
    for run in report["runs"]:
        score, pair = run["score"], pair_of(report, run["name"])
        row: list[Cell] = [run["name"], score["defined_labels"]]
        row.append(metric_of(score, f"macro_{key}"))
        row.append(metric(score[f"macro_{key}_bias"], signed=True))
        row.append(metric(run["validation"].get(f"macro_{key}")))
        if pair:
            gain = pair[key]
            row.append(metric_of(gain, "macro", signed=True))
            row.append(share(gain["relative_gain"], signed=True))
        elif reference:
            row += ["reference", NONE]
        rows.append(row)
    return Table(f"table-{key}", caption, head, rows)


def _paired_table(report: Json) -> Table:
    """Every paired comparison, in both metrics."""
    level = confidence(report["runs"][0]["score"]["level"])
    caption = (
        "Paired differences. “Above zero” is the share of resamples with a positive difference. "
        "“Better” and “worse” count the labels whose interval excludes zero, without correction "
        "for multiple comparisons."
    )
    head = ["Comparison", "Metric", f"Difference ({level} interval)", "Relative", "Above zero"]
    head += ["Labels improved", "Better", "Worse"]
    rows: list[list[Cell]] = []
    for pair in report["comparisons"]:
        for key, name in SCORES.items():
            difference = pair[key]
            gain = metric_of(difference, "macro", signed=True)
            row: list[Cell] = [f"{pair['run']} minus {pair['reference']}", name, gain]
            row.append(share(difference["relative_gain"], signed=True))
            row.append(share(difference["share_above_zero"]))
            row.append(f"{difference['improved']} of {pair['labels']}")
            row += [count(difference[f"significantly_{way}"]) for way in ("better", "worse")]
            rows.append(row)
    return Table("table-paired", caption, head, rows)


def _training_table(report: Json) -> Table:
    """The best epoch of every run by validation, and the time of training."""
    reference, labels = report["reference"], len(report["runs"][0]["score"]["per_label"])
    of_classes = "measures" in report["runs"][0]["score"]
    caption = f"Best epochs by validation {'loss' if of_classes else macro(labels) + 'AUROC'}."
    names = {f"macro_{key}": macro_name(key, labels) for key in SCORES}
    names = {"validation_loss": "Loss", "accuracy": "Accuracy"} if of_classes else names
    head = ["Run", "Epochs", "Best epoch", *names.values(), "Wall time"]
    reference = None if of_classes else reference
    if reference:
        caption += f" A run exceeds {reference} where it is above the best epoch of {reference}."
        head.append(f"Exceeds {reference} in epoch")
    rows: list[list[Cell]] = []
    for run in report["runs"]:
        training, best = run["training"], run["training"]["best"]
        row: list[Cell] = [run["name"], training["epochs"], count(best.get("epoch"))]
        row += [metric(best.get(key)) for key in names]
        row.append(seconds(training["seconds"]))
        rows.append(row + ([count(training["passes_reference_in_epoch"])] if reference else []))
    return Table("table-training", caption, head, rows)


def labels_table(
    score: Json, pair: Json | None = None, descriptions: Json | None = None, caption: str = ""
) -> Table:
    """Positives, AUROC and AUPRC of every label, and the differences of a pair of runs."""
    head = ["Label", "Positives", *SCORES.values()]
    head += [f"{name} difference" for name in SCORES.values()] if pair else []
    rows: list[list[Cell]] = []
    for label, entry in score["per_label"].items():
        row: list[Cell] = [_label(label, (descriptions or {}).get(label)), entry["positives"]]
        row += [metric_of(entry, key) for key in SCORES]
        row += [_difference(pair[key]["per_label"][label]) for key in SCORES] if pair else []
        rows.append(row)
    return Table("table-labels", caption, head, rows, kind="numbers dense")


def _label(name: str, description: str | None) -> str:
    if not description or description == name:
        return name
    return Markup('{} <span class="description">{}</span>').format(name, description)


def verdict(entry: Json) -> int:
    """1 for a difference whose interval is above zero, -1 below zero, else 0."""
    low, high = entry["interval"] or (0.0, 0.0)
    return int(low > 0) - int(high < 0)


def _difference(entry: Json) -> Value:
    mark = ("", "better", "worse")[verdict(entry)]
    return metric_of(entry, "difference", signed=True, mark=mark)


def splits_table(evaluation: Json) -> Table:
    """Macro values of one model on the splits of its evaluation, as a card has them."""
    split = "out of fold" if evaluation.get("folds") else evaluation.get("split") or "test"
    splits = {split: evaluation["score"]}
    if evaluation.get("validation"):
        splits["validation"] = evaluation["validation"]
    labels = len(evaluation["score"]["per_label"])
    head = ["Split", "Labels", *(macro_name(key, labels) for key in SCORES)]
    rows: list[list[Cell]] = [
        [split, score.get("defined_labels", NONE)]
        + [metric_of(score, f"macro_{key}") for key in SCORES]
        for split, score in splits.items()
    ]
    return Table("", "", head, rows)


def evaluation_tables(evaluation: Json, labels: int) -> dict[str, Any]:
    """The tables of calibration, decisions and subgroups; None or empty for missing parts.

    `labels` is the number of labels of the run.
    """
    calibration, subgroups = evaluation.get("calibration"), evaluation.get("subgroups")
    return {
        "calibration_table": _calibration_table(calibration) if calibration else None,
        "decision_tables": _decision_tables(calibration)
        if calibration and calibration["decisions"]
        else [],
        "subgroup_tables": _subgroup_tables(subgroups, labels) if subgroups else [],
    }


def fitted_on(calibration: Json) -> str:
    """Records that a calibration was fitted on, in words."""
    if calibration.get("cross_fitted"):
        return "the other folds"
    fit = calibration.get("fit") or {}
    if fit.get("split") == "out of fold":
        return f"out-of-fold predictions of {form.counted(fit['records'], 'training record')}"
    return "the validation split"


def _calibration_table(calibration: Json) -> Table:
    """Measures of calibration before, after, and their change; without `after`, only values."""
    before, after = calibration["before"], calibration["after"]
    caption = f"Calibration {_split(calibration.get('cross_fitted'))}"
    head = ["Measure", "Before" if after else "Value"]
    if after:
        caption += (
            f", before and after a calibration that was fitted on {fitted_on(calibration)}, with "
            f"{confidence(calibration['level'])} intervals of {resamples_of(calibration)}"
        )
        head += ["After", "Change"]
    rows: list[list[Cell]] = []
    for kind, key, name in MEASURES:
        row: list[Cell] = [name, metric(before[kind][key], places=5)]
        if after:
            change = calibration["change"].get(key, {}) if kind == "macro" else {}
            difference, limits = change.get("difference"), change.get("interval")
            row.append(metric(after[kind][key], places=5))
            row.append(metric(difference, limits, signed=True, places=5))
        rows.append(row)
    return Table("table-calibration", f"{caption}.", head, rows)


def _decision_tables(calibration: Json) -> list[Table]:
    """Confusion matrix of every label at its threshold, and the rates that follow from it."""
    confusion: list[list[Cell]] = []
    rates: list[list[Cell]] = []
    for label, entry in calibration["decisions"].items():
        confusion.append([label, metric(entry["threshold"], places=4)])
        confusion[-1] += [entry[name] for name in CONFUSION]
        rates.append([label, *(metric_of(entry, name) for name in RATES)])
    is_cross_fitted = calibration.get("cross_fitted")
    caption = f"Calls {_split(is_cross_fitted)} at thresholds from {fitted_on(calibration)}."
    caption += " The table has the thresholds of the final model." if is_cross_fitted else ""
    head = ["Label", "Threshold", *CONFUSION.values()]
    level = confidence(calibration["level"])
    return [
        Table("table-confusion", caption, head, confusion, kind="numbers dense"),
        Table(
            "table-rates",
            f"Accuracy of these calls, with {level} intervals.",
            ["Label", *RATES.values()],
            rates,
            kind="numbers dense",
        ),
    ]


def _subgroup_tables(subgroups: Json, labels: int) -> list[Table]:
    """A table for every attribute."""
    head = ["Group", "Records", "Patients", "Labels"]
    head += [name for key in SCORES for name in (macro_name(key, labels), "Gap")]
    level, resamples = confidence(subgroups["level"]), resamples_of(subgroups)
    tables: list[Table] = []
    for attribute, groups in subgroups["attributes"].items():
        caption = f"By {ATTRIBUTES.get(attribute, attribute)}, with {level} intervals "
        caption += f"of {resamples}."
        if unknown := subgroups["unknown"][attribute]:
            caption += f" {unknown:,} records without a value are in no group."
        rows: list[list[Cell]] = []
        for group in groups:
            row: list[Cell] = [group[key] for key in ("name", "records", "patients", "labels")]
            for key in SCORES:
                value, gap = group[key], group[f"{key}_gap"]
                row += [metric_of(value, "value"), metric_of(gap, "value", signed=True)]
            rows.append(row)
        identity = f"table-subgroups-{len(tables) + 1}"
        tables.append(Table(identity, caption, head, rows, kind="numbers dense"))
    return tables


def errors_table(gallery: Json, anchors: Mapping[int, str]) -> Table:
    """Wrong calls; `anchors` are the ids of the elements that draw a record, by its row."""
    head = ["Record", "Patient", "Label", "Verdict", "Truth", "Probability", "Threshold"]
    head += ["Signal quality"]
    rows: list[list[Cell]] = []
    for error in gallery["errors"]:
        anchor, record = anchors.get(error["row"]), error["record"]
        name = Markup('<a href="#{}">{}</a>').format(anchor, record) if anchor else record
        row: list[Cell] = [name, error["patient"], error["label"], error["call"], error["truth"]]
        row += [metric(error[key]) for key in ("probability", "threshold")]
        quality = error["quality"]
        rows.append([*row, "not read" if quality is None else quality or "no warning"])
    caption = "Wrong calls, missed labels first, the most confident of every label first."
    return Table("table-errors", caption, head, rows, kind="words dense")


def wrong_classes_table(errors: Sequence[Json]) -> Table:
    """Records with another most probable class than the true one."""
    head = [
        "Record",
        "Patient",
        "True class",
        "Predicted class",
        "Probability",
        "Of the true class",
    ]
    rows: list[list[Cell]] = [
        [error["record"], error["patient"], error["truth"], error["predicted"]]
        + [metric(error[key]) for key in ("probability", "probability_of_truth")]
        for error in errors
    ]
    caption = "Records with a wrong class, the most confident ones first."
    return Table("table-errors", caption, head, rows, kind="words dense")


def policy_table(policy: Sequence[Json]) -> Table:
    """Settings that the size of the cohort, or validation, determines, with the reasons."""
    has_folds = any(entry["folds"] for entry in policy)
    head = ["Setting", "Value", "Reason", *(["Folds"] if has_folds else [])]
    caption = "Settings that the recipe leaves open, with the reason of each decision"
    caption += ", the first one if folds differ." if has_folds else "."
    rows: list[list[Cell]] = [
        [entry["key"], text(entry["value"]), text(entry["reason"])]
        + ([text(entry["folds"] or "all")] if has_folds else [])
        for entry in policy
    ]
    return Table("table-policy", caption, head, rows, kind="words")


def answers_table(accuracy: Json, labels: int) -> Table:
    """Accuracy with fewer leads, and the labels that are still answered."""
    head = ["Leads", macro_name("auroc", labels), "Change", "Labels answered"]
    rows: list[list[Cell]] = [["all", metric(accuracy["all"]["macro_auroc"]), NONE, "all"]]
    for entry in accuracy["sets"]:
        answered = answered_labels(accuracy, entry["leads"])
        row: list[Cell] = [f"{entry['name']} ({', '.join(entry['leads'])})"]
        row += [metric(entry["macro_auroc"]), metric(-entry["macro_loss"], signed=True)]
        rows.append([*row, ", ".join(answered) or "none: predictions are refused"])
    caption = (
        f"Accuracy with fewer leads on {accuracy['records']:,} records of the {accuracy['split']} "
        f"split of {text(accuracy['cohort'])}, and the labels that are still answered: those that "
        f"lose at most {LARGEST_LOSS:g} of AUROC, sensitivity and precision, and have an AUROC of "
        f"{LOWEST_AUROC:g} or more."
    )
    return Table("table-answers", caption, head, rows)


def losses_table(report: Json) -> Table:
    """The progress of every pretraining run."""
    head = ["Run", "Epochs", "Training loss", "Validation loss", "Lowest", "At epoch", "Time"]
    rows: list[list[Cell]] = []
    for run in report["runs"]:
        last, lowest = run["training"]["history"][-1], run["lowest"]
        planned = (flat(run["config"]).get("recipe") or {}).get("epochs")
        row: list[Cell] = [run["name"], f"{last['epoch']} of {text(planned)}"]
        row += [significant(last.get(key)) for key in ("train_loss", "validation_loss")]
        row += [significant(lowest.get("validation_loss")), count(lowest.get("epoch"))]
        rows.append([*row, seconds(run["training"]["seconds"])])
    return Table("table-runs", "Progress of every run.", head, rows)


def epochs_table(run: Json, place: int) -> Table:
    """Every number of every epoch of a pretraining run."""
    history = run["training"]["history"]
    keys = [key for key in history[-1] if key != "epoch"]
    rows: list[list[Cell]] = [
        [str(line["epoch"]), *(significant(line.get(key)) for key in keys)] for line in history
    ]
    head = ["Epoch", *(key.replace("_", " ") for key in keys)]
    return Table(f"table-epochs-{place}", f"Every epoch of {run['name']}.", head, rows)


def templates(folder: Path = TEMPLATES, **options: Any) -> Environment:
    """The environment of a folder of templates, with the functions that several use."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    environment.globals |= {
        "confidence": confidence,
        "count": count,
        "counted": form.counted,
        "fewest_positives": MIN_FOR_TEMPERATURES,
        "fitted_on": fitted_on,
        "metric": metric,
        "metric_of": metric_of,
        "kind_of_intervals": kind_of_intervals,
        "macro": macro,
        "metrics": SCORES,
        "policies": UNDEFINED,
        "seconds": seconds,
        "share": share,
        "text": text,
    }
    return environment
