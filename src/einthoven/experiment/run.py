"""One experiment from a recipe to its evidence: train, bundle, predict, score.

The test split is predicted once, after training has ended; a run whose test predictions exist is
never evaluated again. A run's tables hold what the network says; the calibration that is fitted on
the validation table goes into the bundle, which applies it to whatever it predicts later.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from einthoven.bundle import Bundle, load_bundle, save_bundle, update_bundle
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import BundleError, CohortError
from einthoven.evaluate.estimate import Plan
from einthoven.evaluate.scores import Score, score_predictions, suitable_policy
from einthoven.experiment.evaluation import evidence_of, fitted_calibration, kept, write_evidence
from einthoven.files import read_lines, read_metadata, write_json
from einthoven.licences import joined
from einthoven.predict import predict_cohort
from einthoven.predictions import Predictions
from einthoven.progress import Progress
from einthoven.report.description import cohort_text
from einthoven.signals.fingerprint import signal_fingerprints
from einthoven.signals.store import Store
from einthoven.stages.data import with_fraction
from einthoven.stages.memory import memory_of
from einthoven.stages.overlap import OverlapWarning, memory_metadata
from einthoven.stages.posttrain import Posttrained, file_digest, posttrain
from einthoven.stages.recipe import Data, Recipe
from einthoven.training.distributed import Processes
from einthoven.training.run import RunFolder
from einthoven.weights.folder import described, weights_file

__all__ = [
    "BUNDLE",
    "METRICS",
    "PREDICTIONS",
    "Finished",
    "bundle_of",
    "is_synthetic",
    "licence_of",
    "parameters_of",
    "predict_splits",
    "pretraining_of",
    "remembered",
    "run_experiment",
    "score_predictions",
    "score_splits",
    "suitable_policy",
]

METRICS, BUNDLE, PREDICTIONS = "metrics.json", "bundle", "predictions"


@dataclass(frozen=True)
class Finished:
    """A finished experiment: its folder and its numbers on the test split."""

    run: RunFolder
    test: Score


def run_experiment(
    cohort: Cohort,
    store: Store,
    backbone: str,
    *,
    recipe: Recipe,
    out: str | Path,
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    resamples: int = 1000,
    allow_overlap: bool = False,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Finished | None:
    """Post-train by a recipe, write the bundle, predict validation and test, calibrate, score.

    Parameters are those of `posttrain`; `allow_overlap` allows recordings in two splits as well.
    `resamples` is the bootstrap's. Among several processes only the main one goes on after
    training; the others return None.

    Raises
    ------
    CohortError
        When validation or test has no records, or no label that can be scored on them, or one
        recording is in two splits.
    EinthovenError
        Whatever else training, prediction or scoring refuses.
    """
    Plan(resamples=resamples)
    together = processes or Processes()
    usable = cohort.select(store.without_quarantined(cohort.ids()))
    _check(usable, store, allow_overlap=allow_overlap)
    trained = posttrain(
        cohort,
        store,
        backbone,
        recipe=recipe,
        out=out,
        weights=weights,
        options=options,
        allow_overlap=allow_overlap,
        processes=together,
        progress=progress,
    )
    if not together.is_main:
        return None
    folder = trained.run.path
    if not (folder / BUNDLE / "bundle.json").is_file():
        bundle = bundle_of(trained, cohort, recipe)
        save_bundle(bundle, folder / BUNDLE, backbone=backbone)
    bundle = load_bundle(folder / BUNDLE)
    predict_splits(bundle, cohort, store, folder, device=together.device, progress=progress)
    if bundle.calibration is None:
        validation = Predictions.load(folder / PREDICTIONS / "validation.parquet")
        update_bundle(folder / BUNDLE, **fitted_calibration(validation))
    return _scored(trained, cohort, resamples, device=together.device)


def predict_splits(
    bundle: Bundle,
    cohort: Cohort,
    store: Store,
    folder: Path,
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> None:
    """Write what a bundle's network says of validation and test into `folder/predictions`; a table
    that is there already stays."""
    for split in ("validation", "test"):
        file = folder / PREDICTIONS / f"{split}.parquet"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            predict_cohort(
                bundle,
                cohort,
                store,
                split,
                calibrated=False,
                device=device,
                progress=partial(progress, f"predict {split}") if progress else None,
            ).save(file)


def _check(cohort: Cohort, store: Store, *, allow_overlap: bool) -> None:
    """Refuse before hours of training what could not be scored after them."""
    for split in ("validation", "test"):
        _check_split(cohort, split)
    _check_recordings(cohort, store, allow=allow_overlap)


def _check_split(cohort: Cohort, split: str) -> None:
    targets = cohort.targets(split)
    if not len(targets):
        raise CohortError(
            f"{cohort.name}: no records in {split}",
            remedy=f"write `{split}` into the `split` column of some patients, or bring more of "
            "them",
        )
    positives = targets.sum(axis=0)
    if not ((positives > 0) & (positives < len(targets))).any():
        raise CohortError(
            f"{cohort.name}: none of {targets.shape[1]} labels has both positives and negatives "
            f"among the {len(targets)} {split} records",
            remedy="use a larger cohort, or folds stratified by label",
        )


def _check_recordings(cohort: Cohort, store: Store, *, allow: bool) -> None:
    """One recording under two names, and two patients, would be learned by heart and tested on."""
    known = signal_fingerprints(store, store.rows(cohort.ids()), store.leads)
    table = pd.DataFrame({"signal": known, "split": cohort.table["split"].to_numpy()}, cohort.ids())
    table = table[table["signal"] != 0]
    twice = table[table.groupby("signal")["split"].transform("nunique") > 1].sort_values("signal")
    if len(twice):
        same = twice[twice["signal"] == twice["signal"].iloc[0]]
        named = " and ".join(f"{name!r} ({split})" for name, split in same["split"].items())
        said = (
            f"{cohort.name}: {twice['signal'].nunique()} recordings are in more than one split, "
            f"such as {named}, which are the same sample for sample"
        )
        if allow:
            warnings.warn(f"{said}: results on them are too good", OverlapWarning, stacklevel=3)
            return
        old = (cohort.name, cohort.version) == ("ptb-xl", "1.0.1")
        newer = ", or take PTB-XL 1.0.3, which removed some" if old else ""
        raise CohortError(
            said,
            remedy=f"leave one of each out, or give them one patient{newer}; with --allow-overlap "
            "it is trained all the same",
        )


def bundle_of(trained: Posttrained, cohort: Cohort, recipe: Recipe) -> Bundle:
    """The trained classifier with all that a bundle says about it."""
    classifier = trained.classifier
    description = trained.preparation.describe()
    asked = trained.run.request
    weights = asked["weights"]
    about = {
        "preparation_text": description,
        "licence": joined(licence_of(cohort), (weights or {}).get("licence")),
        "recipe": recipe.model_dump(mode="json"),
        "descriptions": cohort.descriptions,
        "cohort": {
            "name": cohort.name,
            "version": cohort.version,
            "task": cohort.task,
            "digest": cohort.digest,
            "synthetic": is_synthetic(cohort),
            "training_records": len(trained.data.usable.ids("train")),
        },
        "weights": _named(weights),
        "public_weights": asked.get("public_weights"),
        "overlap": asked.get("overlap"),
        "selected_epoch": {name: result.best_epoch for name, result in trained.results.items()},
        "environment": trained.run.environment,
    }
    return Bundle(
        classifier=classifier,
        labels=cohort.labels,
        preparation=trained.preparation,
        aggregate=recipe.data.aggregate,
        about=about,
        memory=trained.memory,
    )


def remembered(
    bundle: Bundle, cohort: Cohort, store: Store, *, weights: str | Path | None = None
) -> Bundle:
    """Give a bundle of an earlier version the memory of the records that it has seen.

    Parameters
    ----------
    bundle : Bundle
        As `load_bundle` gives it. Its network stays as it is.
    cohort : Cohort
        What it was post-trained on, opened as it was then; its recipe's share is taken.
    store : Store
        The packed cohort.
    weights : path, optional
        What it began with; needed where it did not begin from random weights.

    Returns
    -------
    Bundle
        With `memory`, and with what the initial weights say of their pretraining.

    Raises
    ------
    BundleError
        When cohort or weights are not those that the bundle was made from.
    """
    about, initial = bundle.about, bundle.about.get("weights") or {}
    file = None if weights is None else weights_file(weights)
    found = {
        "cohort": (about.get("cohort", {}).get("digest"), cohort.digest),
        "initial weights": (initial.get("sha256"), file and file_digest(file)),
    }
    for what, (wanted, given) in found.items():
        if wanted != given:
            raise BundleError(
                f"the bundle was made from other {what}: digest {wanted or 'none'}, "
                f"{given or 'none'} given",
                remedy=f"give the {what} that its bundle.json names",
            )
    recipe = about.get("recipe") or {}
    share = Data(fraction=recipe.get("data", {}).get("fraction", 1.0))
    chosen = with_fraction(cohort, share, seed=recipe.get("seed", 0))
    memory = memory_metadata(memory_of((chosen, store), file), file, about.get("overlap"))
    if file is not None and "pretraining" not in initial:
        about = about | {"weights": initial | pretraining_of(file)}
    return replace(bundle, memory=memory, about=about)


def pretraining_of(weights: str | Path) -> dict[str, str]:
    """What a bundle says of how its initial weights were trained, as `pretraining`.

    Empty for weights that say nothing of it; those of public releases are in `public_weights`.
    """
    file = Path(weights)
    said, about = read_metadata(file), described(file)
    parts = [said["pretraining_data"]] if "pretraining_data" in said else []
    if parts and said.get("recipe"):
        parts[0] += f" (recipe {said['recipe']})"
    if about.get("cohort"):  # a bundle
        before = (about.get("weights") or {}).get("pretraining")
        parts = [*([before] if before else []), f"with labels on {cohort_text(about)}"]
    return {"pretraining": ", then ".join(parts)} if parts else {}


def _named(weights: Any) -> Any:
    """What a bundle says of its initial weights; it travels, and folders of the machine that made
    it are nobody else's business."""
    if not isinstance(weights, dict):
        return weights
    return weights | {"path": Path(weights["path"]).name} | pretraining_of(weights["path"])


