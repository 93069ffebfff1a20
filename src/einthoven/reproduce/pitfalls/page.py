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
_INTRODUCTION = (
    "Intervals are 95 % percentile intervals of {resamples:,} resamples of whole patients (seed "
    "{seed}), on which both ways are scored; where it says so, the middle 95 % of repetitions. "
    "AUPRC is average precision. PTB-XL {version}, {records:,} records, {labels} labels. Nothing "
    "is chosen by these numbers."
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
    )
    parts = ["## Measured", paragraph(introduction), f"    {command}"]
    parts += [_text(finding) for finding in findings]
    numbers = {finding.key: finding.to_dict() for finding in findings}
    name = material.name.strip("`")
    return Section(WHAT, name, EXPERIMENT, "\n\n".join(parts), numbers=numbers)


def _text(finding: Finding) -> str:
    parts = [f"### {finding.title}", *(paragraph(note) for note in finding.notes)]
    if finding.rows:
        parts.append(table(finding.head, finding.rows))
    if finding.effects:
        parts.append(table(_HEAD, _lines(finding.effects)))
    return "\n\n".join(parts)


def _lines(effects: Sequence[Effect]) -> Iterator[list[str]]:
    for effect in effects:
        yield [
            effect.what,
            effect.metric,
            _number(effect.right, ".4f"),
            _number(effect.wrong, ".4f"),
            f"{_number(effect.difference, '+.4f')}{limits(effect.interval, sign=True)}",
        ]


def _number(value: float, form: str) -> str:
    """`0.9107`; a dash where no label is defined."""
    return "–" if math.isnan(value) else f"{value:{form}}"


def command(*, own_model: bool) -> str:
    """What a reader types; paths are the reader's own."""
    model = " --model RUN" if own_model else ""
    return f"einthoven reproduce pitfalls --cohort data/ptb-xl{model} --write docs/protocol.md"
