"""Store what the code computes, or compare it with what was stored: the adapter to the API.

Every function wraps one thing of einthoven and returns plain values under fixed names; the sections
(sections.py) call nothing else. Follow renames here, and keep the names, keys and units of what is
returned. What changed on purpose is mapped here as well (`stored_key` for state-dict entries,
`_renamed` for options of scoring).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

# --- records, cohorts, stores -------------------------------------------------------------------


def read_record(path: Any) -> Any:
    """With `signal`, `rate`, `leads`, `source_hash`."""
    from einthoven.records import read_record

    return read_record(path)


def make_record(signal: np.ndarray, rate: float, leads: Any) -> Any:
    from einthoven.records import Record

    return Record.create(signal.astype(np.float32), rate, leads=leads, name="formula")


def write_wfdb(path: Any, signal: np.ndarray, rate: float, leads: Any) -> None:
    from einthoven.records.wfdb import write_wfdb

    write_wfdb(path, signal, rate=rate, leads=leads)


def open_cohort(path: Any, task: str | None = None, **options: Any) -> Any:
    from einthoven import open_cohort

    return open_cohort(path, **({} if task is None else {"task": task}), **options)


def cohort_facts(cohort: Any) -> dict[str, Any]:
    """Labels, digest and, by split, ids, patients and targets."""
    from common import digest

    facts: dict[str, Any] = {"labels": list(cohort.labels), "digest": cohort.digest}
    for split in ("train", "validation", "test"):
        facts[f"{split}_count"] = len(cohort.ids(split))
        facts[f"{split}_ids"] = digest("\n".join(cohort.ids(split)).encode())
        facts[f"{split}_patients"] = digest("\n".join(cohort.patients(split)).encode())
        facts[f"{split}_positives"] = cohort.targets(split).sum(axis=0, dtype=int)
    return facts


def ids(cohort: Any, split: str | None = None) -> list[str]:
    return cohort.ids(split).tolist()


def paths(cohort: Any, split: str | None = None) -> list[Path]:
    return list(cohort.paths(split))


def targets(cohort: Any, split: str | None = None) -> np.ndarray:
    return cohort.targets(split)


def subset(cohort: Any, records: list[str]) -> Any:
    return cohort.select(np.isin(cohort.ids(), records))


def fraction(cohort: Any, share: float, seed: int) -> Any:
    return cohort.fraction(share, seed=seed)


def common_labels(cohort: Any, records: int) -> Any:
    return cohort.with_common_labels(records)


def demographics(cohort: Any, split: str) -> dict[str, np.ndarray]:
    from einthoven.evaluate.subgroups import demographics

    return demographics(cohort.metadata(split))


def synthesize(dest: Any, *, records: int, seed: int, rate: int = 100) -> None:
    from einthoven.cohorts.synthetic import synthesize

    synthesize(dest, records=records, seed=seed, rate=rate)


def pack(source: Any, dest: Any) -> Any:
    """Pack an open cohort."""
    from einthoven.signals.pack import pack

    return pack(source, dest)


def open_store(path: Any) -> Any:
    from einthoven import Store

    return Store.open(str(path))


def store_signals(store: Any, records: list[str]) -> np.ndarray:
    """(records, leads, samples) int16 of records of one length."""
    (chunk,) = store.read(store.rows(np.array(records)))
    return chunk.signals[np.argsort(chunk.places)]


# --- predictions --------------------------------------------------------------------------------


def load_model(path: Any = None) -> Any:
    """A saved model; the shipped one without a path."""
    from einthoven import load_model

    return load_model() if path is None else load_model(path)


def model_calibration(model: Any) -> Any:
    return model.calibration


def model_weights(model: Any) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in model.classifier.state_dict().items()}


def model_labels(model: Any) -> list[str]:
    return list(model.labels)


def predict_file(model: Any, path: Any, *, calibrated: bool = True, leads: Any = None) -> Any:
    from einthoven.inference import predict_record

    model = model if calibrated else replace(model, calibration=None)
    result = predict_record(model, read_record(path), leads=leads)
    return {
        "probabilities": np.array(list(result.probabilities.values())),
        "above": list(result.above_threshold or ()),
        "derived": list(result.derived_leads),
        "left_out_leads": list(result.left_out_leads),
        "seconds_left_out": float(result.seconds_left_out),
        "doubts": len(result.warnings),
    }


def predict_cohort(
    model: Any, cohort: Any, store: Any, split: str, *, calibrated: bool = True, leads: Any = None
) -> Any:
    """A predictions table."""
    from einthoven.inference import predict_cohort

    return predict_cohort(model, cohort, store, split, calibrated=calibrated, leads=leads)


def embed_cohort(model: Any, cohort: Any, store: Any, out: Path, *, level: str, split: str) -> None:
    """Write a `.npy`."""
    from einthoven.inference import embed_cohort

    embed_cohort(model, cohort, store, out, level=level, split=split)


def embed_files(model: Any, files: Any, out: Path, *, level: str) -> None:
    """Write a `.npy`."""
    from einthoven.inference import embed_files

    embed_files(model, files, out, level=level)


# --- backbones ----------------------------------------------------------------------------------


def backbone_names() -> list[str]:
    from einthoven import backbone_names

    return backbone_names()


def create_backbone(name: str, *, seed: int | None = None, **overrides: Any) -> Any:
    from einthoven import create_backbone

    return create_backbone(name, seed=seed, **overrides)


def fits_statistics(backbone: Any) -> bool:
    return bool(backbone.fits_statistics)


def fit_statistics(backbone: Any, batches: Any) -> None:
    backbone.fit_statistics(batches)


def features(backbone: Any, x: torch.Tensor, leads: Any = None) -> torch.Tensor:
    return backbone.features(x, leads=leads)


def tokens(backbone: Any, x: torch.Tensor) -> torch.Tensor:
    return backbone.tokens(x)


def backbone_preparation(backbone: Any) -> Any:
    return backbone.preparation


def stored_key(name: str, key: str) -> str:
    """The old name of a state-dict entry of a backbone; rules for renamed entries belong here."""
    return key


# --- objectives ---------------------------------------------------------------------------------


def objective_names() -> list[str]:
    from einthoven.objectives import objective_names

    return objective_names()


def create_pretraining(backbone: str, *, objective: str, seed: int, options: Any, own: Any) -> Any:
    from einthoven.objectives import create_pretraining

    return create_pretraining(
        backbone, objective=objective, seed=seed, backbone_options=options, **own
    )


def objective_backbone(objective: Any) -> Any:
    return objective.backbone


def objective_loss(objective: Any, x: torch.Tensor, seed: int) -> tuple[torch.Tensor, Any]:
    from einthoven.signals.random import ShareGenerator

    out = objective(x, generator=ShareGenerator(seed))
    return out.loss, {k: float(v) for k, v in sorted(out.metrics.items())}


def after_step(objective: Any, step: int) -> None:
    if hasattr(objective, "after_step"):
        objective.after_step(step)


def target_names() -> list[str]:
    from einthoven.objectives.mae import Target

    return sorted(get_args(Target))


def make_target(kind: str, x: torch.Tensor, backbone: Any) -> torch.Tensor:
    from einthoven.objectives.mae import make_target

    return make_target(kind, x, backbone)


# --- training -----------------------------------------------------------------------------------


def run_experiment(
    cohort: Any, store: Any, backbone: str, recipe: Path, out: Path, weights: Any, options: Any
) -> None:
    from einthoven.experiment.run import run_experiment
    from einthoven.stages.recipe import load_recipe

    run_experiment(
        cohort,
        store,
        backbone,
        recipe=load_recipe(recipe, _solver(recipe)),
        out=out,
        weights=weights,
        options=options,
        resamples=100,
    )


def _solver(recipe: Path) -> list[str]:
    """The probe of 81ef7bd takes steps of AdamW, whatever the number of records."""
    return ["stage1.solver=adamw"] if "[stage1]" in recipe.read_text() else []


def pretrain(cohort: Any, store: Any, backbone: str, recipe: Path, out: Path, options: Any) -> Path:
    """Pretrain; what `run_experiment` takes as weights."""
    from einthoven.stages.pretrain import pretrain
    from einthoven.stages.recipe import load_pretraining

    return pretrain(
        cohort, store, backbone, recipe=load_pretraining(recipe), out=out, options=options
    ).encoder


def encoder_weights(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path / "model.safetensors" if path.is_dir() else path)


def history_lines(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Lines of every metrics.jsonl of a run, by its folder within it."""
    import json

    return {
        str(file.parent.relative_to(run)): [json.loads(s) for s in file.read_text().splitlines()]
        for file in sorted(run.glob("**/metrics.jsonl"))
    }