def _scored(
    trained: Posttrained, cohort: Cohort, resamples: int, *, device: torch.device
) -> Finished:
    folder = trained.run.path
    scores = score_splits(folder, resamples=resamples)
    numbers: dict[str, Any] = {name: found.to_dict() for name, found in scores.items()}
    numbers["seconds"] = round(_trained_seconds(trained), 1)
    numbers["parameters"] = parameters_of(trained.classifier)
    numbers["device"] = _named_device(device)
    write_json(folder / METRICS, numbers)
    update_bundle(folder / BUNDLE, metrics=_headline(scores["test"]))
    evidence = evidence_of(
        load_bundle(folder / BUNDLE),
        cohort,
        Predictions.load(folder / PREDICTIONS / "test.parquet"),
        score=numbers["test"],
        validation=numbers["validation"],
        resamples=resamples,
    )
    evidence["robustness"] = kept(folder / BUNDLE, evidence, "robustness")
    write_evidence(folder / BUNDLE, evidence)
    return Finished(trained.run, scores["test"])


def parameters_of(network: nn.Module) -> int:
    """Numbers that training may change; running statistics are none of them."""
    return sum(parameter.numel() for parameter in network.parameters())


def _named_device(device: torch.device) -> str:
    # Without it a time means nothing.
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def score_splits(folder: Path, *, resamples: int) -> dict[str, Score]:
    """Scores of the two tables of a run folder, by split."""
    tables = {
        split: Predictions.load(folder / PREDICTIONS / f"{split}.parquet")
        for split in ("validation", "test")
    }
    return {split: score_predictions(table, resamples=resamples) for split, table in tables.items()}


