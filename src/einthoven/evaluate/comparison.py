"""Two models on the same records: paired differences with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.errors import EvaluationError, listed
from einthoven.evaluate.estimate import Bootstrap, BootstrapSettings, Estimate, Interval
from einthoven.evaluate.measures import ValueScore, differences, measure, score_values
from einthoven.evaluate.metrics import Floats
from einthoven.evaluate.scores import Score, by_label, plain, summary, with_classes
from einthoven.files import Json
from einthoven.predictions import Predictions
from einthoven.tasks import kind_of


@dataclass(frozen=True, eq=False)
class Difference:
    """Difference of one metric, a minus b.

    Attributes
    ----------
    macro : float
        Difference of the macro values.
    macro_interval : (low, high) or None
        Interval of the paired resamples; None without resamples, or for `macro_interval_reason`.
    macro_interval_reason : str or None
    relative_gain : float
        a / b - 1 of the macro values.
    share_above_zero : float or None
        Share of the resamples in which the macro value of a is larger.
    bias : float or None
        Estimated bias of `macro`, see `Estimate.bias`.
    per_label : array, shape (labels,)
    intervals : array, shape (labels, 2), or None
        NaN for the reason in `reasons`.
    reasons : list of (str or None)
        By label, why the interval is absent.
    improved : int
        Labels with a positive difference.
    significantly_better, significantly_worse : int or None
        Labels whose interval lies above, and below, zero. Not corrected for their number.
    """

    macro: float
    macro_interval: Interval | None
    macro_interval_reason: str | None
    relative_gain: float
    share_above_zero: float | None
    bias: float | None
    per_label: Floats
    intervals: Floats | None
    reasons: list[str | None]
    improved: int
    significantly_better: int | None
    significantly_worse: int | None

    def to_dict(self, labels: Sequence[str]) -> Json:
        """A JSON-serialisable dict with the labels under `per_label`."""
        columns = ("per_label", "intervals", "reasons")
        shared = {k: v for k, v in vars(self).items() if k not in columns}
        entry = {"interval": self.intervals, "interval_reason": self.reasons}
        per_label = by_label(labels, difference=self.per_label, **entry)
        return plain(shared | {"per_label": per_label})


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of two models on the same resamples, and their paired differences.

    Attributes
    ----------
    a, b : Score or ValueScore
    auroc, auprc : Difference or None
        None for numbers.
    measures : dict
        Differences of the metrics of classes and numbers, as `whole` and `per_label`.
    labels : tuple of str
    """

    a: Score | ValueScore
    b: Score | ValueScore
    auroc: Difference | None
    auprc: Difference | None
    measures: Json = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels' names, in the order of a."""
        return self.a.labels

    def to_dict(self) -> Json:
        """A JSON-serialisable dict with the labels under `per_label` of each metric."""
        areas = {"auroc": self.auroc, "auprc": self.auprc}
        return (
            {"a": self.a.to_dict(), "b": self.b.to_dict()}
            | {name: x.to_dict(self.labels) for name, x in areas.items() if x is not None}
            | ({"measures": self.measures} if self.measures else {})
        )


