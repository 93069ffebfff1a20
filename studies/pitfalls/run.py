"""Measure the common mistakes with PTB-XL and write them into a page."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from choices import joined_windows, thresholds, trapezoid
from data import Study, open_study
from einthoven.reproduce.page import write_sections
from einthoven.reproduce.tables import Section
from einthoven.signals.store import Store
from features import KERNELS, window_features
from labels import empty_rows, likelihood, versions
from leaks import out_of_fold, record_leak, window_leak
from scoring import Effect, Finding, with_interval
from selection import best_of
from standardiser import standardiser
from undefined import undefined

COMMAND = (
    "python studies/pitfalls/run.py --cohort data/ptb-xl --store data/ptb-xl.store "
    "--write docs/protocol.md"
)
_INTRODUCTION = (
    "Intervals are 95 % percentile intervals from {resamples:,} resamples of whole patients (seed "
    "{seed}), on which both variants are scored; where noted, they are the central 95 % of "
    "repetitions. AUPRC is average precision. PTB-XL {version}, {records:,} records, {labels} "
    "labels. The predictions of {name} on fold 10 are evaluated without modification, and no "
    "choice is based on these numbers."
)


def measure(study: Study, *, kernels: int = KERNELS) -> list[Finding]:
    """Measure every mistake, in the order of the page.

    Parameters
    ----------
    study : Study
    kernels : int
        Random kernels of the features, for each of five dilations.
    """
    rows = study.store.rows(study.cohort.ids())
    features = window_features(study.store, rows, kernels=kernels, seed=study.seed)
    steps: list[Callable[[], Finding]] = [
        lambda: likelihood(study, out_of_fold(study, features)),
        lambda: empty_rows(study),
        lambda: versions(study),
        lambda: undefined(study),
        lambda: record_leak(study, features),
        lambda: window_leak(study, features),
        lambda: joined_windows(study),
        lambda: best_of(study, features),
        lambda: standardiser(study),
        lambda: thresholds(study),
        lambda: trapezoid(study),
    ]
    findings = []
    for step in steps:
        findings.append(step())
        print(f"{len(findings)} of {len(steps)}: {findings[-1].title}", file=sys.stderr)
    return findings


def write_page(page: Path, study: Study, findings: Sequence[Finding]) -> None:
    """Write the findings between the page's markers, and their numbers into `figures/`."""
    numbers = {finding.key: finding.to_dict() for finding in findings}
    name, text = study.name.strip("`"), section_text(study, findings)
    write_sections(page, [Section("pitfalls", name, "protocol", text, numbers)])


def section_text(study: Study, findings: Sequence[Finding]) -> str:
    """The whole section, in Markdown."""
    introduction = _INTRODUCTION.format(
        resamples=study.resamples,
        seed=study.seed,
        version=study.cohort.version,
        records=len(study.cohort),
        labels=len(study.cohort.labels),
        name=study.name,
    )
    overview = _table([line for finding in findings for line in _overview(finding)])
    parts = ["## Measured effects", _wrapped(introduction), f"    {COMMAND}", overview]
    for finding in findings:
        parts += [f"### {finding.title}", *map(_wrapped, finding.notes)]
        if finding.table:
            parts.append(_table(finding.table))
        if finding.effects and finding.listed:
            parts.append(_table([_line(effect) for effect in finding.effects]))
    return "\n\n".join(parts)


def _overview(finding: Finding) -> list[dict[str, str]]:
    lines: list[dict[str, str]] = []
    for what in finding.headlines:
        effects = [effect for effect in finding.effects if effect.what == what]
        changes = "; ".join(f"{effect.metric} {_change(effect)}" for effect in effects)
        if effects:
            title = "" if lines else finding.title
            lines.append({"mistake": title, "for example": what, "wrong minus right": changes})
    return lines


def _line(effect: Effect) -> dict[str, str]:
    right, wrong = (
        "–" if value != value else f"{value:.4f}" for value in (effect.right, effect.wrong)
    )
    return {
        "mistake": effect.what,
        "metric": effect.metric,
        "right": right,
        "wrong": wrong,
        "wrong minus right": _change(effect),
    }


def _change(effect: Effect) -> str:
    return with_interval(effect.difference, effect.interval)


def _table(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table of rows with the same keys."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _wrapped(text: str) -> str:
    protected = text.replace(" %", "\0%")  # a line never begins with the sign
    lines = textwrap.fill(protected, 120, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the common mistakes with PTB-XL.")
    parser.add_argument("--cohort", type=Path, required=True, help="PTB-XL's folder")
    parser.add_argument("--store", type=Path, required=True, help="folder of `einthoven pack`")
    parser.add_argument("--model", default="einthoven-small", help="model folder, task all-71")
    parser.add_argument("--write", type=Path, default=Path("protocol.md"), help="page")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    store = Store.open(options.store)
    study = open_study(options.cohort, store, options.model, device=options.device)
    write_page(options.write, study, measure(study))


if __name__ == "__main__":
    main()
