"""Computations of each section, through an adapter (`api`); imports nothing of einthoven."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import common
from common import Item, digest, formula_ecg, formula_input, formula_tensor, summary

SPLITS = ("train", "validation", "test")


@cache
def workplace() -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"answers-{os.getpid()}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# --- 1. predictions -----------------------------------------------------------------------------


@cache
def _ptbxl(api: Any) -> tuple[Any, Any, dict[str, list[str]]]:
    """PTB-XL, its store, and the 200 fixed records by split: 80, 60, 60."""
    cohort, store = api.open_cohort(common.PTBXL, "all-71"), api.open_store(common.PTBXL_STORE)
    sample = {}
    for split, count in zip(SPLITS, (80, 60, 60), strict=True):
        every = sorted(api.ids(cohort, split), key=int)
        sample[split] = every[7 :: len(every) // count][:count]
    everyone = [name for names in sample.values() for name in names]
    return api.subset(cohort, everyone), store, sample


def predictions(api: Any) -> list[Item]:
    model = cache(api.load_model)

    def lists(api: Any) -> Any:
        _, _, sample = _ptbxl(api)
        return sample | {"labels": api.model_labels(model())}

    def from_files(api: Any, calibrated: bool) -> Any:
        cohort, _, _ = _ptbxl(api)
        predictions = [
            api.predict_file(model(), f, calibrated=calibrated) for f in api.paths(cohort)
        ]
        return {
            "ids": api.ids(cohort),
            "probabilities": np.stack([f["probabilities"] for f in predictions]),
            "above": [",".join(f["above"]) for f in predictions],
            "doubts": [f["doubts"] for f in predictions],
            "doubts_in_all": sum(f["doubts"] for f in predictions),
            "derived": [",".join(f["derived"]) for f in predictions],
            "seconds_left_out": np.array([f["seconds_left_out"] for f in predictions]),
        }

    def from_store(api: Any, calibrated: bool) -> Any:
        cohort, store, _ = _ptbxl(api)
        return {
            split: api.table_values(
                api.predict_cohort(model(), cohort, store, split, calibrated=calibrated)
            )
            for split in SPLITS
        }

    def fewer_leads(api: Any) -> Any:
        cohort, store, _ = _ptbxl(api)
        sets = {
            "eight": ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"),
            "limb": ("I", "II", "III", "aVR", "aVL", "aVF"),
            "two-of-limbs": ("III", "aVR", "V2"),
            "lead-I": ("I",),
        }
        files = api.paths(cohort, "test")[:10]
        results: dict[str, Any] = {}
        for name, leads in sets.items():
            predictions = [api.predict_file(model(), f, leads=leads) for f in files]
            table = api.predict_cohort(model(), cohort, store, "validation", leads=leads)
            results[name] = {
                "files": np.stack([e["probabilities"] for e in predictions]),
                "derived": [",".join(e["derived"]) for e in predictions],
                "left_out": [",".join(e["left_out_leads"]) for e in predictions],
                "store": api.table_values(table)["probabilities"],
            }
        return results

    def lacking_leads(api: Any) -> Any:
        """Files with some limb leads only, whose others are derived."""
        results: dict[str, Any] = {}
        chest = ("V1", "V2", "V3", "V4", "V5", "V6")
        for pair in (("I", "II"), ("I", "aVF"), ("III", "aVR"), ("aVL", "aVF")):
            signal, leads = formula_ecg(500, seed=4), (*pair, *chest)
            rows = [common.LEADS.index(lead) for lead in leads]
            file = workplace() / f"lacking-{'-'.join(pair)}"
            api.write_wfdb(file, signal[rows], 500, leads)
            results["-".join(pair)] = api.predict_file(model(), f"{file}.hea")
        return results

    def samples(api: Any) -> Any:
        results: dict[str, Any] = {}
        for file in sorted(common.SAMPLES.glob("*/*.hea")):
            name = f"{file.parent.name}-{file.stem}"
            record = api.read_record(file)
            results[name] = {
                "signal": summary(record.signal, keep=400),
                "rate": float(record.rate),
                "leads": list(record.leads),
                "calibrated": api.predict_file(model(), file),
                "uncalibrated": api.predict_file(model(), file, calibrated=False)["probabilities"],
            }
        return results

    def embeddings(api: Any, level: str, count: int) -> Any:
        cohort, store, sample = _ptbxl(api)
        part = api.subset(cohort, sample["test"][:count])
        out = workplace() / f"embedding-{level}.npy"
        api.embed_cohort(model(), part, store, out, level=level, split="test")
        from_store = np.load(out)
        out = workplace() / f"embedding-files-{level}.npy"
        api.embed_files(model(), api.paths(part)[:10], out, level=level)
        return {"store": summary(from_store, keep=20000), "files": summary(np.load(out))}

    def weights(api: Any) -> Any:
        return common.tensor_sums(api.model_weights(model())) | {
            "calibration": api.calibration_values(api.model_calibration(model()))
        }

    return [
        ("lists", lists),
        ("model", weights),
        ("files-calibrated", partial(from_files, calibrated=True)),
        ("files-uncalibrated", partial(from_files, calibrated=False)),
        ("store-calibrated", partial(from_store, calibrated=True)),
        ("store-uncalibrated", partial(from_store, calibrated=False)),
        ("fewer-leads", fewer_leads),
        ("lacking-leads", lacking_leads),
        ("samples", samples),
        ("embeddings-pooled", partial(embeddings, level="pooled", count=50)),
        ("embeddings-token", partial(embeddings, level="token", count=10)),
        ("embeddings-lead", partial(embeddings, level="lead", count=10)),
    ]


# --- 2. features --------------------------------------------------------------------------------

LARGE = 25_000_000  # parameters from which tokens are not computed apart from features


def features(api: Any) -> list[Item]:
    def names(api: Any) -> Any:
        return {"names": sorted(api.backbone_names())}

    def of(api: Any, name: str) -> Any:
        backbone = api.create_backbone(name, seed=0)
        state = backbone.state_dict()
        parameters = dict(backbone.named_parameters())
        count = sum(p.numel() for p in parameters.values())
        keys = sorted((api.stored_key(name, key), key) for key in state)
        results: dict[str, Any] = {
            "parameters": count,
            "keys": [old for old, _ in keys],
            "shapes": [list(state[key].shape) for _, key in keys],
        }
        # The initial weights of seed 0.
        first = {old: state[key].float().numpy() for old, key in keys}
        sums = common.tensor_sums(first)
        results |= {"initial_sum": sums["sum"], "initial_abs_sum": sums["abs_sum"]}
        # Tables that the network computes stay as they are.
        formula = {
            key: torch.from_numpy(formula_tensor(old, tuple(state[key].shape))).to(state[key].dtype)
            for old, key in keys
            if key in parameters or key.endswith(("running_mean", "running_var"))
        }
        mismatch = backbone.load_state_dict(formula, strict=False)
        assert not mismatch.unexpected_keys
        backbone.eval()
        prepared = api.backbone_preparation(backbone)
        facts = api.preparation_facts(prepared)
        results["preparation"] = facts
        shape = (2, len(facts["leads"]), facts["window"])
        x = torch.from_numpy(formula_input(shape, seed=1))
        if api.fits_statistics(backbone):
            torch.manual_seed(0)
            api.fit_statistics(backbone, [x, x.flip(2)])
            buffers = {
                api.stored_key(name, k): v.float().numpy() for k, v in backbone.named_buffers()
            }
            results["fitted"] = common.tensor_sums(buffers)
        with torch.no_grad():
            results["features"] = api.features(backbone, x).numpy()
            if count < LARGE:
                results["tokens"] = summary(api.tokens(backbone, x).numpy())
        return results

    return [("names", names), *((n, partial(of, name=n)) for n in sorted(api.backbone_names()))]


# --- 3. losses ----------------------------------------------------------------------------------

_MTECG = ("mtecg_tiny_100hz", {"depth": 1, "width": 32, "heads": 1})
_ST_MEM = ("st_mem_tiny", {"depth": 1})
_S4_TINY = ("s4_tiny", {"depth": 2, "width": 16})
_ECG_FM = ("ecg_fm", {"depth": 2, "width": 96})
_CPC = {"negatives": 8, "pool": 0, "offsets_ms": (40.0, 120.0)}

# name: (objective, (backbone, its options), the objective's options, samples)
LOSSES: dict[str, tuple[str, tuple[str, dict[str, Any]], dict[str, Any], int]] = {
    "mae-mtecg": ("mae", _MTECG, {}, 200),
    "mae-mtecg-raw": ("mae", _MTECG, {"target": "raw", "mask_ratio": 0.5}, 200),
    "mae-mtecg-lead-mean": ("mae", _MTECG, {"target": "lead-mean-removed"}, 200),
    "mae-mtecg-baseline": ("mae", _MTECG, {"target": "baseline-removed"}, 200),
    "mae-st-mem": ("mae", _ST_MEM, {}, 750),
    "mae-st-mem-all-lead": ("mae", _ST_MEM, {"masking": "all-lead", "mask_ratio": 0.4}, 750),
    "cpc-s4-tiny": ("cpc", _S4_TINY, _CPC, 250),
    "cpc-s4-tiny-default": ("cpc", _S4_TINY, {}, 250),
    "cpc-s4-tiny-all": ("cpc", _S4_TINY, _CPC | {"negatives": 0}, 250),
    "cpc-s4-tiny-pool": ("cpc", _S4_TINY, _CPC | {"pool": 16, "normalise": True}, 250),
    "cpc-s4-tiny-mean": ("cpc", _S4_TINY, _CPC | {"reduction": "mean"}, 250),
    "cpc-s4-tiny-corrected": ("cpc", _S4_TINY, {"preset": "corrected"}, 250),
    "cpc-s4-published": ("cpc", ("s4", {"depth": 1, "width": 32}), {"preset": "published"}, 480),
    "cpc-ecg-cpc": ("cpc", ("ecg_cpc", {"depth": 1, "width": 32}), {}, 480),
    "cmsc-mtecg": ("cmsc", _MTECG, {}, 400),
    "cmsc-ecg-fm": ("cmsc", _ECG_FM, {"lead_mask": 0.2}, 1000),
    "wav2vec2-ecg-fm": ("wav2vec2", _ECG_FM, {"dropout": 0.0, "codes": 16}, 1000),
    "ecg_fm-ecg-fm": ("ecg_fm", _ECG_FM, {"dropout": 0.0, "codes": 16}, 1000),
    "ecg_fm-ecg-fm-dropout": ("ecg_fm", _ECG_FM, {"codes": 16}, 1000),
}


def losses(api: Any) -> list[Item]:
    def names(api: Any) -> Any:
        objectives = {case[0] for case in LOSSES.values()}
        assert objectives == set(api.objective_names()), "an objective without a case"
        return {"names": sorted(api.objective_names()), "targets": api.target_names()}

    def of(api: Any, case: str) -> Any:
        objective, (backbone, options), own, samples = LOSSES[case]
        results: dict[str, Any] = {}
        for seed in (0, 1):
            module = api.create_pretraining(
                backbone, objective=objective, seed=seed, options=options, own=own
            )
            x = torch.from_numpy(formula_input((4, 12, samples), seed=10 + seed))
            values: list[float] = []
            logged: list[dict[str, float]] = []
            module.train()
            optimizer = torch.optim.SGD(
                [p for p in module.parameters() if p.requires_grad], lr=1e-3
            )
            for step in (1, 2):
                torch.manual_seed(seed)
                loss, metrics = api.objective_loss(module, x, 100 * seed + step)
                optimizer.zero_grad()
                loss.backward()
                if step == 1:
                    sizes = [
                        float(p.grad.double().abs().sum())
                        for p in module.parameters()
                        if p.grad is not None
                    ]
                    results[f"seed-{seed}/gradients"] = np.array([sum(sizes), max(sizes)])
                optimizer.step()
                api.after_step(module, step)
                values.append(float(loss.detach()))
                logged.append(metrics)
            module.eval()
            with torch.no_grad():
                loss, metrics = api.objective_loss(module, x, 7)
            results[f"seed-{seed}/losses"] = np.array([*values, float(loss)])
            results[f"seed-{seed}/metrics"] = [*logged, metrics]
        return results

    def targets(api: Any) -> Any:
        results: dict[str, Any] = {}
        for name, options in (_MTECG, _ST_MEM):
            backbone = api.create_backbone(name, seed=0, **options)
            x = torch.from_numpy(formula_input((2, 12, 1500), seed=3))[..., :600]
            for kind in api.target_names():
                results[f"{name}/{kind}"] = summary(api.make_target(kind, x, backbone).numpy())
        return results

    return [
        ("names", names),
        *((case, partial(of, case=case)) for case in LOSSES),
        ("targets", targets),
    ]


# --- 4. training --------------------------------------------------------------------------------

_TINY = ("s4_tiny", {"depth": 2, "width": 16})
_TINY_MAE = ("mtecg_tiny_100hz", {"depth": 1, "width": 32, "heads": 1})

# name: (the pretraining that it starts from, the network)
RUNS: dict[str, tuple[str | None, tuple[str, dict[str, Any]]]] = {
    "probe": ("cpc", _TINY),
    "fine-tuning": ("cpc", _TINY),
    "post-training": ("cpc", _TINY),
    "post-training-mae": ("mae", _TINY_MAE),
    "scratch": (None, _TINY),
}


def training(api: Any) -> list[Item]:
    @cache
    def cohort_and_store() -> tuple[Any, Any]:
        if not common.TRAINING_COHORT.is_dir():
            api.synthesize(common.TRAINING_COHORT, records=240, seed=11)
        cohort = api.open_cohort(common.TRAINING_COHORT, "superclass-5")
        everyone = api.open_cohort(common.TRAINING_COHORT, "all-71", empty_rows="keep")
        return cohort, api.pack(everyone, workplace() / "store")

    def lines(run: Path) -> Any:
        left_out = ("seconds", "time", "per_second")
        return {
            folder: [
                {k: v for k, v in line.items() if not any(x in k for x in left_out)}
                for line in history
            ]
            for folder, history in api.history_lines(run).items()
        }

    @cache
    def pretrained(name: str, backbone: str) -> Path:
        options = dict(_TINY[1] if backbone == _TINY[0] else _TINY_MAE[1])
        cohort, store = cohort_and_store()
        recipe = common.RECIPES / f"pretraining-{name}.toml"
        return api.pretrain(cohort, store, backbone, recipe, workplace() / f"pre-{name}", options)

    def pretraining(api: Any, name: str, backbone: str) -> Any:
        encoder = pretrained(name, backbone)
        return {
            "lines": lines(workplace() / f"pre-{name}"),
            "weights": common.tensor_sums(api.encoder_weights(encoder)),
        }

    @cache
    def trained(name: str) -> Path:
        first, network = RUNS[name]
        cohort, store = cohort_and_store()
        out = workplace() / f"run-{name}"
        weights = None if first is None else pretrained(first, network[0])
        recipe = common.RECIPES / f"{name.removesuffix('-mae')}.toml"
        api.run_experiment(cohort, store, network[0], recipe, out, weights, dict(network[1]))
        return out

    def run(api: Any, name: str) -> Any:
        out = trained(name)
        model = api.run_model(out)
        return {
            "lines": lines(out),
            "validation": api.table_values(api.run_table(out, "validation")),
            "test": api.table_values(api.run_table(out, "test")),
            "calibration": api.calibration_values(api.model_calibration(model)),
            "weights": common.tensor_sums(api.model_weights(model)),
            "scores": api.run_scores(out),
        }

    def ensemble(api: Any) -> Any:
        out = workplace() / "ensemble"
        api.ensemble([trained("probe"), trained("fine-tuning")], out)
        return {"test": api.table_values(api.run_table(out, "test"))} | api.run_scores(out)

    def robustness(api: Any) -> Any:
        cohort, store = cohort_and_store()
        model = api.run_model(trained("post-training"))
        return api.robustness(model, cohort, store, "test", resamples=100, seed=2)

    def estimators(api: Any) -> Any:
        x = np.stack([formula_ecg(100, seed=s) for s in range(12)])
        y = np.array([[s % 2, s % 3 == 0] for s in range(12)], dtype=int)
        flat = x.reshape(12, -1)
        arguments = {"rate": 100, "leads": common.LEADS}
        with_weights = arguments | {
            "options": dict(_TINY[1]),
            "weights": pretrained("cpc", _TINY[0]),
        }
        model = api.run_model_folder(trained("fine-tuning"))
        return {
            "embedder": api.embedder_features(flat, backbone=_TINY[0], **with_weights),
            "embedder-of-model": api.embedder_features(flat, backbone=str(model), **arguments),
            "classifier": api.classifier_probabilities(
                flat,
                y,
                backbone=_TINY[0],
                **with_weights,
                overrides=["stage1.epochs=3", "stage1.base_lr_sweep=[0.1]"],
                validation_fraction=None,
                random_state=1,
            ),
        }

    return [
        ("pretraining-cpc", partial(pretraining, name="cpc", backbone=_TINY[0])),
        ("pretraining-mae", partial(pretraining, name="mae", backbone=_TINY_MAE[0])),
        *((name, partial(run, name=name)) for name in RUNS),
        ("ensemble", ensemble),
        ("robustness", robustness),
        ("estimators", estimators),
    ]


# --- 5. evaluation ------------------------------------------------------------------------------

LABELS = [f"label-{i:02d}" for i in range(12)]


def _write_tables() -> None:
    """Three tables of 600 records of 420 patients; rare labels, ties, and one label never there."""
    rng = np.random.Generator(np.random.PCG64(2024))
    records, share = (
        600,
        np.array([0.5, 0.3, 0.2, 0.15, 0.1, 0.08, 0.05, 0.03, 0.02, 0.015, 0.01, 0.4]),
    )
    hidden = rng.standard_normal((records, 12))
    targets = (hidden > np.quantile(hidden, 1 - share, axis=0).diagonal()).astype(np.uint8)
    targets[targets.sum(axis=1) == 0, 0] = 1
    patients = rng.integers(0, 420, records)
    arrays: dict[str, Any] = {"targets": targets, "patients": patients}
    for name, noise in (("a", 1.0), ("b", 1.6), ("c", 1.3)):
        logit = 2 * hidden + noise * 1.5 * rng.standard_normal(hidden.shape) - 2.0
        arrays[name] = np.round(1 / (1 + np.exp(-logit)), 3)  # rounded, so that there are ties
    arrays["age"] = rng.uniform(15, 95, records).round(1)
    arrays["age"][rng.random(records) < 0.05] = np.nan
    arrays["sex"] = rng.integers(0, 3, records)
    common.TABLES.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(common.TABLES, **arrays)


def evaluation(api: Any) -> list[Item]:
    if not common.TABLES.is_file():
        _write_tables()
    data = dict(np.load(common.TABLES))
    names = [f"r{i:04d}" for i in range(len(data["targets"]))]
    patients = [f"p{i:03d}" for i in data["patients"]]

    def table(name: str) -> Any:
        return api.make_table(LABELS, names, patients, data["targets"], data[name])

    def lacking() -> Any:
        """A label that never occurs, and records without any label."""
        targets = data["targets"].copy()
        targets[:, 10] = 0
        targets[:20] = 0
        return api.make_table(LABELS, names, patients, targets, data["a"])

    def few() -> Any:
        """Labels with 0 to 5 positives, and one that every record has."""
        targets = data["targets"].copy()
        for column, positives in zip(range(4, 10), range(6), strict=True):
            targets[np.flatnonzero(targets[:, column])[positives:], column] = 0
        targets[:, 3] = 1
        return api.make_table(LABELS, names, patients, targets, data["a"])

    def metrics(api: Any) -> Any:
        targets = data["targets"]
        return {n: api.label_metrics(targets, data[n]) for n in "abc"} | {
            f"f_max_{n}": float(api.f_max(targets, data[n])) for n in "abc"
        }

    def scores(api: Any) -> Any:
        some: dict[str, Any] = {"resamples": 300}
        cases: dict[str, dict[str, Any]] = {
            "default": {"resamples": 1000},
            "seed": some | {"seed": 5},
            "patient": some | {"by": "patient"},
            "skip": some | {"absent": "skip"},
            "zero": some | {"absent": "zero"},
            "basic": some | {"interval": "basic", "level": 0.9},
            "bca": some | {"interval": "bca"},
            "bca-patient": some | {"interval": "bca", "by": "patient"},
            "trapezoid": some | {"auprc": "trapezoid"},
            "tensor": some | {"engine": "tensor"},
            "none": {"resamples": 0},
        }
        results = {name: api.score(table("a"), **case) for name, case in cases.items()}
        results["b"] = api.score(table("b"), **some)
        results["lacking"] = api.score(lacking(), **some)
        results["lacking-zero"] = api.score(lacking(), **some, absent="zero")
        return results

    def comparisons(api: Any) -> Any:
        some: dict[str, Any] = {"resamples": 300}
        return {
            "default": api.compare(table("a"), table("b"), resamples=1000),
            "other": api.compare(table("c"), table("b"), **some, seed=3),
            "patient": api.compare(table("a"), table("b"), **some, by="patient"),
            "bca": api.compare(table("a"), table("c"), **some, interval="bca"),
            "skip": api.compare(table("a"), table("b"), **some, absent="skip", auprc="trapezoid"),
        }

    def calibration(api: Any) -> Any:
        results: dict[str, Any] = {}
        for name in "ab":
            for bias in (False, True):
                fitted = api.fit_calibration(table(name), bias=bias)
                values, decided = api.calibrated(fitted, data["c"])
                results[f"{name}-{'bias' if bias else 'temperature'}"] = api.calibration_values(
                    fitted
                ) | {"calibrated": values, "decided": decided.astype(np.uint8)}
        results["lacking"] = api.calibration_values(api.fit_calibration(lacking()))
        for bias in (False, True):
            fitted = api.fit_calibration(few(), bias=bias)
            results[f"few-{bias}"] = api.calibration_values(fitted)
        return results

    def reliability(api: Any) -> Any:
        fitted = api.fit_calibration(table("b"))
        some: dict[str, Any] = {"resamples": 300, "seed": 1}
        return {
            "record": api.calibration_report(table("a"), fitted, by_patient=False, **some),
            "patient": api.calibration_report(table("a"), fitted, by_patient=True, bins=7, **some),
            "before": api.calibration_report(table("c"), None, by_patient=False, resamples=0),
        }

    def subgroups(api: Any) -> Any:
        sex = np.array(["female", "male", ""])[data["sex"]]
        site = np.array(["x", "y", "z", "w"])[data["patients"] % 4]
        some: dict[str, Any] = {"resamples": 200}
        return {
            "record": api.score_subgroups(table("a"), {"sex": sex, "site": site}, **some),
            "patient": api.score_subgroups(
                table("b"), {"sex": sex}, **some, by="patient", min_positives=3, seed=4
            ),
        }

    def ptbxl_groups(api: Any) -> Any:
        cohort, _, _ = _ptbxl(api)
        return {k: list(map(str, v)) for k, v in api.demographics(cohort, "train").items()}

    def means(api: Any) -> Any:
        return api.table_values(api.mean_predictions([table(n) for n in "abc"]))

    def round_trips(api: Any) -> Any:
        results: dict[str, Any] = {}
        for kind in ("csv", "parquet"):
            file = workplace() / f"table.{kind}"
            api.save_table(table("a"), file)
            results[kind] = api.table_values(api.load_table(file))
        return results

    return [
        ("metrics", metrics),
        ("scores", scores),
        ("comparisons", comparisons),
        ("calibration", calibration),
        ("reliability", reliability),
        ("subgroups", subgroups),
        ("ptbxl-groups", ptbxl_groups),
        ("means", means),
        ("saved", round_trips),
    ]


# --- 6. preparation -----------------------------------------------------------------------------

RATES = (100, 250, 257, 360, 500, 1000)


def preparation(api: Any) -> list[Item]:
    @cache
    def record(rate: int, seed: int = 0) -> Any:
        return api.make_record(formula_ecg(rate, seed=seed), rate, common.LEADS)

    @cache
    def presets() -> dict[str, Any]:
        """The backbones' preparations, each once."""
        preparations: dict[str, Any] = {}
        for name in sorted(api.backbone_names()):
            with torch.device("meta"):
                preparation = api.backbone_preparation(api.create_backbone(name))
            if not any(
                json.dumps(api.preparation_dict(preparation)) == json.dumps(api.preparation_dict(o))
                for o in preparations.values()
            ):
                preparations[name] = preparation
        return preparations

    def result_or_refusal(function: Any) -> Any:
        try:
            return function()
        except Exception as error:
            if type(error).__name__ != "PreparationError":
                raise
            return {"refused": True}

    def outputs(preparation: Any) -> Any:
        return {
            str(rate): result_or_refusal(
                lambda rate=rate: summary(api.prepare_record(preparation, record(rate)))
            )
            for rate in RATES
        }

    def of_presets(api: Any) -> Any:
        return {
            name: outputs(preparation) | {"facts": api.preparation_facts(preparation)}
            for name, preparation in presets().items()
        }

    def of_steps(api: Any) -> Any:
        return {name: outputs(preparation) for name, preparation in api.single_steps().items()}

    def variants(api: Any) -> Any:
        results: dict[str, Any] = {}
        for name, preparation in presets().items():
            results[f"{name}/centred"] = summary(
                api.prepare_record(api.centred_preparation(preparation), record(500, seed=2))
            )
            results[f"{name}/crops"] = api.crop_seconds(preparation, record(257))
            if len(api.preparation_facts(preparation)["leads"]) < 12:
                continue
            few = ("I", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
            rows = [common.LEADS.index(lead) for lead in few]
            lacking = api.make_record(formula_ecg(500, seed=2)[rows], 500, few)
            derived = api.derived_preparation(preparation, few)
            results[f"{name}/derived"] = summary(api.prepare_record(derived, lacking))
        every = api.single_steps()["highpass"]
        results["all-crops"] = summary(api.prepare_record(every, record(360), crops="all"))
        for unit in ("mV", "uV"):
            x = np.stack([formula_ecg(250, seed=s)[[0, 1, 6]] for s in range(3)])
            x = np.rint(1000 * x).astype(np.int16) if unit == "uV" else x
            results[f"batch-{unit}"] = summary(
                api.prepare_batch(every, x, rate=250, starts=[0, 77, 500], unit=unit)
            )
        return results

    def missing_values(api: Any) -> Any:
        x = formula_ecg(250, seed=6).copy()
        x[1, 40:60] = np.nan
        incomplete = api.make_record(x, 250, common.LEADS)
        results: dict[str, Any] = {}
        for name, preparation in (presets() | api.single_steps()).items():
            results[name] = result_or_refusal(
                lambda preparation=preparation: summary(api.prepare_record(preparation, incomplete))
            )
        return results

    def augmentations(api: Any) -> Any:
        x = torch.from_numpy(formula_input((16, 12, 250), seed=8))
        results: dict[str, Any] = {"operations": api.operation_names()}
        for name in api.operation_names():
            for strength, seed in ((1.0, 0), (0.4, 1)):
                signals = api.operation(name, x, strength, seed)
                results[f"{name}/{strength}"] = summary(signals.numpy())
        for seed in (0, 1, 2):
            results[f"rand-augment/{seed}"] = summary(
                api.augmented("rand-augment", x, seed).numpy()
            )
            results[f"lead-mask/{seed}"] = summary(api.augmented("lead-mask", x, seed).numpy())
        results["rand-augment/weak"] = summary(
            api.augmented("rand-augment", x, 3, level=3, operations=4, probability=0.9).numpy()
        )
        results["none"] = summary(api.augmented("none", x, 0).numpy())
        return results

    def draws(api: Any) -> Any:
        return {
            "generator": torch.rand(5, generator=api.generator_for(1, 2, 3)).numpy(),
            "shares": np.stack([api.uniform((2, 3), 9, r, 2).numpy() for r in range(2)]),
        }

    def noise(api: Any) -> Any:
        results: dict[str, Any] = {"kinds": sorted(api.noise_names())}
        for rate in (100, 250, 500):
            x = np.stack([np.rint(1000 * formula_ecg(rate, seed=s)) for s in range(3)])
            for kind in api.noise_names():
                for snr, seed in ((12.0, 0), (0.0, 3)):
                    signals = api.add_noise(
                        x.astype(np.int16),
                        rate=rate,
                        kind=kind,
                        snr=snr,
                        names=["a", "b", "17"],
                        seed=seed,
                    )
                    results[f"{kind}/{rate}/{snr:g}"] = summary(signals, keep=600)
        _, store, sample = _ptbxl(api)
        results["offset"] = summary(api.offset_signals(store, sample["test"][:5], 0.3))
        results["noisy"] = summary(
            api.noisy_signals(store, sample["test"][:5], kind="muscle", snr=6.0, seed=1)
        )
        return results

    def qualities(api: Any) -> Any:
        results: dict[str, Any] = {}
        for rate in RATES:
            x = formula_ecg(rate, seed=rate)
            t = np.arange(x.shape[1]) / rate
            cases = {
                "plain": x,
                "flat": np.where(np.arange(12)[:, None] == 3, 0.5, x),
                "microvolts": x * 1000,
                "volts": x / 1000,
                "offset": x + 0.5,
                "artefact": x + 9 * (t > 9.9),
                "hum": x + 0.1 * np.sin(2 * np.pi * 50 * t),
                "hum-60": x + 0.1 * np.sin(2 * np.pi * 60 * t),
                "short": x[:, : rate // 2],
            }
            lost = x.copy()
            lost[2, :7] = np.nan
            for name, signal in (cases | {"nan": lost}).items():
                case = api.make_record(signal.astype(np.float32), rate, common.LEADS)
                results[f"{name}/{rate}"] = api.quality(case)
        return results

    def ptbxl_quality(api: Any) -> Any:
        cohort, _, _ = _ptbxl(api)
        reports = [api.quality(api.read_record(f)) for f in api.paths(cohort)]
        return {
            "ids": api.ids(cohort),
            "doubts": [e["doubts"] for e in reports],
            "units": [e["unit"] for e in reports],
            "offset_leads": [",".join(e["offset_leads"]) for e in reports],
            "sizes": np.stack([e["size"] for e in reports]),
        }

    def batches(api: Any) -> Any:
        cohort, store, sample = _ptbxl(api)
        noisy = api.backbone_preparation(api.create_backbone("s4_tiny"))
        part = api.subset(cohort, sample["train"])
        source = api.source(store, api.ids(part), api.targets(part), noisy)
        results: dict[str, Any] = {}
        for rank, world in ((0, 1), (0, 2), (1, 2)):
            every = api.training_batches(
                source,
                batch_size=24,
                seed=4,
                epoch=2,
                augmentation="rand-augment",
                rank=rank,
                world=world,
            )
            for i, batch in enumerate(every):
                results[f"{rank}-of-{world}/{i}"] = {
                    "rows": batch["rows"],
                    "targets": digest(batch["targets"].astype(np.uint8)),
                    "signals": summary(batch["signals"], keep=1000),
                }
        other = api.subset(cohort, sample["test"])
        second = api.source(store, api.ids(other), api.targets(other), preparation)
        for epoch in (0, 1):
            counts, order = api.mixture_order([source, second], [1.0, 3.0], seed=2, epoch=epoch)
            results[f"mixture/{epoch}"] = {"draws": counts, "order": order}
        return results

    return [
        ("presets", of_presets),
        ("steps", of_steps),
        ("variants", variants),
        ("missing-values", missing_values),
        ("augmentations", augmentations),
        ("draws", draws),
        ("noise", noise),
        ("quality", qualities),
        ("quality-ptbxl", ptbxl_quality),
        ("batches", batches),
    ]


# --- 7. cohorts ---------------------------------------------------------------------------------


def cohorts(api: Any) -> list[Item]:
    import pandas as pd

    def synthetic(api: Any, records: int, seed: int, rate: int) -> Any:
        folder = workplace() / f"synthetic-{seed}-{rate}"
        api.synthesize(folder, records=records, seed=seed, rate=rate)
        results: dict[str, Any] = {"files": len([f for f in folder.rglob("*") if f.is_file()])}
        for name in ("ptbxl_database", "scp_statements", "ground_truth"):
            frame = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
            results[f"{name}/rows"] = len(frame)
            for column in frame:
                text = "\n".join(frame[column]).encode()
                results[f"{name}/{column}"] = digest(np.frombuffer(text, np.uint8))
        signals = [
            np.fromfile(f, "<i2").reshape(-1, 12).T
            for f in sorted(folder.rglob("records*/**/*.dat"))
        ]
        stacked = np.stack(signals)
        results |= {
            "signals": summary(stacked, keep=3000),
            "bytes": digest(stacked),
            "by_record": [digest(s) for s in signals],
            "headers": digest(
                *(np.frombuffer(f.read_bytes(), np.uint8) for f in sorted(folder.rglob("*.hea")))
            ),
        }
        return results

    def tables(api: Any) -> Any:
        rng = np.random.Generator(np.random.PCG64(77))
        records = 500
        frame = pd.DataFrame({"path": [f"ecgs/{i:04d}" for i in range(records)]})
        frame["patient"] = [f"{p:03d}" for p in rng.integers(0, 320, records)]
        for label, share in zip("ABCDEF", (0.4, 0.2, 0.1, 0.05, 0.02, 0.3), strict=True):
            frame[label] = (rng.random(records) < share).astype(int)
        frame["age"] = rng.integers(18, 95, records)
        frame["sex"] = np.array(["m", "F", "male", ""])[rng.integers(0, 4, records)]
        results: dict[str, Any] = {}
        plain = workplace() / "table.csv"
        frame.to_csv(plain, index=False)
        for seed in (0, 1):
            cohort = api.open_cohort(plain, seed=seed)
            results[f"seed-{seed}"] = api.cohort_facts(cohort)
            results[f"seed-{seed}/ids"] = {split: api.ids(cohort, split) for split in SPLITS}
            for share in (0.1, 0.5):
                part = api.fraction(cohort, share, seed)
                results[f"seed-{seed}/fraction-{share}"] = api.ids(part, "train")
        groups = api.demographics(api.open_cohort(plain), "train")
        results["demographics"] = {k: list(map(str, v)) for k, v in groups.items()}
        results["min-records"] = api.cohort_facts(api.open_cohort(plain, min_records=30))
        folds = frame.assign(fold=frame["patient"].astype(int) % 7 + 1)
        folds.to_parquet(workplace() / "folds.parquet")
        results["folds"] = api.cohort_facts(api.open_cohort(workplace() / "folds.parquet"))
        unlabelled_frame = frame[["path", "patient"]].assign(
            record=[f"r{i}" for i in range(records)]
        )
        unlabelled_frame.to_csv(workplace() / "unlabelled.csv", index=False)
        unlabelled = api.open_cohort(workplace() / "unlabelled.csv")
        results["unlabelled"] = {split: api.ids(unlabelled, split) for split in SPLITS}
        return results

    def ptbxl(api: Any) -> Any:
        results: dict[str, Any] = {}
        tasks = ("all-71", "diagnostic-44", "subclass-23", "superclass-5", "form-19", "rhythm-12")
        for task in tasks:
            results[task] = api.cohort_facts(api.open_cohort(common.PTBXL, task))
        form = api.open_cohort(common.PTBXL, "form-19", empty_rows="keep", min_records=50)
        results["form-19-kept"] = api.cohort_facts(form)
        part = api.fraction(form, 0.01, 3)
        results["fraction"] = api.ids(part, "train")
        return results

    def store(api: Any) -> Any:
        _, opened, sample = _ptbxl(api)
        return {"signals": digest(api.store_signals(opened, sample["test"]))}

    return [
        ("synthetic-100", partial(synthetic, records=60, seed=3, rate=100)),
        ("synthetic-500", partial(synthetic, records=6, seed=4, rate=500)),
        ("tables", tables),
        ("ptbxl", ptbxl),
        ("store", store),
    ]


SECTIONS = {
    "predictions": predictions,
    "features": features,
    "losses": losses,
    "training": training,
    "evaluation": evaluation,
    "preparation": preparation,
    "cohorts": cohorts,
}
