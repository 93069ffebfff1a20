"""Robustness of a model to fewer leads, noise and offsets, on its test records.

Every condition is predicted again from the store and compared with the clean predictions on the
same resamples. With fewer leads only those are prepared, as if no others had been recorded; the
backbone's policy determines the missing ones (`einthoven.backbones.leads`). Noise and offsets
are added to the recorded signals (`einthoven.experiment.noise`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import BackboneError
from einthoven.evaluate.comparison import Comparison, compare
from einthoven.evaluate.estimate import MIN_PER_CLASS
from einthoven.evaluate.measures import ValueScore
from einthoven.evaluate.metrics import auroc
from einthoven.evaluate.reliability import measure_quality
from einthoven.evaluate.scores import Score, plain, score_predictions
from einthoven.experiment.noise import add_noise, add_offset
from einthoven.files import Json
from einthoven.inference import predict_cohort
from einthoven.inference.torch_runtime import with_leads
from einthoven.models import Model
from einthoven.predictions import Calibration, ClassCalibration, Predictions
from einthoven.progress import Progress
from einthoven.signals.store import Chunk, Store
from einthoven.tasks import kind_of, negatives, positives

LEAD_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "8 leads": ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"),
        "4 leads": ("I", "II", "V1", "V5"),
        "6 limb leads": ("I", "II", "III", "aVR", "aVL", "aVF"),
        "lead II": ("II",),
        "lead I": ("I",),
    }
)
"""Lead sets by name: the eight that are measured independently (the other four follow from I and
II), those of a monitor with six electrodes, the limb leads (four electrodes), the lead of a
one-channel monitor, and that of a watch."""
_CHEST = ("V1", "V2", "V3", "V4", "V5", "V6")
ACCURACY_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict(LEAD_SETS)
    | {f"without {lead}": ("I", "II", *(x for x in _CHEST if x != lead)) for lead in _CHEST}
)
"""`LEAD_SETS`, and those of records in which one chest electrode was off."""
NOISE_KINDS = ("baseline-wander", "powerline", "muscle")
SNRS = (12.0, 6.0, 0.0)  # dB
OFFSETS = (0.1, 0.3)  # mV


Change = Callable[[Chunk, Sequence[str]], NDArray[Any]]
"""New signals of a chunk, from the chunk and the names of its records."""


@dataclass(eq=False, kw_only=True)
class ChangedStore(Store):
    """A store whose signals are changed as they are read."""

    change: Change

    @classmethod
    def over(cls, store: Store, change: Change) -> ChangedStore:
        """Change the signals of a store, which itself stays as it is."""
        return cls(
            **{field.name: getattr(store, field.name) for field in fields(Store)}, change=change
        )

    def read(self, rows: NDArray[Any]) -> list[Chunk]:
        """Read as `Store.read`, and change the signals."""
        names = self.index.index.to_numpy()[rows]
        return [
            replace(chunk, signals=self.change(chunk, names[chunk.places].tolist()))
            for chunk in super().read(rows)
        ]


def noisy_store(store: Store, *, kind: str, snr: float, seed: int = 0) -> Store:
    """Add noise to the records of a store; see `einthoven.experiment.noise.add_noise`."""
    noise: Json = {"kind": kind, "snr": snr, "seed": seed}
    return ChangedStore.over(
        store,
        lambda chunk, names: add_noise(chunk.signals, rate=chunk.rate, names=names, **noise),
    )


def offset_store(store: Store, offset: float) -> Store:
    """Add a constant to every lead of a store's records, mV."""
    return ChangedStore.over(store, lambda chunk, names: add_offset(chunk.signals, offset))


