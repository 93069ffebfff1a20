"""Robustness of a model to fewer leads, noise and offsets, on its test records.

Every condition is predicted again from the store and compared with the clean predictions on the
same resamples. With fewer leads only those are prepared, as if no others had been recorded; the
backbone's policy decides about the missing ones (`einthoven.backbones.leads`). Noise is added
to the recorded signals (`einthoven.experiment.noise`), and so is an offset: a constant in every
lead, as from a recorder with a wrong zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from einthoven.backbones.leads import LeadSubset, Policy
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import BackboneError, EvaluationError
from einthoven.evaluate.comparison import Comparison, Difference, compare
from einthoven.evaluate.reliability import measure_quality
from einthoven.evaluate.scores import Score, plain
from einthoven.experiment.noise import add_noise
from einthoven.files import Json
from einthoven.models import Model
from einthoven.predict import predict_cohort
from einthoven.predictions import Predictions
from einthoven.progress import Progress
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.store import Chunk, Store

LEAD_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "8 leads": ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"),
        "6 limb leads": ("I", "II", "III", "aVR", "aVL", "aVF"),
        "lead I": ("I",),
    }
)
"""Lead sets by name: the eight that are measured independently (the other four follow from I and
II), the limb leads (four electrodes), and the lead of a watch."""
NOISE_KINDS = ("baseline-wander", "powerline", "muscle")
SNRS = (12.0, 6.0, 0.0)  # dB
OFFSETS = (0.1, 0.3)  # mV


@dataclass(frozen=True, eq=False)
class Condition:
    """Comparison of the predictions under one condition with the clean ones.

    Attributes
    ----------
    name : str
    settings : dict
        `leads` and `policy` ("native" or "derived", of `LeadSubset`), `noise` and `snr` (dB), or
        `offset` (mV).
    comparison : Comparison
        The condition as a, clean as b.
    log_loss, ece : float
        Macro values under the condition; the calibration error in bins of equal mass.
    """

    name: str
    settings: dict[str, Any]
    comparison: Comparison
    log_loss: float
    ece: float

    def to_dict(self) -> Json:
        """A JSON-serialisable dict of macro values, intervals and paired differences."""
        values = _macro_values(self.comparison.a, self.log_loss, self.ece)
        for metric in ("auroc", "auprc"):
            difference: Difference = getattr(self.comparison, metric)
            values[metric] |= {
                "difference": difference.macro,
                "difference_interval": difference.macro_interval,
                "worse": difference.significantly_worse,
            }
        return plain({"name": self.name, **self.settings, **values})


@dataclass(frozen=True, eq=False)
class Robustness:
    """Robustness of a model under all conditions.

    Attributes
    ----------
    clean : Predictions
    log_loss, ece : float
        Macro values of the clean predictions, as in `Condition`.
    leads, noise, offsets : tuple of Condition
    left_out : dict of str to str
        Reasons of conditions that could not be measured, by name.
    settings : dict
        `resamples`, `seed` (of bootstrap and noise), `by`.
    """

    clean: Predictions
    log_loss: float
    ece: float
    leads: tuple[Condition, ...]
    noise: tuple[Condition, ...]
    offsets: tuple[Condition, ...]
    left_out: dict[str, str]
    settings: dict[str, Any]

    def to_dict(self) -> Json:
        """A JSON-serialisable dict; differences refer to the clean values."""
        conditions = [*self.leads, *self.noise, *self.offsets]
        score = conditions[0].comparison.b if conditions else None
        values = {
            "records": len(self.clean),
            "clean": _macro_values(score, self.log_loss, self.ece) if score else {},
            "leads": [condition.to_dict() for condition in self.leads],
            "noise": [condition.to_dict() for condition in self.noise],
            "offsets": [condition.to_dict() for condition in self.offsets],
            "left_out": self.left_out,
        }
        return plain(values | self.settings)


def _macro_values(score: Score, log_loss: float, ece: float) -> Json:
    metrics = {
        "auroc": {"value": score.macro_auroc, "interval": score.macro_auroc_interval},
        "auprc": {"value": score.macro_auprc, "interval": score.macro_auprc_interval},
    }
    return {"log_loss": log_loss, "ece": ece, **metrics}


def measure_robustness(
    model: Model,
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
    """Predict a split under every condition and compare with the clean predictions.

    Parameters
    ----------
    model, cohort, store, split
        As in `predict_cohort`.
    lead_sets : mapping of str to sequence of str
        Lead sets by name. Sets of all leads, with leads that the model does not read, or that the
        network refuses are reported in `left_out`.
    noises : sequence of str
        Kinds of `einthoven.experiment.noise.NOISES`.
    snrs : sequence of float
        Signal-to-noise ratios, dB.
    offsets : sequence of float
        Constants added to every lead, mV.
    resamples, by
        Settings of the bootstrap, as in `compare`.
    seed : int
        Seed of the bootstrap and of the noise.
    clean : Predictions, optional
        Result of `predict_cohort` for this split; predicted if missing.
    batch_size, device
        As in `predict_cohort`.
    progress : Progress, optional
        Its task is the name of the condition.

    Raises
    ------
    EinthovenError
        If prediction or comparison fails, or the noise cannot be made for the records.
    """

    def predicted(name: str, source: Store, leads: Sequence[str] | None = None) -> Predictions:
        return predict_cohort(
            model,
            cohort,
            source,
            split,
            leads=leads,
            batch_size=batch_size,
            device=device,
            task=name,
            progress=progress,
        )

    clean = clean or predicted("clean", store)
    settings: Json = {"resamples": resamples, "seed": seed, "by": by}

    def condition(
        name: str, changes: dict[str, Any], source: Store, leads: Sequence[str] | None = None
    ) -> Condition:
        table = predicted(name, source, leads)
        return Condition(name, changes, compare(table, clean, **settings), *_errors(table))

    possible, left_out = _possible(model, lead_sets)
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
    """A store that adds noise to the signals as they are read."""

    kind: str = "white"
    snr: float = 0.0
    seed: int = 0

    @classmethod
    def over(cls, store: Store, *, kind: str, snr: float, seed: int = 0) -> NoisyStore:
        """Add noise to the records of a store; see `einthoven.experiment.noise.add_noise`."""
        return cls(**_parts(store), kind=kind, snr=snr, seed=seed)

    def read(self, rows: NDArray[np.intp]) -> list[Chunk]:
        """Read as `Store.read`, with noise that depends on the record."""
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
    """A store that adds a constant to the signals as they are read."""

    offset: float = 0.0

    @classmethod
    def over(cls, store: Store, *, offset: float) -> OffsetStore:
        """Add `offset` mV to the records of a store, clipped to the range of int16."""
        return cls(**_parts(store), offset=offset)

    def read(self, rows: NDArray[np.intp]) -> list[Chunk]:
        """Read as `Store.read`, with the constant."""
        limits, offset = np.iinfo(np.int16), round(1000 * self.offset)
        return [
            Chunk(
                chunk.places,
                chunk.rate,
                np.clip(chunk.signals.astype(np.int32) + offset, limits.min, limits.max).astype(
                    "<i2"
                ),
            )
            for chunk in super().read(rows)
        ]


def _parts(store: Store) -> dict[str, Any]:
    return {field.name: getattr(store, field.name) for field in fields(Store)}


def _possible(
    model: Model, lead_sets: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[tuple[str, ...], Policy]], dict[str, str]]:
    """Leads and policy of the usable lead sets, and reasons of the others."""
    all_leads, samples = model.preparation.leads, model.preparation.window
    possible: dict[str, tuple[tuple[str, ...], Policy]] = {}
    left_out: dict[str, str] = {}
    for name, leads in lead_sets.items():
        unknown = [lead for lead in leads if lead not in STANDARD_LEADS]
        if unknown or not leads:
            raise EvaluationError(
                f"lead set {name!r} names {unknown or 'no lead'}",
                remedy=f"name some of {', '.join(STANDARD_LEADS)}",
            )
        missing = [lead for lead in leads if lead not in all_leads]
        if missing:
            left_out[name] = f"the model does not read {', '.join(missing)}"
        elif set(leads) == set(all_leads):
            left_out[name] = "these are all leads that the model reads"
        else:
            try:
                subset = LeadSubset(model.classifier, leads, all_leads=all_leads, samples=samples)
            except BackboneError as error:
                left_out[name] = error.problem
            else:
                possible[name] = tuple(leads), subset.policy
    return possible, left_out


def _errors(table: Predictions) -> tuple[float, float]:
    macro = measure_quality(table).macro
    return macro["log_loss"], macro["ece_mass"]
