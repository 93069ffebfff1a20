"""The card's sections on calibration, subgroups, fewer leads and noise, where there are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from einthoven.report.markdown import escaped, table
from einthoven.report.values import count, decimal, level_text, with_limits
from einthoven.report.wording import ATTRIBUTES, MEASURES, THRESHOLDS, condition_text, drawn_text

Json = Mapping[str, Any]


def evidence_sections(evidence: Json) -> Iterator[tuple[str, str]]:
    """Headings and Markdown, in the order of the card."""
    if evidence.get("calibration"):
        yield "Calibration", _calibration(evidence["calibration"])
    if evidence.get("subgroups"):
        yield "Subgroups", _subgroups(evidence["subgroups"])
    if evidence.get("robustness"):
        yield "Fewer leads and noise", _robustness(evidence["robustness"])


def _calibration(found: Json) -> str:
    after, change = found["after"], found["change"]
    head = ["Test split", "Before", *(["After", "Change"] if after else [])]
    rows = []
    for kind, key, name in MEASURES:
        row = [name, decimal(found["before"][kind][key], places=5)]
        if after:
            moved = change.get(key) if kind == "macro" else None
            row.append(decimal(after[kind][key], places=5))
            row.append(_moved(moved) if moved else "–")
        rows.append(row)
    if not after:
        return f"{table(head, rows)}\n\nNo calibration was fitted: probabilities are the network's."
    text = (
        "Temperatures and thresholds were fitted on the validation split. Below 0 in the last "
        f"column is better ({level_text(found['level'])} intervals of {drawn_text(found)}). ECE is "
        "the expected calibration error. AUROC and AUPRC are the same before and after."
    )
    return f"{table(head, rows)}\n\n{text}\n\n{_decisions(found)}"


def _moved(moved: Json) -> str:
    return with_limits(moved["difference"], moved["interval"], signed=True, places=5)


def _decisions(found: Json) -> str:
    head = ["Label", "Threshold", "Positives", "Called", "Sensitivity", "Specificity"]
    head += ["Precision", "F1"]
    rows = [
        [
            escaped(label),
            decimal(entry["threshold"], places=4),
            count(found["positives"][label]),
            count(entry["called"]),
            *(decimal(entry[key]) for key in ("sensitivity", "specificity", "precision", "f1")),
        ]
        for label, entry in found["decisions"].items()
    ]
    return f"{THRESHOLDS} What that comes to on the test split:\n\n{table(head, rows)}"


def _subgroups(found: Json) -> str:
    head = ["Group", "Records", "Patients", "Labels", "Macro AUROC", "Gap", "Macro AUPRC", "Gap"]
    parts = []
    for attribute, groups in found["attributes"].items():
        rows = [_group_row(group) for group in groups]
        unknown = found["unknown"][attribute]
        left_out = f" {count(unknown)} records without it are in no group." if unknown else ""
        title = ATTRIBUTES.get(attribute, attribute)
        parts.append(f"By {escaped(title)}.{left_out}\n\n{table(head, rows)}")
    parts.append(
        "Means over the labels that a group has positives and negatives of; a gap is the group "
        "minus everyone else over the labels that both have, from the same resamples "
        f"({level_text(found['level'])} intervals of {drawn_text(found)}). AUPRC also depends on "
        "how common a label is in a group."
    )
    return "\n\n".join(parts)


def _group_row(group: Json) -> list[str]:
    row = [escaped(group["name"]), count(group["records"]), count(group["patients"])]
    row.append(count(group["labels"]))
    for metric in ("auroc", "auprc"):
        value, gap = group[metric], group[f"{metric}_gap"]
        row.append(with_limits(value["value"], value["interval"]))
        row.append(with_limits(gap["value"], gap["interval"], signed=True))
    return row


def _robustness(found: Json) -> str:
    head = [
        "Condition",
        "Macro AUROC",
        "Difference",
        "Macro AUPRC",
        "Difference",
        "Log loss",
        "ECE",
    ]
    clean = [found["clean"]] if found["clean"] else []
    rows = [_condition_row(each) for each in (*clean, *found["leads"], *found["noise"])]
    left_out = [f"{escaped(name)}: {escaped(why)}" for name, why in found["left_out"].items()]
    text = (
        f"Paired differences to the first line, intervals of {drawn_text(found)}. Fewer leads are "
        "prepared as if no others had been recorded; noise is added to the recorded signal at the "
        "stated signal-to-noise ratio."
    )
    return "\n\n".join([table(head, rows), text, *(f"Not measured: {x}." for x in left_out)])


def _condition_row(each: Json) -> list[str]:
    row = [escaped(condition_text(each))]
    for metric in ("auroc", "auprc"):
        value = each[metric]
        gap, limits = value.get("difference"), value.get("difference_interval")
        row.append(with_limits(value["value"], value["interval"]))
        row.append(with_limits(gap, limits, signed=True))
    return [*row, decimal(each["log_loss"], places=4), decimal(each["ece"], places=4)]
