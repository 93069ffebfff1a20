"""What a bundle loses with fewer leads, noise and offsets, on the records it is judged by.

Every condition is predicted again from the store and compared with the clean predictions on the
same resamples. With fewer leads only those are prepared, as if no others had been recorded, and
the backbone's own policy says what becomes of the rest (`einthoven.backbones.subset`). Noise is
added to the signals as they were recorded (`einthoven.signals.noise`), and so is an offset: one
constant in every lead, as of a recorder whose zero is not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from einthoven.backbones.subset import FewerLeads, Policy
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import BackboneError, EvaluationError
from einthoven.evaluate.comparison import Comparison, Difference, compare
from einthoven.evaluate.reliability import measure_quality
from einthoven.evaluate.scores import plain, suitable_policy
from einthoven.models import Model
from einthoven.predict import predict_cohort
from einthoven.predictions import Predictions
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.noise import add_noise
from einthoven.signals.store import Chunk, Store

LEAD_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "8 leads": ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"),
        "6 limb leads": ("I", "II", "III", "aVR", "aVL", "aVF"),
        "lead I": ("I",),
    }
)
"""Subsets by name, each held against all leads of the bundle: the eight that are measured
independently (the other four follow from I and II), those of the limbs (four electrodes), and
the one of a watch."""
NOISE_KINDS = ("baseline-wander", "powerline", "muscle")
SNRS = (12.0, 6.0, 0.0)  # dB
OFFSETS = (0.1, 0.3)  # mV
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Condition:
    """Predictions under one condition, beside the clean ones.

    Attributes
    ----------
    name : str
    about : dict
        `leads` and `policy` ("own" or "derived", of `FewerLeads`), `noise` and `snr` (dB), or
        `offset` (mV).
    comparison : Comparison
        The condition as a, clean as b.
    log_loss, ece : float
        Macro values under the condition; the calibration error in bins of equal mass.
    """

    name: str
    about: dict[str, Any]
    comparison: Comparison
    log_loss: float
    ece: float

    def to_dict(self) -> dict[str, Any]:
        """Macro values, their intervals and the paired differences, ready for JSON."""
        found = self.comparison
        values = {"name": self.name, **self.about, "log_loss": self.log_loss, "ece": self.ece}
        for metric in ("auroc", "auprc"):
            difference: Difference = getattr(found, metric)
            values[metric] = {
                "value": getattr(found.a, f"macro_{metric}"),
                "interval": getattr(found.a, f"macro_{metric}_interval"),
                "difference": difference.macro,
                "difference_interval": difference.macro_interval,
                "worse": difference.significantly_worse,
            }
        result: dict[str, Any] = plain(values)
        return result


@dataclass(frozen=True, eq=False)
class Robustness:
    """What `measure_robustness` found.

    Attributes
    ----------
    clean : Predictions
    log_loss, ece : float
        Of the clean predictions, as in `Condition`.
    leads, noise, offsets : tuple of Condition
    left_out : dict of str to str
        Conditions that could not be measured, with the reason.
    settings : dict
        `resamples`, `seed` (of bootstrap and noise), `by`, `undefined_labels`.
    """

    clean: Predictions
    log_loss: float
    ece: float
    leads: tuple[Condition, ...]
    noise: tuple[Condition, ...]
    offsets: tuple[Condition, ...]
    left_out: dict[str, str]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; the clean values are those that every difference is counted from."""
        said: dict[str, Any] = {
            "records": len(self.clean),
            "clean": self._clean(),
            "leads": [each.to_dict() for each in self.leads],
            "noise": [each.to_dict() for each in self.noise],
            "offsets": [each.to_dict() for each in self.offsets],
            "left_out": dict(self.left_out),
        }
        return said | self.settings

    def _clean(self) -> dict[str, Any]:
        conditions = [*self.leads, *self.noise, *self.offsets]
        if not conditions:
            return {}
        score = conditions[0].comparison.b
        values: dict[str, Any] = {"log_loss": self.log_loss, "ece": self.ece}
        for metric in ("auroc", "auprc"):
            values[metric] = {
                "value": getattr(score, f"macro_{metric}"),
                "interval": getattr(score, f"macro_{metric}_interval"),
            }
        result: dict[str, Any] = plain(values)
        return result


