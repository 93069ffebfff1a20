"""Recalibration of a model on labelled records of another hospital."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from einthoven.cohorts.cohort import ALL, Cohort, stratified_places
from einthoven.errors import EvaluationError
from einthoven.evaluate.calibrate import fit_classes, refit_calibration
from einthoven.evaluate.conformal import Sides, fit_sets, sides_of
from einthoven.evaluate.estimate import Bootstrap, BootstrapSettings, Interval
from einthoven.evaluate.reliability import loss_change, measure_quality
from einthoven.files import Json
from einthoven.inference import predict_cohort
from einthoven.inference.cohorts import calibration_of, sets_of
from einthoven.models import Model, load_model, save_model
from einthoven.predictions import Calibration, ClassCalibration, LabelSets, Predictions
from einthoven.predictions.sets import Bounds, Sets
from einthoven.predictions.table import POS_WEIGHT
from einthoven.progress import Progress
from einthoven.signals.store import Store
from einthoven.stages.leakage import find_leakage, read_fingerprints
from einthoven.tasks import kind_of

FEWEST = 20
"""Fewest labelled records to recalibrate on."""
FOLDS = 5


@dataclass(frozen=True)
class Recalibration:
    """A recalibrated model, and what it changes on records that it was not fitted to.

    Attributes
    ----------
    folder : Path
        The new model folder.
    labels : tuple of str
        Labels that the cohort has; the others keep their calibration and sets.
    records : int
        Records that calibration and prediction sets were fitted to.
    measured : int
        Records of `before` and `after`.
    is_cross_fitted : bool
        Whether these are the same records, each answered by a fit to other patients.
    before, after : dict
        `log_loss`, `brier` and `ece` (of labels, as means), and, by true answer, the share that the
        prediction sets cover, with `undecided`.
    change : float
        Log loss after minus before; NaN for numbers and classes.
    interval : (float, float) or None
        Of the change, at 95 %.
    """

    folder: Path
    labels: tuple[str, ...]
    records: int
    measured: int
    is_cross_fitted: bool
    before: Json
    after: Json
    change: float
    interval: Interval | None


class _Fit(NamedTuple):
    """Calibration to apply after the present one, and sets for the probabilities that it gives."""

    calibration: Calibration | ClassCalibration | None
    sets: Sets

    @classmethod
    def of(cls, table: Predictions, present: _Fit) -> _Fit:
        """Fit to calibrated predictions."""
        calibration: Calibration | ClassCalibration | None = None
        if isinstance(present.calibration, Calibration):
            calibration = refit_calibration(table, present.calibration.thresholds)
        elif present.calibration is not None:
            calibration = fit_classes(table)
        sets = fit_sets(table.calibrated(calibration), coverage=present.sets.coverage)
        if isinstance(sets, LabelSets):
            assert isinstance(present.sets, LabelSets)
            assert isinstance(calibration, Calibration)
            sets = _filled(sets, present.sets, calibration)
        return cls(calibration, sets)


def recalibrate_model(
    folder: str | Path,
    cohort: Cohort,
    store: Store,
    out: str | Path,
    *,
    records: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Recalibration:
    """Fit temperatures, biases, thresholds and prediction sets again, and write a model folder.

    Nothing else changes: records have the same order by the probability of a label. A label with
    fewer than five positives or negatives keeps its threshold, and one with too few records its
    prediction sets: the same records are called, and answered, as before.

    Parameters
    ----------
    folder : path
        A model folder; the model has a calibration, or predicts numbers, and has prediction sets.
    cohort, store
        Labelled records of any split.
    out : path
        The new model folder.
    records : int, optional
        Fit to about this many records, of patients drawn at random, and measure on the other
        patients. Default: fit to all, and measure by cross-validation over patients.
    resamples, seed
        Settings of the bootstrap, and of the draw.

    Raises
    ------
    EvaluationError
        If there are fewer than 20 records, the model was trained on some of them, or it has no
        calibration or no sets.
    ModelError
        If `out` holds a model already.
    """
    model = load_model(folder)
    _check_unseen(folder, cohort, store)
    table = predict_cohort(
        model,
        cohort,
        store,
        ALL,
        some_labels=True,
        device=device,
        task="predict",
        progress=progress,
    )
    present = _present(model, table.labels)
    # The calibration has divided the weights of the loss out of the probabilities.
    metadata = {key: value for key, value in table.metadata.items() if key != POS_WEIGHT}
    table = replace(table, metadata=metadata)
    rows = _drawn(table, records, seed)
    _check_number(int(rows.sum()), cohort)
    fit = _Fit.of(table.select(rows), present)
    is_cross_fitted = bool(rows.all())
    parts = _cross_fits(table, present, seed) if is_cross_fitted else [(~rows, fit)]
    order = np.argsort(np.concatenate([np.flatnonzero(part) for part, _ in parts]))
    before = table if is_cross_fitted else table.select(~rows)
    values = [table.select(part).calibrated(own.calibration) for part, own in parts]
    after = replace(before, probabilities=np.concatenate([v.probabilities for v in values])[order])
    answered = [sides_of(v, *own) for v, (_, own) in zip(values, parts, strict=True)]
    change, interval = _change(before, after, resamples, seed)
    return Recalibration(
        folder=save_model(_changed(model, cohort, table, fit, int(rows.sum()), seed), out),
        labels=table.labels,
        records=int(rows.sum()),
        measured=len(before),
        is_cross_fitted=is_cross_fitted,
        before=_measures(before, sides_of(before, *present)),
        after=_measures(after, Sides.joined(answered, order)),
        change=change,
        interval=interval,
    )


def _check_unseen(folder: str | Path, cohort: Cohort, store: Store) -> None:
    leakage = find_leakage(read_fingerprints(folder), (cohort, store), ALL)
    if leakage and leakage.uses.get("training"):
        raise EvaluationError(
            f"{folder} was trained on {leakage.uses['training']} of the {leakage.records} records "
            f"of {cohort.name}, where it is too sure",
            remedy="name records of patients that it was not trained on",
        )


def _check_number(records: int, cohort: Cohort) -> None:
    if records < FEWEST:
        raise EvaluationError(
            f"{records} labelled records of {cohort.name} to recalibrate on, fewer than {FEWEST}",
            remedy="name a cohort with more labelled records",
        )


def _present(model: Model, labels: tuple[str, ...]) -> _Fit:
    """Calibration and sets of some labels of a model."""
    calibration, sets = calibration_of(model, labels), sets_of(model, labels)
    is_numeric = model.task.behaviour.form == "values"
    if sets is None or (calibration is None and not is_numeric):
        raise EvaluationError(
            f"{model.name} has no {'calibration' if sets else 'prediction sets'} to change",
            remedy="post-train it: einthoven posttrain COHORT --weights MODEL",
        )
    return _Fit(calibration, sets)


def _drawn(table: Predictions, records: int | None, seed: int) -> NDArray[np.bool_]:
    """Records of patients drawn at random, until there are `records`; all without a number."""
    if records is None or records >= len(table):
        return np.ones(len(table), dtype=bool)
    names, sizes = np.unique(table.patients, return_counts=True)
    order = np.random.default_rng(np.random.SeedSequence([seed, 0x0DE8])).permutation(len(names))
    count = int(np.searchsorted(np.cumsum(sizes[order]), records)) + 1
    return np.isin(table.patients, names[order[:count]])


def _cross_fits(
    table: Predictions, present: _Fit, seed: int
) -> list[tuple[NDArray[np.bool_], _Fit]]:
    """Records of each fold of patients, and the fit to the other folds."""
    strata = kind_of(table.kind).strata(table.require_targets())
    places = stratified_places(table.patients, strata, count=FOLDS, seed=seed)
    return [(places == k, _Fit.of(table.select(places != k), present)) for k in range(FOLDS)]


def _filled(new: LabelSets, present: LabelSets, calibration: Calibration) -> LabelSets:
    """The new bounds, and where there are none the present ones, after the calibration."""

    def bounds(new: Bounds, present: Bounds) -> Bounds:
        moved = calibration.apply([0.0 if bound is None else bound for bound in present]).tolist()
        old = [
            None if bound is None else value for bound, value in zip(present, moved, strict=True)
        ]
        return tuple(b if a is None else a for a, b in zip(new, old, strict=True))

    lowest, highest = bounds(new.lowest, present.lowest), bounds(new.highest, present.highest)
    return LabelSets(new.coverage, lowest, highest)


def _changed(
    model: Model, cohort: Cohort, table: Predictions, fit: _Fit, records: int, seed: int
) -> Model:
    """The model with another calibration, and with where it comes from."""
    entry: Json = {
        "cohort": cohort.name,
        "digest": cohort.digest,
        "records": records,
        "seed": seed,
        "before": model.config.get("digest"),
    }
    provenance = dict(model.config.get("provenance") or {}) | {"recalibration": entry}
    config = model.config | {"provenance": provenance}
    calibration, sets = model.calibration, fit.sets
    if isinstance(calibration, ClassCalibration):
        assert isinstance(fit.calibration, ClassCalibration)
        temperature = calibration.temperature * fit.calibration.temperature
        calibration = replace(calibration, temperature=temperature)
    elif calibration is not None:
        assert isinstance(fit.calibration, Calibration)
        assert isinstance(fit.sets, LabelSets)
        assert isinstance(model.sets, LabelSets)
        places = [model.labels.index(label) for label in table.labels]
        calibration = calibration.put(places, fit.calibration.after(calibration.select(places)))
        sets = model.sets.put(places, fit.sets)
    return replace(model, calibration=calibration, sets=sets, config=config)


def _change(
    before: Predictions, after: Predictions, resamples: int, seed: int
) -> tuple[float, Interval | None]:
    if before.form != "labels":
        return float("nan"), None
    settings = BootstrapSettings(resamples=resamples, seed=seed, undefined_labels="skip")
    bootstrap = Bootstrap.of(before, settings)
    return loss_change(bootstrap, before.probabilities, after.probabilities)["log_loss"]


def _measures(table: Predictions, sides: Sides) -> Json:
    quality = {}
    if table.form == "labels":
        macro = measure_quality(table).macro
        quality = {"log_loss": macro["log_loss"], "brier": macro["brier"], "ece": macro["ece_mass"]}
    return quality | sides.shares()