def _trained_seconds(trained: Posttrained) -> float:
    """Of every stage, every learning rate that was tried, and the cached features."""
    folder = trained.run.path
    files = [*folder.glob("**/metrics.jsonl"), *folder.glob("**/seconds.jsonl")]
    lines = [entry for file in files for entry in read_lines(file)]
    spent = [entry["seconds"] + entry.get("validation_seconds", 0.0) for entry in lines]
    return float(sum(spent))


def _headline(found: Score) -> dict[str, Any]:
    return {
        "macro_auroc": found.macro_auroc,
        "macro_auroc_interval": found.macro_auroc_interval,
        "macro_auprc": found.macro_auprc,
        "macro_auprc_interval": found.macro_auprc_interval,
        "records": found.records,
        "defined_labels": found.defined_labels,
    }


def is_synthetic(cohort: Cohort) -> bool:
    """Whether the cohort was simulated by einthoven: it then carries its ground truth."""
    return (cohort.root / "ground_truth.csv").is_file()


def licence_of(cohort: Cohort) -> str:
    """What the licence of a model trained on this cohort has to say."""
    if cohort.name == "ptb-xl":
        return "weights trained on PTB-XL (CC BY 4.0; attribute Wagner et al. 2020)"
    if is_synthetic(cohort):
        return "weights trained on simulated ECGs; no rights of others"
    return "weights trained on the user's own data; its owner decides"
