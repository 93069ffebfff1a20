"""A bundle's evidence: every number of its card, as `evaluation.json` beside its weights.

Scores are those of what the network says. Calibration is measured before and after, on the same
records, which are not the ones that it was fitted on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import EvaluationError
from einthoven.evaluate.calibrate import fit_calibration
from einthoven.evaluate.reliability import calibration_report
from einthoven.evaluate.scores import score_predictions
from einthoven.evaluate.subgroups import demographics, score_subgroups
from einthoven.experiment.robustness import Progress, measure_robustness
from einthoven.files import read_json, write_json, write_text
from einthoven.models import (
    CARD,
    EVALUATION,
    RELIABILITY,
    Model,
    load_model,
    model_path,
    read_config,
)
from einthoven.predict import CALIBRATED, calibrate_table, predict_cohort
from einthoven.predictions import Predictions
from einthoven.report.card import model_card
from einthoven.signals.store import Store
from einthoven.stages.overlap import check_scored
from einthoven.weights.public import PublicData

Json = dict[str, Any]

MEASURED_ON = "measured_on"
_MEASURE_AGAIN = "measure it again: einthoven card BUNDLE --cohort PATH"


class EvidenceWarning(UserWarning):
    """A bundle's evidence was measured on another bundle."""


def fitted_calibration(validation: Predictions) -> Json:
    """The entries `calibration` and `calibration_fit` of a bundle, from validation predictions.

    Raises
    ------
    EvaluationError
        When the table is calibrated already, or has no targets.
    """
    if validation.metadata.get(CALIBRATED) == "yes":
        raise EvaluationError(
            "the validation predictions are calibrated already",
            remedy="predict with calibrated=False",
        )
    targets = validation.require_targets()
    found = fit_calibration(targets, validation.probabilities, validation.labels)
    positives = targets.sum(axis=0, dtype=int).tolist()
    return {
        "calibration": found.to_dict(),
        "calibration_fit": {
            "split": validation.metadata.get("split", ""),
            "cohort": validation.metadata.get("cohort", ""),
            "records": len(validation),
            "positives": dict(zip(validation.labels, positives, strict=True)),
            "bias": False,
        },
    }


