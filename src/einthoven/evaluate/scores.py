"""Macro and per-label metrics of one set of predictions, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einthoven.evaluate.estimate import Bootstrap, BootstrapSettings, Estimate, Interval
from einthoven.evaluate.measures import ValueScore, class_entries, measure, score_values
from einthoven.evaluate.metrics import Floats, f_max
from einthoven.files import Json
from einthoven.predictions import Predictions
from einthoven.tasks import Task, positives


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """Metrics of one set of predictions. Undefined values are NaN here and None in `to_dict`.

    Attributes
    ----------
    macro_auroc, macro_auprc : float
        Means over labels, under the policy `settings.undefined_labels`.
    f_max : float
        Sample-centric; NaN where some record has no true label.
    macro_auroc_interval, macro_auprc_interval : (low, high) or None
        None without resamples, or for the reason in `reasons`.
    macro_auroc_bias, macro_auprc_bias : float or None
        Estimated bias of the value, see `Estimate.bias`. The AUPRC of rare labels is biased
        upwards, because the precision at a positive counts that positive itself.
    labels : tuple of str
    positives : array of int, shape (labels,)
    auroc, auprc : arrays of float64, shape (labels,)
    auroc_intervals, auprc_intervals : arrays of float64, shape (labels, 2), or None
        Over the resamples in which the label is defined; NaN for the reason in `reasons`.
    reasons : dict of str to list of (str or None)
        Why an interval is absent: by label under `auroc` and `auprc`, and for the macro values, in
        lists of one, under `macro_auroc` and `macro_auprc`.
    defined_labels : int
        Labels with a positive and a negative, over which the macro values are means.
    records : int
    drawn : int
        Resamples drawn until the last accepted one; `settings.resamples` were accepted.
    acceptance : float
        Accepted resamples over drawn ones; 1 without resamples.
    settings : BootstrapSettings
        Settings of the bootstrap.
    classes : dict
        Of classes: `kind`, `measures`, `per_class` and `confusion`
        (`einthoven.evaluate.measures.class_entries`). The values above take each class against
        the others.
    """

    macro_auroc: float
    macro_auprc: float
    f_max: float
    macro_auroc_interval: Interval | None
    macro_auprc_interval: Interval | None
    macro_auroc_bias: float | None
    macro_auprc_bias: float | None
    labels: tuple[str, ...]
    positives: NDArray[np.int64]
    auroc: Floats
    auprc: Floats
    auroc_intervals: Floats | None
    auprc_intervals: Floats | None
    reasons: dict[str, list[str | None]]
    defined_labels: int
    records: int
    drawn: int
    acceptance: float
    settings: BootstrapSettings
    classes: Json = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"<Score: {self.records} records, macro AUROC {self.macro_auroc:.4f}, macro AP "
            f"{self.macro_auprc:.4f}, {self.defined_labels} of {len(self.labels)} labels>"
        )

    def to_dict(self) -> Json:
        """A JSON-serialisable dict with None for NaN and the labels under `per_label`."""
        columns = ("positives", "auroc", "auprc", "auroc_intervals", "auprc_intervals")
        apart = ("labels", "settings", "reasons", "classes", *columns)
        shared = {name: value for name, value in vars(self).items() if name not in apart}
        per_label = by_label(
            self.labels,
            positives=self.positives,
            auroc=self.auroc,
            auroc_interval=self.auroc_intervals,
            auroc_interval_reason=self.reasons["auroc"],
            auprc=self.auprc,
            auprc_interval=self.auprc_intervals,
            auprc_interval_reason=self.reasons["auprc"],
        )
        for name in ("macro_auroc", "macro_auprc"):
            shared[f"{name}_interval_reason"] = self.reasons[name][0]
        return plain(shared | self.settings.to_dict() | {"per_label": per_label} | self.classes)


def score(
    targets: ArrayLike,
    probabilities: ArrayLike,
    *,
    labels: Sequence[str],
    groups: ArrayLike | None = None,
    kind: str = Task.kind,
    **settings: Any,
) -> Score | ValueScore:
    """Score arrays: macro AUROC and AUPRC with bootstrap intervals, F-max, every label.

    Classes have the metrics of their kind as well (`Score.classes`), numbers have those alone.

    Parameters
    ----------
    targets, probabilities : array, list or data frame, shape (records, labels)
        0, 1 or NaN, and numbers in [0, 1]; of a regression, numbers.
    labels : sequence of str
        Names of the columns.
    groups : array, shape (records,), optional
        Patient of each record: patients are drawn instead of records.
    kind : str
        Kind of target (`einthoven.Task`).
    settings
        The parameters of `einthoven.evaluate.estimate.BootstrapSettings`.

    Raises
    ------
    EvaluationError
        If inputs do not match, a setting is invalid, or the policy refuses undefined labels.
    """
    table = Predictions.from_arrays(targets, probabilities, labels, patients=groups, kind=kind)
    by = "record" if groups is None else "patient"
    return score_predictions(table, by=by, **settings)


def score_predictions(predictions: Predictions, **settings: Any) -> Score | ValueScore:
    """Score a predictions table; settings and errors are those of `score`, and `by`."""
    bootstrap = Bootstrap.of(predictions, BootstrapSettings(**settings))
    probabilities, kind = predictions.probabilities, predictions.kind
    if predictions.form == "values":
        return score_values(bootstrap, predictions)
    scored = summary(bootstrap, probabilities, bootstrap.estimate(probabilities))
    if predictions.form == "labels":
        return scored
    return with_classes(scored, bootstrap, kind, probabilities)


def with_classes(scored: Score, bootstrap: Bootstrap, kind: str, probabilities: Floats) -> Score:
    """Add the metrics of classes to a score."""
    measures = measure(bootstrap, kind, probabilities)
    return replace(scored, classes=class_entries(measures, bootstrap, kind, probabilities))


def summary(
    bootstrap: Bootstrap, probabilities: Floats, estimates: tuple[Estimate, Estimate]
) -> Score:
    """Assemble the Score of predictions from their estimates."""
    auroc, auprc = estimates
    macro_auroc, macro_auprc = auroc.macro(), auprc.macro()
    targets = bootstrap.targets
    has_f_max = targets.dtype == np.uint8 and targets.any(axis=1).all()
    return Score(
        macro_auroc=float(macro_auroc.point[0]),
        macro_auprc=float(macro_auprc.point[0]),
        f_max=f_max(targets, probabilities) if has_f_max else math.nan,
        macro_auroc_interval=macro_auroc.interval(),
        macro_auprc_interval=macro_auprc.interval(),
        macro_auroc_bias=macro_auroc.bias(),
        macro_auprc_bias=macro_auprc.bias(),
        labels=bootstrap.labels,
        positives=positives(targets),
        auroc=auroc.point,
        auprc=auprc.point,
        auroc_intervals=auroc.limits(),
        auprc_intervals=auprc.limits(),
        reasons={"auroc": auroc.reasons(), "auprc": auprc.reasons()}
        | {"macro_auroc": macro_auroc.reasons(), "macro_auprc": macro_auprc.reasons()},
        defined_labels=int((~np.isnan(auroc.point)).sum()),
        records=len(targets),
        drawn=bootstrap.draws.drawn,
        acceptance=bootstrap.draws.acceptance,
        settings=bootstrap.settings,
    )


def by_label(labels: Sequence[str], **columns: NDArray[Any] | Sequence[Any] | None) -> Json:
    """Entries of every label from columns; None for a missing column or an interval of NaN."""
    return {
        label: {
            name: None if values is None or _is_gap(values[i]) else values[i]
            for name, values in columns.items()
        }
        for i, label in enumerate(labels)
    }


def _is_gap(value: Any) -> bool:
    return isinstance(value, np.ndarray) and bool(np.isnan(value).all())


def plain(values: Mapping[str, Any]) -> Json:
    """Convert values to JSON-serialisable types, with None for numbers that are not finite."""
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return plain(value)
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
