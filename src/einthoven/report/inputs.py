"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from einthoven.errors import EvaluationError
from einthoven.evaluate.comparison import Comparison
from einthoven.predictions import Predictions
from einthoven.records.record import Record

# Comparison and run were scored by different calls; their macro values agree to rounding.
_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class ReportRun:
    """One run's numbers.

    Attributes
    ----------
    name : str
        What tables and figures call it.
    about : mapping
        The contents of `run.json` (`asked`, `environment`, `command`).
    score : mapping
        `Score.to_dict()` of the test split.
    validation : mapping, optional
        `macro_auroc` and `macro_auprc` of the validation split, or its whole `Score.to_dict()`.
    history : sequence of mapping
        Lines of `metrics.jsonl`: of stage 2, or of stage 1 where there is no other.
    predictions : Predictions, optional
        Of the test split; its patients and its metadata are reported.
    seconds : float, optional
        Wall time of the run. Without it the history's epochs are summed.
    evidence : mapping, optional
        `calibration`, `subgroups` and `robustness` of its bundle's `evidence.json`, as far as they
        are there; those of the first run are on the page.
    """

    name: str
    about: Mapping[str, Any]
    score: Mapping[str, Any]
    validation: Mapping[str, Any] | None = None
    history: Sequence[Mapping[str, Any]] = ()
    predictions: Predictions | None = None
    seconds: float | None = None
    evidence: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class PairedRuns:
    """Two named runs and how they differ, `run` minus `reference`."""

    run: str
    reference: str
    comparison: Comparison


@dataclass(frozen=True, eq=False)
class Example:
    """One ECG, what is true of it and what the first run says of it.

    Attributes
    ----------
    record : Record
    truth : tuple of str
        Its labels.
    probabilities : mapping of str to float
        By label.
    title : str
        Heading; `Example 1` and so on without one. A record's name is not printed unless it is
        given here, for names of hospital files can identify patients.
    """

    record: Record
    truth: tuple[str, ...]
    probabilities: Mapping[str, float]
    title: str = ""


@dataclass(frozen=True, eq=False)
class Contents:
    """Everything that is on a page, checked: see `build_page` for the fields."""

    runs: Sequence[ReportRun]
    title: str
    comparisons: Sequence[PairedRuns] = ()
    examples: Sequence[Example] = ()
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names([run.name for run in self.runs])
        for pair in self.comparisons:
            _check_pair(pair, {run.name: run for run in self.runs})

    @property
    def reference(self) -> str | None:
        """The run that gains are counted from: the first comparison's."""
        return self.comparisons[0].reference if self.comparisons else None


def _check_names(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names or repeated or not all(names):
        raise EvaluationError(
            f"a report needs at least one run, each with a name of its own; got {names}",
            remedy="name every run once",
        )


def _check_pair(pair: PairedRuns, runs: Mapping[str, ReportRun]) -> None:
    for name, score in ((pair.run, pair.comparison.a), (pair.reference, pair.comparison.b)):
        if name not in runs:
            raise EvaluationError(
                f"a comparison names the run {name!r}; the runs are {', '.join(runs)}",
                remedy="give the names of two runs of the report",
            )
        known = runs[name].score["macro_auroc"]
        if known is not None and not abs(score.macro_auroc - known) < _SAME:
            raise EvaluationError(
                f"the comparison of {pair.run} with {pair.reference} has macro AUROC "
                f"{score.macro_auroc:.6f} for {name}, whose own score is {known:.6f}",
                remedy="compare the predictions that were scored, with the same settings, in the "
                "order run, reference",
            )