def compare(
    a: Predictions | str | Path,
    b: Predictions | str | Path,
    *,
    names: tuple[str, str] = ("a", "b"),
    **settings: Any,
) -> Comparison:
    """Compute paired differences a - b between two sets of predictions for the same records.

    Both are evaluated on the same resamples, so variation that they share cancels. The rows and
    labels of `b` are put into the order of `a` by name.

    Parameters
    ----------
    a, b : Predictions, or paths of saved ones
    names : (str, str)
        Names of the two in messages.
    settings
        The parameters of `einthoven.evaluate.estimate.BootstrapSettings`.

    Raises
    ------
    EvaluationError
        If records, labels or targets differ, or patients that are drawn (the message names the
        first differences), if targets are missing, and as in `score`.
    """
    first, second = (x if isinstance(x, Predictions) else Predictions.load(x) for x in (a, b))
    bootstrap = Bootstrap.of(first, BootstrapSettings(**settings))
    scores = _aligned(first, second, bootstrap.settings.by, names)
    kind, values = first.kind, (first.probabilities, scores)
    measures: Json = {}
    if first.form != "labels":
        own, other = (measure(bootstrap, kind, x) for x in values)
        measures = differences(own, other, first.labels, bootstrap.units)
    if first.form == "values":
        ours_, theirs_ = (score_values(bootstrap, replace(first, probabilities=x)) for x in values)
        return Comparison(ours_, theirs_, None, None, measures)
    ours, theirs = bootstrap.estimate(first.probabilities), bootstrap.estimate(scores)
    scored = [summary(bootstrap, *pair) for pair in zip(values, (ours, theirs), strict=True)]
    if measures:
        pairs = zip(scored, values, strict=True)
        scored = [with_classes(score, bootstrap, kind, x) for score, x in pairs]
    return Comparison(
        a=scored[0],
        b=scored[1],
        auroc=difference(ours[0], theirs[0]),
        auprc=difference(ours[1], theirs[1]),
        measures=measures,
    )


def difference(ours: Estimate, theirs: Estimate) -> Difference:
    """Summarise the paired difference of two estimates from the same resamples."""
    labels, base = ours.minus(theirs), float(theirs.macro().point[0])
    whole, limits = labels.macro(), labels.limits()
    gain = float(whole.point[0])
    return Difference(
        macro=gain,
        macro_interval=whole.interval(),
        macro_interval_reason=whole.reasons()[0],
        relative_gain=gain / base if base else float("nan"),
        share_above_zero=None if limits is None else float((whole.replicates > 0).mean()),
        bias=whole.bias(),
        per_label=labels.point,
        intervals=limits,
        reasons=labels.reasons(),
        improved=int((labels.point > 0).sum()),
        significantly_better=None if limits is None else int((limits[:, 0] > 0).sum()),
        significantly_worse=None if limits is None else int((limits[:, 1] < 0).sum()),
    )


def _aligned(a: Predictions, b: Predictions, by: str, names: tuple[str, str]) -> Floats:
    """The probabilities of b, in the order of a's records and labels."""
    if kind_of(a.kind).form != kind_of(b.kind).form:
        raise EvaluationError(
            f"{names[0]} predicts {a.kind}, and {names[1]} {b.kind}",
            remedy="compare predictions of one kind of target",
        )
    rows = _places("records", a.records.tolist(), b.records.tolist(), names)
    columns = _places("labels", a.labels, b.labels, names)
    targets = b.require_targets()[np.ix_(rows, columns)]
    ours = a.require_targets()
    places = np.argwhere((ours != targets) & ~(np.isnan(ours) & np.isnan(targets)))
    _refuse_differences(
        "targets", [f"{a.labels[column]} of record {a.records[row]}" for row, column in places]
    )
    if by == "patient":
        triples = zip(a.records, a.patients, b.patients[rows], strict=True)
        _refuse_differences(
            "patients",
            [f"{name} ({ours} and {theirs})" for name, ours, theirs in triples if ours != theirs],
        )
    return b.probabilities[np.ix_(rows, columns)]


def _places(kind: str, a: Sequence[str], b: Sequence[str], names: tuple[str, str]) -> list[int]:
    """Places in `b` of the names in `a`, which must be the same."""
    only_a, only_b = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    if only_a or only_b:
        raise EvaluationError(
            f"the {kind} of {names[0]} and {names[1]} differ: {len(only_a)} only in {names[0]} "
            f"({listed(only_a)}), {len(only_b)} only in {names[1]} ({listed(only_b)})",
            remedy="predict the same labels for the same records with both models",
        )
    place = {name: i for i, name in enumerate(b)}
    return [place[name] for name in a]


def _refuse_differences(kind: str, differences: Sequence[str]) -> None:
    if differences:
        raise EvaluationError(
            f"{len(differences)} {kind} differ: {listed(differences)}",
            remedy="predict both from one cohort, of the same version",
        )
