"""The card's sections on calibration, subgroups, fewer leads and noise, where there are numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from einthoven.report.evidence_rows import (
    CONDITIONS,
    DECISIONS,
    GROUPS,
    Cell,
    Metric,
    condition_rows,
    decision_rows,
    group_rows,
    measure_rows,
)
from einthoven.report.format import confidence, count, with_interval
from einthoven.report.markdown import escaped, table
from einthoven.report.wording import ATTRIBUTES, THRESHOLDS, drawn_text

Json = Mapping[str, Any]


def evidence_sections(evidence: Json, reliability: str | None = None) -> Iterator[tuple[str, str]]:
    """Headings and Markdown, in the order of the card.

    `reliability` is where the diagram lies, relative to the card.
    """
    if evidence.get("calibration"):
        yield "Calibration", _calibration(evidence["calibration"], reliability)
    if evidence.get("subgroups"):
        yield "Subgroups", _subgroups(evidence["subgroups"])
    if evidence.get("robustness"):
        yield "Fewer leads and noise", _robustness(evidence["robustness"])


def _calibration(found: Json, reliability: str | None) -> str:
    after = found["after"]
    head = ["Test split", "Before", *(["After", "Change"] if after else [])]
    measured = table(head, _shown(measure_rows(found)))
    if reliability:
        measured += f"\n\n{_diagram(reliability, after is not None)}"
    if not after:
        return f"{measured}\n\nNo calibration was fitted: probabilities are the network's."
    text = (
        "Temperatures and thresholds were fitted on the validation split. Below 0 in the last "
        f"column is better ({confidence(found['level'])} intervals of {drawn_text(found)}). ECE is "
        "the expected calibration error. AUROC and AUPRC are the same before and after."
    )
    decided = table(DECISIONS, _shown(decision_rows(found)))
    thresholds = f"{THRESHOLDS} What that comes to on the test split:"
    return "\n\n".join([measured, text, thresholds, decided])


def _diagram(file: str, calibrated: bool) -> str:
    when = "before and after calibration" if calibrated else "without a calibration"
    return (
        f"![Reliability {when}: observed share of positives against probability]({file})\n\n"
        "Reliability on the test split, all labels together: bins of equal width on the left, of "
        "equal mass on logarithmic axes on the right. The diagonal is what probabilities say; "
        "points below it were promised too much."
    )


def _subgroups(found: Json) -> str:
    parts = []
    for attribute in found["attributes"]:
        unknown = found["unknown"][attribute]
        left_out = f" {count(unknown)} records without it are in no group." if unknown else ""
        title = ATTRIBUTES.get(attribute, attribute)
        rows = _shown(group_rows(found, attribute))
        parts.append(f"By {escaped(title)}.{left_out}\n\n{table(GROUPS, rows)}")
    parts.append(
        "Means over the labels that a group has positives and negatives of; a gap is the group "
        "minus everyone else over the labels that both have, from the same resamples "
        f"({confidence(found['level'])} intervals of {drawn_text(found)}). AUPRC also depends on "
        "how common a label is in a group."
    )
    return "\n\n".join(parts)


def _robustness(found: Json) -> str:
    left_out = [f"{escaped(name)}: {escaped(why)}" for name, why in found["left_out"].items()]
    text = (
        f"Paired differences to the first line, intervals of {drawn_text(found)}. Fewer leads are "
        "prepared as if no others had been recorded; noise is added to the recorded signal at the "
        "stated signal-to-noise ratio; an offset is one constant added to every lead."
    )
    measured = table(CONDITIONS, _shown(condition_rows(found)))
    return "\n\n".join([measured, text, *(f"Not measured: {x}." for x in left_out)])


def _shown(rows: Iterable[Iterable[Cell]]) -> Iterator[list[str]]:
    return ([_cell(each) for each in row] for row in rows)


def _cell(each: Cell) -> str:
    if isinstance(each, Metric):
        return with_interval(each.value, each.limits, signed=each.signed, places=each.places)
    return escaped(each) if isinstance(each, str) else count(each)
