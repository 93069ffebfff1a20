"""What was measured, as a section of `docs/protocol.md`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from einthoven.reproduce.pitfalls.material import Material
from einthoven.reproduce.pitfalls.scoring import Effect, Finding
from einthoven.reproduce.sections import Section, table
from einthoven.reproduce.wording import limits, paragraph

WHAT, EXPERIMENT = "pitfalls", "protocol"
_HEAD = ("mistake", "metric", "right", "wrong", "wrong minus right")
_OVERVIEW = ("mistake", "for example", "wrong minus right")
_INTRODUCTION = (
    "Intervals are 95 % percentile intervals of {resamples:,} resamples of whole patients (seed "
    "{seed}), on which both ways are scored; where it says so, the middle 95 % of repetitions. "
    "AUPRC is average precision. PTB-XL {version}, {records:,} records, {labels} labels. The "
    "answers of {name} on fold 10 are scored as they are: nothing is chosen by these numbers."
)


def section(material: Material, findings: Sequence[Finding], command: str) -> Section:
    """The findings between markers of their own.

    Parameters
    ----------
    command : str
        What makes them; printed as it is.
    """
    introduction = _INTRODUCTION.format(
        resamples=material.resamples,
        seed=material.seed,
        version=material.cohort.version,
        records=len(material.cohort),
        labels=len(material.cohort.labels),
        name=material.name,
    )
    parts = ["## Measured", paragraph(introduction), f"    {command}"]
    parts += [table(_OVERVIEW, [line for finding in findings for line in _overview(finding)])]
    parts += [_text(finding) for finding in findings]
    numbers = {finding.key: finding.to_dict() for finding in findings}
    name = material.name.strip("`")
    return Section(WHAT, name, EXPERIMENT, "\n\n".join(parts), numbers=numbers)


def _text(finding: Finding) -> str:
    parts = [f"### {finding.title}", *(paragraph(note) for note in finding.notes)]
    if finding.rows:
        parts.append(table(finding.head, finding.rows))
    if finding.effects and finding.listed:
        parts.append(table(_HEAD, _lines(finding.effects)))
    return "\n\n".join(parts)


def _overview(finding: Finding) -> Iterator[list[str]]:
    """The effects that stand for a pitfall, their metrics in one line each."""
    for place, what in enumerate(finding.headlines):
        found = [effect for effect in finding.effects if effect.what == what]
        if found:
            changes = "; ".join(f"{effect.metric} {_change(effect)}" for effect in found)
            yield [finding.title if place == 0 else "", what, changes]


def _change(effect: Effect) -> str:
    return f"{_number(effect.difference, '+.4f')}{limits(effect.interval, sign=True)}"


def _lines(effects: Sequence[Effect]) -> Iterator[list[str]]:
    for effect in effects:
        yield [
            effect.what,
            effect.metric,
            _number(effect.right, ".4f"),
            _number(effect.wrong, ".4f"),
            _change(effect),
        ]


def _number(value: float, form: str) -> str:
    """`0.9107`; a dash where no label is defined."""
    return "–" if math.isnan(value) else f"{round(value, 4) + 0.0:{form}}"  # no minus zero


def command(*, own_model: bool) -> str:
    """What a reader types; paths are the reader's own."""
    model = " --model RUN" if own_model else ""
    return f"einthoven reproduce pitfalls --cohort data/ptb-xl{model} --write docs/protocol.md"