def evidence_of(
    bundle: Model,
    cohort: Cohort,
    table: Predictions,
    *,
    score: Mapping[str, Any] | None = None,
    validation: Mapping[str, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    by: str = "record",
) -> Json:
    """Score, calibration and subgroups of a split.

    Parameters
    ----------
    bundle : Model
    cohort : Cohort
        Of the table's records; sex and age are read from it.
    table : Predictions
        What the network says of a split, not calibrated.
    score : mapping, optional
        `Score.to_dict()` of the table, where it is known already.
    validation : mapping, optional
        `Score.to_dict()` of the validation split.
    resamples, seed, by
        Of every bootstrap.

    Returns
    -------
    dict
        The contents of `evaluation.json`, ready for JSON.

    Raises
    ------
    EvaluationError
        When the table is calibrated already, or has no targets.
    """
    options: Json = {"resamples": resamples, "seed": seed}
    calibrate_table(bundle, table)  # refuses what is not the network's own
    measured = calibration_report(
        table.require_targets(),
        table.probabilities,
        table.labels,
        bundle.calibration,
        groups=table.patients if by == "patient" else None,
        **options,
    )
    groups = demographics(cohort.metadata().loc[table.records.tolist()])
    parts = score_subgroups(table, groups, by=by, **options).to_dict() if groups else None
    known = score or score_predictions(table, by=by, **options).to_dict()
    return {
        "split": table.metadata.get("split", ""),
        "cohort": {"name": cohort.name, "version": cohort.version, "task": cohort.task},
        MEASURED_ON: measured_on(bundle.config),
        "public_weights": _public(bundle, cohort),
        "overlap": None,
        "score": dict(known),
        "validation": dict(validation) if validation else None,
        "calibration": measured.to_dict(),
        "subgroups": parts,
        "robustness": None,
    }


def _public(bundle: Model, cohort: Cohort) -> Json | None:
    """What the public weights that a bundle began with have seen, with a warning if of this cohort.

    The cohort measured on may be another one than that of the bundle's run.
    """
    data = PublicData.of_record(bundle.config.get("provenance", {}).get("public_weights"))
    return data.record(cohort.name) if data else None


def write_evidence(folder: str | Path, evidence: Json) -> Path:
    """Write a bundle's `evaluation.json`, and its card from it, with its reliability diagram.

    Raises
    ------
    ModelError
        When the folder is no bundle.
    EvaluationError
        When the evidence was measured on another bundle.
    """
    place = model_path(folder)
    about = read_config(place)
    if problem := mismatch(about, evidence):
        raise EvaluationError(f"{place}: the evidence {problem}", remedy=_MEASURE_AGAIN)
    write_json(place / EVALUATION, evidence)
    reliability = _draw(evidence.get("calibration"), place / RELIABILITY)
    card = model_card(about, evidence, reliability=reliability)
    write_text(place / CARD, card)
    return place / CARD


def _draw(calibration: Json | None, file: Path) -> str | None:
    """The diagram's name; without numbers there is none, nor one of earlier numbers."""
    from einthoven.report.figures import reliability_picture  # matplotlib takes its time

    if not calibration:
        file.unlink(missing_ok=True)
        return None
    write_text(file, reliability_picture(calibration))
    return file.name


def read_evidence(folder: str | Path) -> Json | None:
    """A bundle's evidence; None where it has none, as bundles of earlier versions.

    Evidence that was measured on another bundle is none either, with a warning. Where it does not
    say on which, as earlier versions, it is taken for this one's.
    """
    place = model_path(folder)
    found = _stored(place)
    if found and found.get(MEASURED_ON) and (problem := mismatch(read_config(place), found)):
        warnings.warn(
            f"{place / EVALUATION} {problem}; it is left out; {_MEASURE_AGAIN}",
            EvidenceWarning,
            stacklevel=2,
        )
        return None
    return found


def measured_on(about: Mapping[str, Any]) -> Json | None:
    """What evidence says of the bundle it is of; None for one that is not on disk.

    `weights` is the checksum of its weights, `digest` that of all that decides a prediction.
    """
    checksum = about.get("weights_sha256")
    return {"weights": checksum, "digest": about["digest"]} if checksum else None


def mismatch(about: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    """Why evidence is not a bundle's; empty where it is, or does not say whose it is."""
    said, now = evidence.get(MEASURED_ON), measured_on(about)
    if not said or not now or said == now:
        return ""
    if said["weights"] != now["weights"]:
        return (
            f"was measured on other weights (SHA-256 {said['weights'][:12]}...; the bundle's are "
            f"{now['weights'][:12]}...)"
        )
    return "was measured before the bundle's labels, preparation or calibration were changed"


def kept(folder: str | Path, evidence: Json, part: str) -> Any:
    """A part of what a bundle's evidence says already, if it is of the same cohort and split.

    What was measured on other weights is not kept, nor, of what depends on the calibration, what
    was measured with another one.
    """
    before = _stored(model_path(folder)) or {}
    same = all(before.get(key) == evidence[key] for key in ("cohort", "split"))
    known, now = before.get(MEASURED_ON), evidence.get(MEASURED_ON)
    if known and now:
        decides = "weights" if part == "validation" else "digest"
        same = same and known[decides] == now[decides]
    return before.get(part) if same else None


def _stored(place: Path) -> Json | None:
    file = place / EVALUATION
    found: Json | None = read_json(file) if file.is_file() else None
    return found


def fill_card(
    folder: str | Path,
    cohort: Cohort,
    store: Store,
    split: str = "test",
    *,
    robustness: bool = True,
    resamples: int = 1000,
    seed: int = 0,
    by: str = "record",
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Measure a bundle on a split of a cohort, and write its evidence and its card.

    Parameters
    ----------
    folder : path
        The bundle's. Nothing that decides a prediction is changed.
    cohort, store, split
        As in `predict_cohort`.
    robustness : bool
        Predict the split again with fewer leads, noise and offsets: fourteen times.
    resamples, seed, by
        Of every bootstrap.
    progress : callable, optional
        `(what, done, total)`.

    Raises
    ------
    EinthovenError
        Whatever loading, prediction or scoring refuses.
    """
    bundle = load_model(folder)
    options: Json = {"resamples": resamples, "seed": seed, "by": by}

    def told(done: int, total: int) -> None:
        if progress:
            progress(f"predict {split}", done, total)

    table = predict_cohort(
        bundle, cohort, store, split, calibrated=False, device=device, progress=told
    )
    evidence = evidence_of(bundle, cohort, table, **options)
    evidence["validation"] = kept(folder, evidence, "validation")
    evidence["overlap"] = check_scored(folder, (cohort, store), split)
    if robustness:
        evidence["robustness"] = measure_robustness(
            bundle,
            cohort,
            store,
            split,
            clean=calibrate_table(bundle, table),
            device=device,
            progress=progress,
            **options,
        ).to_dict()
    return write_evidence(folder, evidence)
