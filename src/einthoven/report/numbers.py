"""Every number of a report, as one JSON document. The page is written from it and from nothing
else, so the two cannot disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from einthoven.evaluate.scores import plain
from einthoven.report.curves import best_line
from einthoven.report.inputs import Contents, Example, PairedRuns, ReportRun
from einthoven.version import __version__

FEW = 10
"""Labels with fewer positives are counted among the caveats."""
EVIDENCE = ("calibration", "subgroups", "robustness")
"""Parts of a bundle's evidence that the page shows; the others are the run's own numbers."""


def report_json(
    runs: Sequence[ReportRun],
    *,
    title: str,
    comparisons: Sequence[PairedRuns] = (),
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
    descriptions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Every number of the page that `build_page` makes of the same arguments, ready for JSON.

    Raises
    ------
    EvaluationError
        As `build_page`.
    """
    contents = Contents(
        runs, title, comparisons, examples, notes, commands, dict(descriptions or {})
    )
    return document(contents)


def document(contents: Contents) -> dict[str, Any]:
    """The report's JSON."""
    reference = contents.reference
    passed = next((run for run in contents.runs if run.name == reference), None)
    whole: dict[str, Any] = plain(
        {
            "title": contents.title,
            "einthoven": __version__,
            "reference": reference,
            "runs": [_run(run, passed) for run in contents.runs],
            "comparisons": [_comparison(pair) for pair in contents.comparisons],
            "labels": _labels(contents.runs[0]),
            "descriptions": dict(contents.descriptions),
            "examples": [_example(each, i) for i, each in enumerate(contents.examples, 1)],
            "notes": list(contents.notes),
            "commands": list(contents.commands),
        }
    )
    return whole


def _run(run: ReportRun, reference: ReportRun | None) -> dict[str, Any]:
    table = run.predictions
    return {
        "name": run.name,
        "about": dict(run.about),
        "score": dict(run.score),
        "validation": dict(run.validation or {}),
        "training": _training(run, reference),
        "patients": None if table is None else _patients(table.patients),
        "predictions": {} if table is None else dict(table.metadata),
        "evidence": {key: each for key in EVIDENCE if (each := (run.evidence or {}).get(key))},
    }


def _patients(patients: np.ndarray) -> int | None:
    return None if (patients == "").any() else len(np.unique(patients))


def _training(run: ReportRun, reference: ReportRun | None) -> dict[str, Any]:
    history = [dict(line) for line in run.history]
    clocks = ("seconds", "validation_seconds")
    spent = [line[clock] for line in history for clock in clocks if clock in line]
    whole = run.seconds is not None
    return {
        "epochs": len(history),
        "best": dict(best_line(history) or {}),
        "passes_reference_in_epoch": _passes(run, reference),
        "seconds": run.seconds if whole else sum(spent) if spent else None,
        "seconds_of": "the whole run" if whole else "the epochs shown",
        "history": history,
    }


def _passes(run: ReportRun, reference: ReportRun | None) -> int | None:
    # The first epoch above the best that the reference reaches in any.
    best = best_line(reference.history) if reference else None
    if best is None or run is reference:
        return None
    above = (
        line["epoch"]
        for line in run.history
        if (line.get("macro_auroc") or 0.0) > best["macro_auroc"]
    )
    return next(above, None)


def _comparison(pair: PairedRuns) -> dict[str, Any]:
    return {
        "run": pair.run,
        "reference": pair.reference,
        "labels": len(pair.comparison.labels),
        **pair.comparison.to_dict(),
    }


def _labels(run: ReportRun) -> dict[str, int]:
    positives = [entry["positives"] for entry in run.score["per_label"].values()]
    few = sum(0 < count < FEW for count in positives)
    return {"all": len(positives), "few_limit": FEW, "few": few}


def _example(example: Example, place: int) -> dict[str, Any]:
    return {
        "title": example.title or f"Example {place}",
        "rate": example.record.rate,
        "seconds": example.record.duration,
        "leads": list(example.record.leads),
        "source_hash": example.record.source_hash,
        "truth": list(example.truth),
        "probabilities": {name: float(p) for name, p in example.probabilities.items()},
    }