def measure_robustness(
    bundle: Model,
    cohort: Cohort,
    store: Store,
    split: str = "test",
    *,
    lead_sets: Mapping[str, Sequence[str]] = LEAD_SETS,
    noises: Sequence[str] = NOISE_KINDS,
    snrs: Sequence[float] = SNRS,
    offsets: Sequence[float] = OFFSETS,
    resamples: int = 1000,
    seed: int = 0,
    by: str = "record",
    clean: Predictions | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Robustness:
    """Predict a split under every condition, and compare each with the clean predictions.

    Parameters
    ----------
    bundle, cohort, store, split
        As in `predict_cohort`.
    lead_sets : mapping of str to sequence of str
        Subsets of leads by name. One that the bundle cannot be given (a lead of it is not among
        those that the bundle reads, or its network refuses to go without the others) or that is all
        of them is left out, and said so.
    noises : sequence of str
        Kinds of `einthoven.signals.noise.NOISES`.
    snrs : sequence of float
        Signal-to-noise ratios, dB.
    offsets : sequence of float
        Constants added to every lead, mV.
    resamples, by
        Of the bootstrap, as in `compare`.
    seed : int
        Of the bootstrap and of the noise.
    clean : Predictions, optional
        What `predict_cohort` gave for this split; predicted where it is not given.
    batch_size, device
        As in `predict_cohort`.
    progress : callable, optional
        `(condition, done, total)`.

    Raises
    ------
    EinthovenError
        What prediction and comparison refuse, and noise that the records cannot carry.
    """

    def predicted(name: str, source: Store, leads: Sequence[str] | None = None) -> Predictions:
        return predict_cohort(
            bundle,
            cohort,
            source,
            split,
            leads=leads,
            batch_size=batch_size,
            device=device,
            progress=None if progress is None else partial(progress, name),
        )

    clean = clean or predicted("clean", store)
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "by": by}
    settings["undefined_labels"] = suitable_policy(clean)

    def condition(
        name: str, about: dict[str, Any], source: Store, leads: Sequence[str] | None = None
    ) -> Condition:
        found = predicted(name, source, leads)
        return Condition(name, about, compare(found, clean, **settings), *_errors(found))

    possible, left_out = _possible(bundle, lead_sets)
    fewer = [
        condition(name, {"leads": list(leads), "policy": policy}, store, leads)
        for name, (leads, policy) in possible.items()
    ]
    noisy = [
        condition(
            f"{kind}, {snr:g} dB",
            {"noise": kind, "snr": snr},
            NoisyStore.over(store, kind=kind, snr=snr, seed=seed),
        )
        for kind in noises
        for snr in snrs
    ]
    moved = [
        condition(
            f"offset of {offset:g} mV", {"offset": offset}, OffsetStore.over(store, offset=offset)
        )
        for offset in offsets
    ]
    measured = tuple(fewer), tuple(noisy), tuple(moved)
    return Robustness(clean, *_errors(clean), *measured, left_out, settings)


@dataclass(eq=False)
class NoisyStore(Store):
    """A store whose signals have noise added to them as they are read."""

    kind: str = "white"
    snr: float = 0.0
    seed: int = 0

    @classmethod
    def over(cls, store: Store, *, kind: str, snr: float, seed: int = 0) -> NoisyStore:
        """The same records, noisy; see `einthoven.signals.noise.add_noise`."""
        return cls(**_parts(store), kind=kind, snr=snr, seed=seed)

    def read(self, rows: NDArray[np.intp]) -> list[Chunk]:
        """As `Store.read`, with noise of each record's own."""
        names = self.index.index.to_numpy()[rows]
        return [
            Chunk(
                chunk.places,
                chunk.rate,
                add_noise(
                    chunk.signals,
                    rate=chunk.rate,
                    kind=self.kind,
                    snr=self.snr,
                    names=names[chunk.places].tolist(),
                    seed=self.seed,
                ),
            )
            for chunk in super().read(rows)
        ]


@dataclass(eq=False)
class OffsetStore(Store):
    """A store whose signals have a constant added to them as they are read."""

    offset: float = 0.0

    @classmethod
    def over(cls, store: Store, *, offset: float) -> OffsetStore:
        """The same records, moved by `offset` mV; values beyond int16 stop at its ends."""
        return cls(**_parts(store), offset=offset)

    def read(self, rows: NDArray[np.intp]) -> list[Chunk]:
        """As `Store.read`, with the constant."""
        ends, moved = np.iinfo(np.int16), round(1000 * self.offset)
        return [
            Chunk(
                chunk.places,
                chunk.rate,
                np.clip(chunk.signals.astype(np.int32) + moved, ends.min, ends.max).astype("<i2"),
            )
            for chunk in super().read(rows)
        ]


def _parts(store: Store) -> dict[str, Any]:
    return {each.name: getattr(store, each.name) for each in fields(Store)}


def _possible(
    bundle: Model, lead_sets: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[tuple[str, ...], Policy]], dict[str, str]]:
    """Leads and policy of the sets that the bundle can be given, and why not of the others."""
    every, samples = bundle.preparation.leads, bundle.preparation.window
    possible: dict[str, tuple[tuple[str, ...], Policy]] = {}
    left_out: dict[str, str] = {}
    for name, leads in lead_sets.items():
        unknown = [lead for lead in leads if lead not in STANDARD_LEADS]
        if unknown or not leads:
            raise EvaluationError(
                f"lead set {name!r} names {unknown or 'no lead'}",
                remedy=f"name some of {', '.join(STANDARD_LEADS)}",
            )
        absent = [lead for lead in leads if lead not in every]
        if absent:
            left_out[name] = f"the bundle does not read {', '.join(absent)}"
        elif set(leads) == set(every):
            left_out[name] = "these are all leads that the bundle reads"
        else:
            try:
                fewer = FewerLeads(bundle.classifier, leads, every=every, samples=samples)
            except BackboneError as error:
                left_out[name] = error.problem
            else:
                possible[name] = tuple(leads), fewer.policy
    return possible, left_out


def _errors(table: Predictions) -> tuple[float, float]:
    macro = measure_quality(table.require_targets(), table.probabilities).macro
    return macro["log_loss"], macro["ece_mass"]