def run_table(run: Path, split: str) -> Any:
    return load_table(run / "predictions" / f"{split}.parquet")


def run_model(run: Path) -> Any:
    return load_model(run_model_folder(run))


def run_model_folder(run: Path) -> Path:
    return run / "model"


def run_scores(run: Path) -> dict[str, Any]:
    """The scores in metrics.json, by split."""
    import json

    numbers = json.loads((run / "metrics.json").read_text())
    names = ("macro_auroc", "macro_auprc", "f_max", "macro_auroc_interval", "macro_auprc_interval")
    return {
        split: {name: numbers[split][name] for name in names} for split in ("validation", "test")
    } | {"parameters": numbers.get("parameters")}


def ensemble(runs: list[Path], out: Path) -> None:
    from einthoven import ensemble

    ensemble(runs, out, resamples=100)


def embedder_features(x: np.ndarray, **options: Any) -> np.ndarray:
    from einthoven import EcgEmbedder

    return EcgEmbedder(**options).fit(x).transform(x)


def classifier_probabilities(x: np.ndarray, y: np.ndarray, **options: Any) -> np.ndarray:
    from einthoven import EcgClassifier

    options["overrides"] = ["stage1.solver=adamw", *options["overrides"]]
    return np.asarray(EcgClassifier(**options).fit(x, y).predict_proba(x))


