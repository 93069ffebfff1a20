"""Train arms of the ladder and measure them on fold 9; every result is one line of a file.

Fold 10 is never read: its records leave the cohort first.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import ARMS, BASE, TEACHER_FLAGS
from numpy.typing import NDArray

from einthoven.cohorts import Cohort, open_cohort
from einthoven.evaluate import compare, score_predictions
from einthoven.files import append_line, file_sha256, read_lines, read_tensors, write_tensors
from einthoven.models import weights_file
from einthoven.predictions.table import Predictions
from einthoven.signals.preparation import Preparation
from einthoven.signals.store import Store
from einthoven.stages.data import Context, Dataset
from einthoven.stages.finetune import validation_outputs
from einthoven.stages.posttrain import PosttrainResult, posttrain
from einthoven.stages.recipe import load_recipe
from einthoven.stages.validation import LOSS, SELECT
from einthoven.training.distributed import Processes
from einthoven.training.loop import CHECKPOINT

RESULTS = Path(__file__).with_name("results.jsonl")
GROUPS = ((1, 2), (3, 4), (5, 6), (7, 8))
SOUP = 5
"""Last epochs whose weights are averaged."""
CROPS = 13
METRICS = (SELECT, "macro_auprc")
TEACHERS_SHARE = 0.5
BOOTSTRAP: dict[str, Any] = {"resamples": 1000, "interval": "percentile"}

Result = dict[str, Any]
Floats = NDArray[np.float64]


class Ladder:
    """Cohort without fold 10, its store, the encoder, and the folder of the runs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.store = Store.open(options.store)
        cohort = open_cohort(options.cohort, task="all-71")
        cohort = cohort.select((cohort.table["split"] != "test").to_numpy())
        self.cohort = cohort.select(self.store.without_quarantined(cohort.ids()))
        self.weights: Path = options.weights
        self.folder: Path = options.out

    def train(self, arm: str, cohort: Cohort, flags: Sequence[str], folder: Path) -> Training:
        """Train an arm on a cohort, or resume the training in its folder."""
        chosen = ARMS[arm]
        recipe = load_recipe(chosen.recipe, (*chosen.flags, *flags), backbone=chosen.backbone)
        is_pretrained = recipe.initialise == "pretrained"
        epochs = Epochs(folder)
        result = posttrain(
            cohort,
            self.store,
            chosen.backbone,
            recipe=recipe,
            out=folder,
            weights=self.weights if is_pretrained else None,
            options={"causal": False} if is_pretrained else {},
            processes=Processes("cpu"),
            progress=epochs,
        )
        return Training(result, epochs)

    def out_of_fold(self, arm: str, seed: int) -> Floats:
        """Predictions of every training record by a network that was trained without it."""
        train = self.cohort.select((self.cohort.table["split"] == "train").to_numpy())
        folds = train.table["fold"].to_numpy()
        predictions = np.full(train.matrix.shape, np.nan)
        for group in GROUPS:
            name = f"teacher-{arm}-{seed}-without-{'-'.join(map(str, group))}"
            file = self.folder / f"{name}.npy"
            is_held_out = np.isin(folds, group)
            if not file.is_file():
                flags = (*TEACHER_FLAGS[arm], f"seed={seed}")
                training = self.train(arm, train.select(~is_held_out), flags, self.folder / name)
                np.save(file, training.predict(train.select(is_held_out), self.store))
            predictions[is_held_out] = np.load(file)
        return predictions

    def with_soft_targets(self, teachers: Sequence[str], seed: int) -> Cohort:
        """Cohort whose training targets are the mean of labels and the teachers' predictions."""
        if not teachers:
            return self.cohort
        soft = np.mean([self.out_of_fold(name, seed) for name in teachers], axis=0)
        matrix = self.cohort.matrix.astype(np.float32)
        rows = (self.cohort.table["split"] == "train").to_numpy()
        matrix[rows] += TEACHERS_SHARE * (soft - matrix[rows])
        return replace(self.cohort, matrix=matrix)

    def run(self, arm: str, seed: int, epochs: int) -> Result:
        """Train an arm and measure it."""
        name, probed = f"{arm}-{epochs}-{seed}", self.folder / f"base-{epochs}-{seed}" / "stage1"
        is_probed_alike = not ARMS[arm].teachers and all("stage2." in x for x in ARMS[arm].flags)
        if is_probed_alike and probed.is_dir() and not (self.folder / name).is_dir():
            shutil.copytree(probed, self.folder / name / "stage1", copy_function=os.link)
        cohort = self.with_soft_targets(ARMS[arm].teachers, seed)
        start, processor = time.monotonic(), time.process_time()
        flags = (f"stage2.epochs={epochs}", f"seed={seed}")
        training = self.train(arm, cohort, flags, self.folder / name)
        lines = training.result.results["stage2"].history
        table = self._table(training.predict(self.validation, self.store))
        table.save(self.folder / f"{name}.parquet")
        score = score_predictions(table, **BOOTSTRAP)
        result: Result = {
            "best_epoch": training.result.results["stage2"].best_epoch,
            "macro_auroc": score.macro_auroc,
            "macro_auroc_interval": score.macro_auroc_interval,
            "macro_auprc": score.macro_auprc,
            "macro_auprc_interval": score.macro_auprc_interval,
            "last": {key: lines[-1][key] for key in (*METRICS, LOSS, "train_loss")},
            "by_epoch": [[round(line[key], 5) for key in METRICS] for line in lines],
            "training_minutes": round(sum(line["seconds"] for line in lines) / 60, 1),
            "minutes_of_this_process": round((time.monotonic() - start) / 60, 1),
            "processor_minutes_of_this_process": round((time.process_time() - processor) / 60, 1),
        }
        reference = self.folder / f"base-{epochs}-{seed}.parquet"
        if arm != "base" and reference.is_file():
            pair = compare(table, reference, **BOOTSTRAP)
            for metric, gain in (("auroc", pair.auroc), ("auprc", pair.auprc)):
                assert gain is not None
                result[f"{metric}_minus_base"] = [gain.macro, *(gain.macro_interval or ())]
        result["crops_13"] = self._metrics(training, CROPS)
        if soup := training.epochs.mean():
            training.result.classifier.load_state_dict(soup)
            result[f"soup_{SOUP}"] = self._metrics(training)
            result[f"soup_{SOUP}_crops_13"] = self._metrics(training, CROPS)
        return result

    @property
    def validation(self) -> Cohort:
        """Fold 9, with its labels."""
        return self.cohort.select((self.cohort.table["split"] == "validation").to_numpy())

    def _metrics(self, training: Training, crops: int | None = None) -> list[float]:
        table = self._table(training.predict(self.validation, self.store, crops))
        score = score_predictions(table, resamples=0)
        return [score.macro_auroc, score.macro_auprc]

    def _table(self, probabilities: Floats) -> Predictions:
        cohort = self.validation
        return Predictions(
            cohort.labels, cohort.ids(), cohort.patients(), cohort.targets(), probabilities
        )


