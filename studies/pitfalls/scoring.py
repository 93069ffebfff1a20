"""A right and a wrong way to score, on the same resamples of the same records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.evaluate import auroc, average_precision
from einthoven.evaluate.bootstrap import multiplicities
from einthoven.evaluate.metrics import rank, resampled_metrics

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Targets = NDArray[np.uint8]

METRICS = ("macro AUROC", "macro AUPRC")


@dataclass(frozen=True)
class Effect:
    """Change of one metric by a mistake.

    Attributes
    ----------
    what : str
        Name of the mistake, or of the place where it is made.
    metric : str
    right, wrong : float
        The metric by the protocol, and with the mistake.
    interval : (low, high) or None
        95 % percentile interval of wrong minus right.
    """

    what: str
    metric: str
    right: float
    wrong: float
    interval: tuple[float, float] | None = None

    @property
    def difference(self) -> float:
        """Wrong minus right."""
        return self.wrong - self.right


@dataclass(frozen=True, eq=False)
class Finding:
    """Results for one mistake.

    Attributes
    ----------
    key : str
        Key in the numbers file.
    title : str
        Heading on the page.
    effects : sequence of Effect
    notes : sequence of str
        Paragraphs: how it was measured, and counts.
    table : sequence of dict
        Rows of an additional table, column name to text.
    headlines : sequence of str
        The effects, by `what`, shown in the overview.
    listed : bool
        Whether the page lists the effects; False if `table` contains them.
    """

    key: str
    title: str
    effects: Sequence[Effect] = ()
    notes: Sequence[str] = ()
    table: Sequence[dict[str, str]] = ()
    headlines: Sequence[str] = ()
    listed: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-serialisable dict."""
        effects = [asdict(effect) | {"difference": effect.difference} for effect in self.effects]
        return {
            "title": self.title,
            "effects": effects,
            "notes": list(self.notes),
            "table": list(self.table),
        }


@dataclass(frozen=True, eq=False)
class Scored:
    """Targets and probabilities to be scored together.

    Attributes
    ----------
    targets, probabilities : arrays, shape (rows, labels)
    records : array of int, shape (rows,)
        Index of each row's record among the resampled records.
    """

    targets: Targets
    probabilities: Floats
    records: Indices

    @classmethod
    def of_records(cls, targets: Targets, probabilities: Floats) -> Scored:
        """One row a record."""
        return cls(targets, probabilities, np.arange(len(targets)))

    def rows(self, selection: NDArray[Any]) -> Scored:
        """Some of the rows, by index or mask."""
        return Scored(
            self.targets[selection], self.probabilities[selection], self.records[selection]
        )

    def by_label(self) -> tuple[Floats, Floats]:
        """AUROC and average precision of every label; NaN where undefined."""
        arrays = self.targets, self.probabilities
        return auroc(*arrays), average_precision(*arrays)

    def macros(self) -> tuple[float, float]:
        """Macro AUROC and AUPRC over the defined labels."""
        areas, precisions = self.by_label()
        return float(mean(areas)), float(mean(precisions))

    def resampled(self, counts: NDArray[Any]) -> tuple[Floats, Floats]:
        """AUROC and average precision of every label in every resample, `(resamples, labels)`.

        Parameters
        ----------
        counts : array of int, shape (resamples, records)
            How often each record occurs in each resample.
        """
        of_rows = np.ascontiguousarray(counts[:, self.records])
        return resampled_metrics(rank(self.targets, self.probabilities), of_rows)[:2]


def patient_resamples(patients: NDArray[np.str_], *, count: int, seed: int) -> NDArray[Any]:
    """How often each record occurs in resamples of whole patients, `(resamples, records)`."""
    return multiplicities(len(patients), count, seed=seed, groups=patients).multiplicities


def paired_effects(what: str, right: Scored, wrong: Scored, counts: NDArray[Any]) -> list[Effect]:
    """Macro AUROC and AUPRC both ways, with the interval of their paired difference."""
    resampled = zip(right.resampled(counts), wrong.resampled(counts), strict=True)
    points = zip(METRICS, right.macros(), wrong.macros(), strict=True)
    return [
        Effect(what, metric, before, after, middle(mean(with_mistake) - mean(without)))
        for (metric, before, after), (without, with_mistake) in zip(points, resampled, strict=True)
    ]


def mean(values: Floats) -> Floats:
    """Mean over the defined labels, the last axis; NaN if none is defined."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def middle(values: Floats) -> tuple[float, float] | None:
    """The middle 95 % of the values that are not NaN; None without any."""
    if np.isnan(values).all():
        return None
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


def with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """`+0.0248 (+0.0109 to +0.0336)`."""
    text = signed(value)
    return text if interval is None else f"{text} ({interval[0]:+.4f} to {interval[1]:+.4f})"


def signed(value: float) -> str:
    """`+0.0248`; a dash for NaN. Minus zero is avoided."""
    return "–" if np.isnan(value) else f"{round(value, 4) + 0.0:+.4f}"