# --- evaluation ---------------------------------------------------------------------------------


def make_table(
    labels: list[str], records: Any, patients: Any, targets: Any, probabilities: Any
) -> Any:
    from einthoven import Predictions

    return Predictions(
        labels=tuple(labels),
        records=np.asarray(records),
        patients=np.asarray(patients),
        targets=np.asarray(targets, np.uint8),
        probabilities=np.asarray(probabilities, np.float64),
        metadata={},
    )


def load_table(path: Path) -> Any:
    from einthoven import Predictions

    return Predictions.load(path)


def save_table(table: Any, path: Path) -> None:
    table.save(path)


def table_values(table: Any) -> dict[str, Any]:
    return {
        "labels": list(table.labels),
        "records": table.records.tolist(),
        "patients": table.patients.tolist(),
        "targets": table.targets,
        "probabilities": table.probabilities,
    }


def _score_values(result: Any) -> dict[str, Any]:
    names = (
        *("macro_auroc", "macro_auprc", "f_max", "macro_auroc_interval", "macro_auprc_interval"),
        *("macro_auroc_bias", "macro_auprc_bias", "positives", "auroc", "auprc"),
        *("auroc_intervals", "auprc_intervals", "defined_labels", "records", "drawn"),
        "acceptance",
    )
    values = {name: getattr(result, name) for name in names}
    return values | {"resamples": result.settings.resamples}


def _renamed(options: dict[str, Any]) -> dict[str, Any]:
    """Options of scoring under this API's names; the sections use the old ones (`absent`)."""
    return {
        ("undefined_labels" if k == "absent" else k): v
        for k, v in options.items()
        if k not in ("engine", "device")
    }


def score(table: Any, *, by: str = "record", **options: Any) -> dict[str, Any]:
    from einthoven.evaluate.scores import score_predictions

    return _score_values(score_predictions(table, by=by, **_renamed(options)))