class Epochs:
    """Progress callback that prints every epoch and keeps the weights of the last ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, task: str, completed: int, total: int, metrics: Mapping[str, float] | None = None, /
    ) -> None:
        """Copy the weights of the checkpoint at the end of an epoch of stage 2."""
        if not task.startswith("stage 2") or "train_loss" not in (metrics or {}):
            return
        assert metrics is not None
        numbers = {key: round(metrics[key], 4) for key in METRICS if key in metrics}
        print(time.strftime("%H:%M"), self.folder.name, int(metrics["epoch"]), numbers, flush=True)
        tensors, _ = read_tensors(self.folder / "stage2" / CHECKPOINT)
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        (self.folder / "epochs").mkdir(exist_ok=True)
        write_tensors(self._file(int(metrics["epoch"])), model, {})
        self._file(int(metrics["epoch"]) - SOUP).unlink(missing_ok=True)

    def mean(self) -> dict[str, torch.Tensor]:
        """Mean weights of the last epochs; empty if there are fewer than `SOUP`."""
        files = sorted((self.folder / "epochs").glob("*.safetensors"))
        if len(files) < SOUP:
            return {}
        states = [read_tensors(file)[0] for file in files]
        return {
            name: torch.stack([state[name] for state in states]).double().mean(0).to(value.dtype)
            for name, value in states[-1].items()
        }

    def _file(self, epoch: int) -> Path:
        return self.folder / "epochs" / f"{epoch:03}.safetensors"


class Training:
    """A finished training."""

    def __init__(self, result: PosttrainResult, epochs: Epochs) -> None:
        self.result, self.epochs = result, epochs

    def predict(self, cohort: Cohort, store: Store, crops: int | None = None) -> Floats:
        """Probabilities of all records of a cohort, (records, labels), at the trained precision."""
        recipe, classifier = self.result.recipe, self.result.classifier
        preparation: Preparation = self.result.data.preparation
        if crops is not None:
            preparation = preparation.with_evaluation_crops(crops)
        context = Context(
            seed=recipe.seed,
            aggregate=recipe.data.aggregate,
            criterion=self.result.criterion,
            precision="bf16" if recipe.precision == "bf16" else "fp32",
            processes=Processes("cpu"),
        )
        source = Dataset(cohort.with_splits("train"), store, preparation).source("train")
        return validation_outputs(classifier.eval(), source, context)[0].astype(np.float64)


def commit() -> str:
    """Commit of this checkout; empty outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