def measure_robustness(
    model: Model,
    cohort: Cohort,
    store: Store,
    split: str,
    clean: Predictions,
    *,
    lead_sets: Mapping[str, Sequence[str]] = LEAD_SETS,
    noises: Sequence[str] = NOISE_KINDS,
    snrs: Sequence[float] = SNRS,
    offsets: Sequence[float] = OFFSETS,
    resamples: int = 1000,
    seed: int = 0,
    by: str = "record",
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Json:
    """Predict a split under every condition and compare with the clean predictions.

    Parameters
    ----------
    model, cohort, store, split, device
        As in `predict_cohort`.
    clean : Predictions
        Result of `predict_cohort` for this split.
    lead_sets : mapping of str to sequence of str
        Lead sets by name.
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
    progress : Progress, optional
        Its task is the name of the condition.

    Returns
    -------
    dict
        JSON-serialisable: metrics of the `clean` predictions, and of every condition under
        `leads`, `noise` and `offsets`, with its name, settings and paired differences to clean.
        Labels have `auroc`, `auprc`, `log_loss` and `ece`, classes the metrics of the whole, and
        numbers theirs, such as `age: mae`.
        `left_out` has the reasons of lead sets that were not measured: those of all leads, with
        leads that the model does not read, or that the network refuses.

    Raises
    ------
    EinthovenError
        If prediction or comparison fails, or the noise cannot be made for the records.
    """
    settings: Json = {"resamples": resamples, "seed": seed, "by": by}
    subsets, left_out = _subsets(model, lead_sets)
    conditions = [
        _Condition("leads", name, {"leads": list(leads), "policy": policy}, store, leads)
        for name, (leads, policy) in subsets.items()
    ]
    for kind, snr in product(noises, snrs):
        noisy, name = noisy_store(store, kind=kind, snr=snr, seed=seed), f"{kind}, {snr:g} dB"
        conditions.append(_Condition("noise", name, {"noise": kind, "snr": snr}, noisy))
    for offset in offsets:
        name, moved = f"offset of {offset:g} mV", offset_store(store, offset)
        conditions.append(_Condition("offsets", name, {"offset": offset}, moved))
    result: Json = {"records": len(clean), "left_out": left_out}
    result["clean"] = _values(score_predictions(clean, **settings), clean)
    result |= {"leads": [], "noise": [], "offsets": []}
    for condition in conditions:
        table = predict_cohort(
            model, cohort, condition.store, split, leads=condition.leads, some_labels=True,
            device=device, task=condition.name, progress=progress,
        )  # fmt: skip
        comparison = compare(table, clean, **settings)
        values = _values(comparison.a, table)
        for metric, change in _changes(comparison, table).items():
            values[metric] |= change
        result[condition.part].append({"name": condition.name, **condition.changes, **values})
    return plain(result | {"resamples": resamples, "seed": seed, "unit": by})


@dataclass(frozen=True)
class _Condition:
    """Name and settings of a condition, its part of the result, and its signals."""

    part: str
    name: str
    changes: Json
    store: Store
    leads: Sequence[str] | None = None


def _subsets(
    model: Model, lead_sets: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[Sequence[str], str]], dict[str, str]]:
    """Leads and policy of the sets that can be measured, and the reasons of the others."""
    subsets, left_out = {}, {}
    for name, leads in lead_sets.items():
        if set(leads) == set(model.preparation.leads):
            left_out[name] = "these are all leads that the model reads"
            continue
        try:
            network: Any = with_leads(model, tuple(leads))[0]
        except BackboneError as error:
            left_out[name] = error.problem
        else:
            subsets[name] = leads, network.policy
    return subsets, left_out