def compare(a: Any, b: Any, **options: Any) -> dict[str, Any]:
    from einthoven.evaluate import compare

    result = compare(a, b, **_renamed(options))
    values = {"a": _score_values(result.a), "b": _score_values(result.b)}
    names = (
        *("macro", "macro_interval", "relative_gain", "share_above_zero", "bias", "per_label"),
        *("intervals", "improved", "significantly_better", "significantly_worse"),
    )
    for metric in ("auroc", "auprc"):
        values[metric] = {name: getattr(getattr(result, metric), name) for name in names}
    return values


def label_metrics(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    from einthoven import evaluate

    return {
        "auroc": evaluate.auroc(targets, probabilities),
        "average_precision": evaluate.average_precision(targets, probabilities),
        "trapezoid_auprc": evaluate.trapezoid_auprc(targets, probabilities),
    }


def f_max(targets: np.ndarray, probabilities: np.ndarray) -> float:
    from einthoven import evaluate

    return evaluate.f_max(targets, probabilities)


def fit_calibration(table: Any, *, bias: bool = False) -> Any:
    from einthoven.evaluate import fit_calibration

    return fit_calibration(table, bias=bias)


def calibration_values(result: Any) -> dict[str, Any]:
    return {
        "temperatures": np.array(result.temperatures),
        "biases": np.array(result.biases),
        "thresholds": np.array(result.thresholds),
    }


def calibrated(result: Any, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities and decisions."""
    values = result.apply(probabilities)
    return values, result.decide(values)


def _bins(bins: Any) -> dict[str, Any]:
    return {
        "records": bins.records,
        "probability": bins.probability,
        "observed": bins.observed,
        "error": bins.error(),
    }


def _quality(result: Any) -> dict[str, Any]:
    bins = ("width", "mass", "pooled_width", "pooled_mass")
    values = {str(name): column.to_numpy() for name, column in result.per_label.items()}
    values |= {"macro": result.macro, "micro": result.micro}
    return values | {n: _bins(getattr(result, n)) for n in bins}


def calibration_report(table: Any, calibration: Any, *, by_patient: bool, **options: Any) -> Any:
    from einthoven.evaluate import calibration_report

    result = calibration_report(
        table, calibration, by="patient" if by_patient else "record", **options
    )
    values: dict[str, Any] = {"before": _quality(result.before)}
    if calibration is not None:
        names = ("threshold", "called", "sensitivity", "specificity", "precision", "f1")
        values["decisions"] = {n: np.asarray(result.decisions[n]) for n in names}
        if result.after is not None:
            values["after"] = _quality(result.after)
        for name, (value, limits) in (result.change or {}).items():
            values[f"change_{name}"] = {"value": value, "interval": limits}
    return values


def score_subgroups(table: Any, attributes: Any, **options: Any) -> dict[str, Any]:
    from einthoven.evaluate import score_subgroups

    result = score_subgroups(table, attributes, **options)
    values: dict[str, Any] = {"unknown": {k: int(v) for k, v in result.unknown.items()}}
    for group in result.groups:
        own = values[f"{group.attribute}={group.name}"] = {
            "records": group.records,
            "patients": group.patients,
            "labels": list(group.labels),
            "gap_labels": list(group.gap_labels),
        }
        for name in ("auroc", "auprc", "auroc_gap", "auprc_gap"):
            own[name] = getattr(group, name).value
            own[f"{name}_interval"] = getattr(group, name).interval
    return values


def mean_predictions(tables: list[Any]) -> Any:
    from einthoven.experiment.ensembles import mean_predictions

    return mean_predictions(tables)


def robustness(model: Any, cohort: Any, store: Any, split: str, **options: Any) -> dict[str, Any]:
    from einthoven.experiment.robustness import measure_robustness
    from einthoven.inference import predict_cohort

    clean = predict_cohort(model, cohort, store, split)
    result = measure_robustness(model, cohort, store, split, clean, **options)
    values: dict[str, Any] = {key: result["clean"][key] for key in ("log_loss", "ece")}
    for kind in ("leads", "noise", "offsets"):
        for condition in result[kind]:
            auroc, auprc = condition["auroc"], condition["auprc"]
            values[f"{kind}/{condition['name']}"] = {
                "log_loss": condition["log_loss"],
                "ece": condition["ece"],
                "macro_auroc": auroc["value"],
                "macro_auprc": auprc["value"],
                "difference": auroc["difference"],
                "difference_interval": auroc["difference_interval"],
            }
    return values


# --- preparation --------------------------------------------------------------------------------


def preparation_dict(preparation: Any) -> dict[str, Any]:
    return preparation.to_dict()


def preparation_facts(preparation: Any) -> dict[str, Any]:
    return {
        "leads": list(preparation.leads),
        "steps": [s["step"] for s in preparation.to_dict()["steps"]],
        "digest": preparation.digest,
        "rate": float(preparation.rate),
        "window": preparation.window,
        "evaluation_crops": preparation.evaluation_crops,
        "passes_offsets": bool(preparation.passes_offsets),
    }


def single_steps() -> dict[str, Any]:
    """Preparations of three leads at 125 Hz that show every step, by name."""
    from einthoven.signals import steps as p
    from einthoven.signals.preparation import Preparation

    def preparation(*before: Any, after: tuple[Any, ...] = (), window: Any = None) -> Any:
        cut = window or p.Window(500, evaluation_crops=2)
        steps = (*before, p.Resample(125), cut, *after)
        return Preparation(leads=("I", "II", "V1"), steps=steps)

    linear = (p.Resample(125, method="linear"), p.Window(500, evaluation_crops=2))
    return {
        "resample-fourier": preparation(),
        "resample-linear": Preparation(leads=("I", "II", "V1"), steps=linear),
        "window-pad": preparation(window=p.Window(1500, evaluation_crops=1, short="pad")),
        "window-middle": preparation(window=p.Window(400, evaluation_crops=1)),
        "highpass-before": preparation(p.Filter("highpass", 0.67, order=5)),
        "highpass": preparation(after=(p.Filter("highpass", 0.67, order=5),)),
        "lowpass": preparation(after=(p.Filter("lowpass", 40, order=5),)),
        "bandpass": preparation(after=(p.Filter("bandpass", (0.5, 45), order=3),)),
        "notch": preparation(after=(p.Filter("notch", 50, order=2),)),
        "standardise-record": preparation(after=(p.Standardise(over="record"),)),
        "standardise-lead": preparation(after=(p.Standardise(over="lead"),)),
        "standardise-before": preparation(p.Standardise(over="lead")),
        "centre": preparation(p.Centre()),
        "scale": preparation(after=(p.Scale(0.1, 0.25),)),
        "fill-zero": preparation(p.Fill("zero")),
        "fir": preparation(p.Fir((3, 45))),
        "baseline": preparation(p.Baseline(0.6)),
        "min-max": preparation(after=(p.MinMax(),)),
        "decimate": preparation(after=(p.Decimate(5),)),
        "derive": Preparation(
            leads=("I", "II", "III", "aVR", "aVF"),
            steps=(
                p.Derive(("III", "aVR", "aVF"), ("I", "II")),
                p.Resample(125),
                p.Window(500, evaluation_crops=2),
            ),
        ),
    }


def derived_preparation(preparation: Any, available: Any) -> Any:
    return preparation.deriving(available)


def centred_preparation(preparation: Any) -> Any:
    return preparation.centred()


def prepare_record(preparation: Any, record: Any, *, crops: str = "evaluation") -> np.ndarray:
    from einthoven.signals.prepare import prepare_batch, prepare_record, resampled_length

    if crops == "evaluation":
        return prepare_record(preparation, record).numpy()
    length = resampled_length(preparation, record.signal.shape[1], rate=record.rate)
    window = preparation.crop.samples
    starts = torch.arange(0, length - window + 1, window)
    signals = torch.from_numpy(record.select(preparation.sources).signal)
    batch = signals.expand(len(starts), -1, -1)
    return prepare_batch(preparation, batch, rate=record.rate, starts=starts).numpy()


def prepare_batch(
    preparation: Any, signals: np.ndarray, *, rate: float, starts: list[int], unit: str
) -> np.ndarray:
    from einthoven.signals.prepare import prepare_batch

    return prepare_batch(
        preparation, torch.from_numpy(signals), rate=rate, starts=torch.tensor(starts), unit=unit
    ).numpy()


def crop_seconds(preparation: Any, record: Any) -> dict[str, Any]:
    from einthoven.signals.prepare import evaluation_seconds, seconds_left_out

    return {
        "evaluation_seconds": np.array(evaluation_seconds(preparation, record)),
        "left_out": float(seconds_left_out(preparation, record)),
    }


def operation_names() -> list[str]:
    from einthoven.signals.augment import OPERATIONS

    return list(OPERATIONS)


def operation(name: str, x: torch.Tensor, strength: float, seed: int) -> torch.Tensor:
    from einthoven.signals.augment import OPERATIONS

    return OPERATIONS[name](x, strength, generator_for(seed))


def augmented(name: str, x: torch.Tensor, seed: int, **options: Any) -> torch.Tensor:
    from einthoven.signals.augment import create_augmentation

    if name == "none":  # the augmentation that did nothing is gone
        return x
    return create_augmentation(name, **options)(x, generator_for(seed))


def generator_for(*key: int) -> torch.Generator:
    from einthoven.signals.random import generator_for

    return generator_for(*key)


def uniform(shape: tuple[int, ...], seed: int, rank: int, world: int) -> torch.Tensor:
    from einthoven.signals.random import ShareGenerator, uniform

    return uniform(shape, generator=ShareGenerator(seed, rank=rank, world=world))


def noise_names() -> list[str]:
    from einthoven.experiment.noise import NOISES

    return list(NOISES)


def add_noise(signals: np.ndarray, **options: Any) -> np.ndarray:
    from einthoven.experiment.noise import add_noise

    return add_noise(signals, **options)


def offset_signals(store: Any, records: list[str], offset: float) -> np.ndarray:
    from einthoven.experiment.robustness import offset_store

    return store_signals(offset_store(store, offset), records)


def noisy_signals(store: Any, records: list[str], **options: Any) -> np.ndarray:
    from einthoven.experiment.robustness import noisy_store

    return store_signals(noisy_store(store, **options), records)


def quality(record: Any) -> dict[str, Any]:
    from einthoven.records.quality import amplitude_of, findings, mains_hum, offsets

    size, hum = amplitude_of(record), mains_hum(record)
    shifts = offsets(record)
    result: dict[str, Any] = {
        "findings": [finding.name for finding in findings(record)],
        "offset_leads": list(shifts),
        "offsets": np.array(list(shifts.values()), dtype=float),
        "hum_leads": list(hum.leads) if hum else [],
        "hum": np.array([hum.frequency, *hum.leads.values()] if hum else [], dtype=float),
    }
    if size is not None:
        result |= {
            "size": np.array([size.low, size.high, size.usual]),
            "beyond": list(size.beyond),
            "unit": size.unit,
        }
    return result


def source(store: Any, records: list[str], targets: np.ndarray, preparation: Any) -> Any:
    from einthoven.signals.batches import SignalSource

    return SignalSource(store, store.rows(np.array(records)), targets, preparation)


def training_batches(
    source: Any, *, batch_size: int, seed: int, epoch: int, augmentation: str, rank: int, world: int
) -> list[dict[str, np.ndarray]]:
    from einthoven.signals.augment import create_augmentation
    from einthoven.signals.batches import TrainingBatches

    batches = TrainingBatches(
        source,
        batch_size,
        seed,
        augment=None if augmentation == "none" else create_augmentation(augmentation),
        rank=rank,
        world=world,
        drop_last=False,
    )
    return [
        {"rows": b.rows, "targets": b.targets.numpy(), "signals": b.signals.numpy()}
        for b in batches.epoch(epoch)
    ]


def mixture_order(sources: list[Any], weights: list[float], *, seed: int, epoch: int) -> Any:
    from einthoven.stages.pretraining_data import Mixture, draws_by_share

    draws = draws_by_share([len(s) for s in sources], weights)
    return list(draws), Mixture(tuple(sources), draws).order(seed=seed, epoch=epoch)


if __name__ == "__main__":
    from common import main

    main(__file__, sys.modules[__name__])