HEADER = (
    "| rung | change | keys | epochs, seed | minutes | AUROC | minus `base` | AUPRC "
    "| 13 crops | mean of weights | both |",
    "|---" * 11 + "|",
)


def listing(lines: Sequence[Result]) -> str:
    """Markdown table of every arm: its results on fold 9, or that it has not been run."""
    rows = []
    for name, arm in ARMS.items():
        own = sorted((x for x in lines if x["arm"] == name), key=lambda x: (x["epochs"], x["seed"]))
        keys = ", ".join(f"`{key}`" for key in arm.flags if key not in BASE) or "–"
        start = f"| {arm.rung} | `{name}`: {arm.about} | {keys} |"
        rows += [f"{start} {x['epochs']}, {x['seed']} | {_cells(x)} |" for x in own]
        if not own:
            rows.append(f"{start} not run yet |" + " |" * 7)
    return "\n".join((*HEADER, *rows))


def _cells(line: Result) -> str:
    low, high = line["macro_auroc_interval"]
    gain = line.get("auroc_minus_base")
    other = "–" if gain is None else f"{gain[0]:+.4f} ({gain[1]:+.4f} to {gain[2]:+.4f})"
    better = [line.get(key) for key in ("crops_13", f"soup_{SOUP}", f"soup_{SOUP}_crops_13")]
    pairs = [f"{pair[0]:.4f} / {pair[1]:.4f}" if pair else "–" for pair in better]
    cells = [
        f"{line['training_minutes']:.0f}",
        f"{line['macro_auroc']:.4f} ({low:.4f} to {high:.4f})",
    ]
    return " | ".join([*cells, other, f"{line['macro_auprc']:.4f}", *pairs])


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not in the file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", help="folder of PTB-XL")
    parser.add_argument("store", help="its packed store")
    parser.add_argument("--weights", type=Path, help="encoder of s4_small, pretrained on folds 1-8")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["base"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=24, help="of fine-tuning (default: 24)")
    parser.add_argument("--out", type=Path, default=Path("runs/small-model"), help="run folders")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a line a training")
    parser.add_argument("--commit", help="commit of the code (default: of this checkout)")
    parser.add_argument("--list", action="store_true", help="print arms and results as a table")
    options = parser.parse_args(arguments)
    lines = read_lines(options.results)
    finished = {(line["arm"], line["seed"], line["epochs"]) for line in lines}
    if options.list:
        print(listing(lines))
        return
    warnings.simplefilter("ignore")
    logging.getLogger("einthoven").setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    ladder = Ladder(options)
    encoder = file_sha256(weights_file(options.weights))[:12] if options.weights else ""
    for seed in options.seeds:
        for name in options.arms:
            if (name, seed, options.epochs) in finished:
                continue
            line = {"arm": name, "rung": ARMS[name].rung, "flags": ARMS[name].flags}
            line |= {"teachers": ARMS[name].teachers, "seed": seed, "epochs": options.epochs}
            line |= {"weights": encoder, "commit": options.commit or commit()}
            line |= ladder.run(name, seed, options.epochs)
            append_line(options.results, line)
            print(name, seed, f"AUROC {line['macro_auroc']:.4f} AUPRC {line['macro_auprc']:.4f}")


if __name__ == "__main__":
    sys.exit(main())
