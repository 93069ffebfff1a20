"""The tables of a report, from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einthoven.report.format import NONE, confidence, duration
from einthoven.report.markup import Html, element, fragment, joined, table
from einthoven.report.values import (
    data,
    estimate,
    number,
    share,
    span,
    whole,
)

Json = Mapping[str, Any]

NAMES = {"auroc": "AUROC", "auprc": "AUPRC"}
_POLICIES = {
    "resample": "a resample that lacks a positive or a negative of some label is drawn again",
    "skip": "a label without a positive or without a negative is left out of the mean",
    "zero": "a label without a positive or without a negative counts as 0 in the mean",
    "error": "every label must have a positive and a negative in every resample",
}


def macro_table(report: Json, metric: str, *, identity: str, place: int) -> Html:
    """Macro values of every run, and what they gain on the reference."""
    caption = (
        f"Table {place}. Macro {NAMES[metric]} on the test split, with "
        f"{interval_name(report['runs'][0]['score'])}."
    )
    head = ["Run", "Labels", f"Macro {NAMES[metric]}", "Interval"]
    head += ["Bootstrap bias"] if metric == "auprc" else []
    head += ["Validation"]
    if report["reference"]:
        caption += f" Gains are counted from {report['reference']} on paired resamples."
        head += ["Gain", "Interval of the gain", "Relative gain"]
    rows = [_macro_row(report, run, metric) for run in report["runs"]]
    note = element("div", *_notes(report, metric), class_="note", id=f"{identity}-note")
    return table(identity, caption, head=head, rows=rows, class_="numbers", after=note)


def paired_table(report: Json, *, identity: str, place: int) -> Html:
    """Every paired comparison, in both metrics."""
    level = confidence(report["runs"][0]["score"]["level"])
    head = ["Comparison", "Metric", f"Difference ({level} interval)", "Relative"]
    head += ["Above zero", "Labels improved", "Better", "Worse"]
    rows = [
        _paired_row(pair, metric) for pair in report["comparisons"] for metric in ("auroc", "auprc")
    ]
    caption = (
        f"Table {place}. Paired differences. Above zero: share of the resamples. Better and worse: "
        "labels whose own interval leaves out zero, not corrected for the number of labels."
    )
    return table(identity, caption, head=head, rows=rows, class_="numbers")


def training_table(report: Json, *, identity: str, place: int) -> Html:
    """When every run was at its best in validation, and what that took."""
    head = ["Run", "Epochs", "Best epoch", "Macro AUROC there", "Macro AUPRC there"]
    caption = f"Table {place}. Training, judged by validation macro AUROC."
    if report["reference"]:
        head.append(f"Passes {report['reference']} in epoch")
        caption += f" A run passes {report['reference']} where it is above that run's best."
    rows = [_training_row(run, report["reference"]) for run in report["runs"]]
    head.append("Wall time")
    return table(identity, caption, head=head, rows=rows, class_="numbers")


def label_table(report: Json, *, identity: str, place: int) -> Html:
    """Every label of the first run, with its differences to the reference."""
    run = report["runs"][0]
    pair = main_pair(report)
    level = confidence(run["score"]["level"])
    caption = f"Table {place}. Every label of {run['name']} on the test split ({level} intervals)"
    head = ["Label", "Positives", "AUROC", "AUPRC"]
    if pair:
        caption += f", and the paired difference to {pair['reference']}"
        head += ["AUROC difference", "AUPRC difference"]
    rows = [
        _label_row(report, label, entry, pair) for label, entry in run["score"]["per_label"].items()
    ]
    return table(identity, f"{caption}.", head=head, rows=rows, class_="numbers dense")


def runs_by_label(report: Json, *, identity: str, place: int) -> Html:
    """AUROC and AUPRC of every label in every run."""
    runs = report["runs"]
    head = ["Label"] + [f"{NAMES[metric]}, {run['name']}" for metric in NAMES for run in runs]
    rows = [
        [fragment(label)]
        + [
            number(run["score"]["per_label"].get(label, {}).get(metric))
            for metric in NAMES
            for run in runs
        ]
        for label in runs[0]["score"]["per_label"]
    ]
    caption = f"Table {place}. Every label in every run, without intervals."
    return table(identity, caption, head=head, rows=rows, class_="numbers dense")


def main_pair(report: Json) -> Json | None:
    """The comparison of the first run with the reference."""
    return _pair_with_reference(report, report["runs"][0]["name"])


def interval_name(score: Json) -> str:
    """`95 % bootstrap intervals`."""
    if not score["resamples"]:
        return "no intervals (no resamples were drawn)"
    return f"{confidence(score['level'])} {score['interval']} bootstrap intervals"


def _pair_with_reference(report: Json, name: str) -> Json | None:
    wanted = (name, report["reference"])
    pairs = (p for p in report["comparisons"] if (p["run"], p["reference"]) == wanted)
    return next(pairs, None)


def _macro_row(report: Json, run: Json, metric: str) -> list[Html]:
    score, key = run["score"], f"macro_{metric}"
    row = [fragment(run["name"])]
    row += [whole(score["defined_labels"]), number(score[key]), span(score[f"{key}_interval"])]
    if metric == "auprc":
        row.append(number(score[f"{key}_bias"], signed=True))
    row.append(number(run["validation"].get(key)))
    if report["reference"]:
        row += _gains(report, run["name"], metric)
    return row


def _gains(report: Json, name: str, metric: str) -> list[Html]:
    if name == report["reference"]:
        return [fragment("reference"), fragment(NONE), fragment(NONE)]
    pair = _pair_with_reference(report, name)
    if pair is None:
        return [fragment(NONE)] * 3
    found = pair[metric]
    return [
        number(found["macro"], signed=True),
        span(found["macro_interval"], signed=True),
        share(found["relative_gain"], signed=True),
    ]


def _paired_row(pair: Json, metric: str) -> list[Html]:
    found = pair[metric]
    return [
        fragment(f"{pair['run']} minus {pair['reference']}"),
        fragment(NAMES[metric]),
        estimate(found["macro"], found["macro_interval"], signed=True),
        share(found["relative_gain"], signed=True),
        share(found["share_above_zero"]),
        fragment(whole(found["improved"]), " of ", whole(pair["labels"])),
        whole(found["significantly_better"]),
        whole(found["significantly_worse"]),
    ]


def _training_row(run: Json, reference: str | None) -> list[Html]:
    training, best = run["training"], run["training"]["best"]
    row = [fragment(run["name"]), whole(training["epochs"]), whole(best.get("epoch"))]
    row += [number(best.get("macro_auroc")), number(best.get("macro_auprc"))]
    if reference:
        row.append(whole(training["passes_reference_in_epoch"]))
    return [*row, data(training["seconds"], duration(training["seconds"]))]


def _label_row(report: Json, label: str, entry: Json, pair: Json | None) -> list[Html]:
    wording = report["descriptions"].get(label)
    named = element("span", wording, class_="wording") if wording and wording != label else None
    row = [fragment(label, " " if named else None, named), whole(entry["positives"])]
    row += [estimate(entry[metric], entry[f"{metric}_interval"]) for metric in NAMES]
    if pair:
        row += [_difference(pair[metric]["per_label"].get(label)) for metric in NAMES]
    return row


def _difference(found: Json | None) -> Html:
    if found is None or found["difference"] is None:
        return fragment(NONE)
    shown = estimate(found["difference"], found["interval"], signed=True)
    low, high = found["interval"] or (None, None)
    if low is not None and low > 0:
        return element("strong", shown, " ▲", class_="better")
    if high is not None and high < 0:
        return element("strong", shown, " ▼", class_="worse")
    return shown


def _notes(report: Json, metric: str) -> list[Html]:
    # Runs that were scored alike share a note.
    by_note: dict[Html, list[str]] = {}
    for run in report["runs"]:
        by_note.setdefault(_note(run["score"], metric), []).append(run["name"])
    if len(by_note) == 1:
        return [element("p", note) for note in by_note]
    return [
        element("p", element("b", joined(names), ": "), note) for note, names in by_note.items()
    ]


def _note(score: Json, metric: str) -> Html:
    labels = len(score["per_label"])
    note = fragment(
        "Mean over ",
        whole(labels if score["undefined_labels"] == "zero" else score["defined_labels"]),
        " of ",
        whole(labels),
        " labels (",
        whole(score["defined_labels"]),
        f" have positives and negatives); policy “{score['undefined_labels']}”: ",
        _POLICIES.get(score["undefined_labels"], "not described"),
        ". ",
    )
    if metric == "auprc":
        note = fragment(note, f"AUPRC is {score['auprc_definition'].replace('-', ' ')}. ")
    return fragment(note, _drawing(score), _bias_note(metric) if score["resamples"] else None)


def _drawing(score: Json) -> Html:
    if not score["resamples"]:
        return fragment(whole(score["records"]), " test records, no resamples.")
    return fragment(
        whole(score["resamples"]),
        " resamples of the ",
        whole(score["records"]),
        f" test records, drawn by {score['unit']} with seed {score['seed']} (",
        whole(score["drawn"]),
        " drawn, ",
        share(score["acceptance"]),
        f" accepted); {score['interval']} intervals at {confidence(score['level'])}.",
    )


def _bias_note(metric: str) -> str | None:
    if metric != "auprc":
        return None
    return (
        " Bootstrap bias is the mean of the resamples minus the value: a positive drawn twice "
        "ranks beside itself, so the average precision of rare labels comes out too high in "
        "resamples, and percentile intervals lie high with it."
    )