def measure_lead_accuracy(
    model: Model,
    cohort: Cohort,
    store: Store,
    split: str = "validation",
    *,
    lead_sets: Mapping[str, Sequence[str]] = ACCURACY_SETS,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Json:
    """Measure the accuracy of every label with sets of leads.

    It determines which labels a model answers without the other leads
    (`einthoven.predictions.missing_leads`).

    Parameters
    ----------
    model, cohort, store, device
        As in `predict_cohort`.
    split : str
        Not the test split, because the result is part of the model.
    lead_sets : mapping of str to sequence of str
        Lead sets by name. Those that lack no lead of the model, or that it cannot read, are left
        out.

    Returns
    -------
    dict
        The entry `lead_accuracy` of config.json, for `update_config`: cohort, split, number of
        `records` and the model's `digest`. For `all` leads and each of the `sets`: `macro_auroc`,
        and by label `auroc`, `sensitivity` and `precision` (the latter two at its threshold,
        if the model has any). A set also has its `name`, its `leads`, the computed ones among
        them, and `macro_loss`. A precision without calls is None. Labels with fewer than five
        positives or negatives are left out.

    Raises
    ------
    EinthovenError
        If prediction fails.
    """

    def predicted(name: str, leads: Sequence[str] | None) -> Predictions:
        return predict_cohort(
            model, cohort, store, split, leads=leads, device=device, task=name, progress=progress
        )

    whole, sets = predicted("all leads", None), []
    best = _label_values(whole, model.calibration)
    for name, leads in lead_sets.items():
        try:
            subset: Any = with_leads(model, tuple(leads))[0]
        except BackboneError:
            continue
        if set(subset.rows) != set(model.preparation.leads):
            values = _label_values(predicted(name, leads), model.calibration)
            loss = round(best["macro_auroc"] - values["macro_auroc"], 4)
            sets.append({"name": name, "leads": subset.rows, "macro_loss": loss, **values})
    origin: Json = {key: whole.metadata[key] for key in ("cohort", "version", "task", "split")}
    origin |= {"records": len(whole), "digest": model.config.get("digest")}
    return plain({**origin, "all": best, "sets": sets})


def _label_values(table: Predictions, calibration: Calibration | ClassCalibration | None) -> Json:
    """Macro AUROC, and AUROC, sensitivity and precision of the labels that are not too rare."""
    targets = table.require_targets()
    values = {"auroc": auroc(targets, table.probabilities)}
    if calibration is not None:
        called = calibration.decide(table.probabilities)
        hits = (called & (targets == 1)).sum(axis=0)
        with np.errstate(invalid="ignore"):
            values["sensitivity"] = hits / positives(targets)
            values["precision"] = hits / (called & ~np.isnan(targets)).sum(axis=0)
    enough = np.minimum(positives(targets), negatives(targets)) >= MIN_PER_CLASS
    labels = {
        table.labels[i]: {name: round(float(column[i]), 4) for name, column in values.items()}
        for i in np.flatnonzero(enough)
    }
    return {"macro_auroc": round(float(np.nanmean(values["auroc"])), 4), "labels": labels}


def _values(score: Score | ValueScore, table: Predictions) -> Json:
    """Metrics of predictions by key: `value` and `interval`; those of each number have its name."""
    if isinstance(score, ValueScore):
        numbers = score.to_dict()["per_label"]
        return _entries(table.kind, {f"{label}: ": numbers[label] for label in numbers})
    if score.classes:
        return _entries(table.kind, {"": score.classes["measures"]})
    quality = measure_quality(table).macro
    return {
        "log_loss": quality["log_loss"],
        "ece": quality["ece_mass"],
        "auroc": {"value": score.macro_auroc, "interval": score.macro_auroc_interval},
        "auprc": {"value": score.macro_auprc, "interval": score.macro_auprc_interval},
    }


def _changes(comparison: Comparison, table: Predictions) -> Json:
    """`difference` and `difference_interval` by the keys of `_values`."""
    if table.form == "labels":
        areas = {"auroc": comparison.auroc, "auprc": comparison.auprc}
        return {
            name: {
                "difference": area.macro,
                "difference_interval": area.macro_interval,
                "worse": area.significantly_worse,
            }
            for name, area in areas.items()
            if area is not None
        }
    parts = {"": comparison.measures["whole"]}
    if table.form == "values":
        numbers = comparison.measures["per_label"]
        parts = {f"{label}: ": numbers[label] for label in numbers}
    names = ("difference", "difference_interval")
    return _entries(table.kind, parts, names)


def _entries(
    kind: str, parts: Mapping[str, Json], names: tuple[str, str] = ("value", "interval")
) -> Json:
    """Metrics of a kind with their intervals, by key; `parts` are by the prefix of the key."""
    return {
        f"{prefix}{name}": {names[0]: part[name], names[1]: part[f"{name}_interval"]}
        for prefix, part in parts.items()
        for name in kind_of(kind).columns
        if name in part
    }
