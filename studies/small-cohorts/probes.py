"""Measure the choices behind the linear probe of a small cohort, on features alone.

Three tables: which rows the logistic regression is fitted on, one penalty for all labels or one for
each, and the effect of temperatures that are fitted out of fold. Cohorts are drawn from PTB-XL's
folds 9 and 10 by patient, and scored on records of other patients.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from arms import scores
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from einthoven.cohorts import Cohort, open_cohort
from einthoven.evaluate import calibrate as calibration_rule
from einthoven.evaluate import fit_calibration
from einthoven.files import Json, write_json
from einthoven.models import load_model
from einthoven.predictions import Predictions
from einthoven.signals.batches import SignalSource
from einthoven.signals.random import generator_for
from einthoven.signals.store import Store
from einthoven.stages.logistic import fit_logistic, log_loss, search_penalty

Floats = NDArray[np.float64]
RESULTS = Path(__file__).with_name("probes.json")
SIZES = (50, 100, 200, 500, 1000)
STATEMENTS = ("AFIB", "IMI", "LVH", "STACH", "CLBBB", "1AVB", "PVC", "ASMI")
TESTED = 2000
"""Records of other patients that every cohort is scored on."""
POSITIVES = (0, 10, 20, 40, 80, 10_000)
"""Limits of the groups in which the effect of temperatures is averaged."""
BATCH = 64


class Material(NamedTuple):
    """Features of crops, `(records, crops, width)`, patients, and `(records, labels)` targets."""

    evaluation: Floats
    random: Floats
    patients: NDArray[np.str_]
    targets: NDArray[np.uint8]
    tasks: dict[str, NDArray[np.uint8]]


def material_of(cohort: Cohort, store: Store) -> Material:
    """Features of four evaluation crops and of two random crops of the records of both folds."""
    model = load_model()
    network = model.backbone.eval()
    cohort = cohort.select((cohort.table["split"] != "train").to_numpy())
    targets = cohort.targets()
    source = SignalSource(store, store.rows(cohort.ids()), targets, model.preparation)
    evaluation, random = [], []
    with torch.no_grad():
        for start in range(0, len(targets), BATCH):
            rows = np.arange(start, min(start + BATCH, len(targets)))
            crops, owner = source.evaluation_crops(rows)
            features = network.features(crops)[torch.argsort(owner, stable=True)]
            evaluation.append(features.reshape(len(rows), -1, features.shape[1]).numpy())
            draws = [
                source.training_batch(rows, generator_for(0, start, crop), None).signals
                for crop in range(2)
            ]
            random.append(np.stack([network.features(crop).numpy() for crop in draws], axis=1))
    metadata = cohort.metadata()
    tasks = {name: targets[:, cohort.labels.index(name)] for name in STATEMENTS}
    tasks["male sex"] = (metadata["sex"] == "male").to_numpy(dtype=np.uint8)
    tasks["age over 65"] = (metadata["age"] > 65).to_numpy(dtype=np.uint8)
    features = (np.concatenate(parts).astype(np.float64) for parts in (evaluation, random))
    return Material(*features, cohort.patients(), targets, tasks)


def draws(
    material: Material, sizes: Sequence[int], number: int
) -> Iterator[tuple[int, int, NDArray[np.intp], NDArray[np.intp]]]:
    """Size, draw, and the rows of training and test records."""
    names = np.unique(material.patients)
    for draw in range(number):
        order = np.random.default_rng([draw, 0x9B0B]).permutation(names)
        rank = dict(zip(order.tolist(), range(len(order)), strict=True))
        rows = np.argsort([rank[name] for name in material.patients.tolist()], kind="stable")
        tested = rows[-TESTED:]
        others = ~np.isin(material.patients[rows], material.patients[tested])
        for size in sizes:
            yield size, draw, rows[others][:size], tested


class Fit(NamedTuple):
    """Probabilities of the test records, and of the training records out of fold."""

    probabilities: Floats
    out_of_fold: Floats


def fit_rows(features: Floats, targets: NDArray[np.uint8], patients: NDArray[np.str_],
             tested: Floats) -> Fit:  # fmt: skip
    """Logistic regression with a searched penalty; every crop is a row, one label.

    `features` and `tested` are `(records, crops, width)`.
    """
    records, crops, width = features.shape
    rows, labels = features.reshape(-1, width), np.repeat(targets, crops)[:, None]
    weights = np.full(len(rows), 1 / crops)
    search = search_penalty(rows, labels, np.repeat(patients, crops), row_weights=weights)
    fitted = fit_logistic(rows, labels, search.penalty, row_weights=weights)
    logits = fitted.logits(tested.reshape(-1, width)).reshape(len(tested), -1)
    left_out = search.logits.reshape(records, crops)
    return Fit(expit(logits).mean(axis=1), expit(left_out).mean(axis=1))


def rows_and_temperatures(
    material: Material, sizes: Sequence[int], number: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores by the rows that are fitted, and log loss without and with fitted temperatures."""
    scored, calibrated = [], []
    for size, draw, rows, tested in draws(material, sizes, number):
        patients = material.patients[rows]
        for task, targets in material.tasks.items():
            positives = int(targets[rows].sum())
            if min(positives, size - positives) < 5:
                continue
            whole = material.evaluation[tested]
            fits = {
                "evaluation crops": (material.evaluation[rows], whole),
                "random crops": (material.random[rows], whole),
                "mean features": tuple(
                    x.mean(axis=1, keepdims=True) for x in (material.evaluation[rows], whole)
                ),
            }
            cell = {"records": size, "draw": draw, "task": task}
            results = {
                name: fit_rows(features, targets[rows], patients, test)
                for name, (features, test) in fits.items()
            }
            default = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            means = [x.mean(axis=1) for x in (material.evaluation[rows], whole)]
            default.fit(means[0], targets[rows])
            probabilities = {name: fit.probabilities for name, fit in results.items()}
            probabilities["mean features, C = 1"] = default.predict_proba(means[1])[:, 1]
            for name, values in probabilities.items():
                result = scores(targets[tested], values, 0.5)
                scored.append(cell | {"rows": name} | result)
            fit = results["evaluation crops"]
            table = Predictions(
                ("label",), np.arange(size).astype(str), patients,
                targets[rows][:, None], fit.out_of_fold[:, None],
            )  # fmt: skip
            fitted = fit_calibration(table).apply(fit.probabilities[:, None])[:, 0]
            losses = [
                scores(targets[tested], values, 0.5)["log_loss"]
                for values in (fit.probabilities, fitted)
            ]
            rarer = min(positives, size - positives)
            calibrated.append(cell | {"rarer": rarer, "before": losses[0], "after": losses[1]})
    return pd.DataFrame(scored), pd.DataFrame(calibrated)


def penalties(material: Material, sizes: Sequence[int], number: int) -> pd.DataFrame:
    """Mean log loss over the statements with two positives, by one penalty and by one for each."""
    lines = []
    for size, draw, rows, tested in draws(material, sizes, number):
        positives = material.targets[rows].sum(axis=0)
        labels = (positives >= 2) & (material.targets[tested].sum(axis=0) >= 20)
        targets = material.targets[rows][:, labels]
        features = material.evaluation[rows].mean(axis=1)
        test, truth = material.evaluation[tested].mean(axis=1), material.targets[tested][:, labels]
        patients = material.patients[rows]
        shared = search_penalty(features, targets, patients).penalty
        together = fit_logistic(features, targets, shared).logits(test)
        columns = []
        for label in targets.T:
            own = search_penalty(features, label[:, None], patients).penalty
            columns.append(fit_logistic(features, label[:, None], own).logits(test))
        weights = np.ones(len(test))
        lines.append(
            {
                "records": size,
                "draw": draw,
                "labels": int(labels.sum()),
                "one": log_loss(together, truth.astype(float), weights),
                "each": log_loss(np.hstack(columns), truth.astype(float), weights),
            }
        )
    return pd.DataFrame(lines)


def summary(scored: pd.DataFrame, calibrated: pd.DataFrame, by_label: pd.DataFrame) -> Json:
    """Means of the three tables."""
    means = scored.groupby(["records", "rows"])[["auroc", "log_loss"]].mean().reset_index()
    groups = pd.cut(calibrated["rarer"], POSITIVES)
    changes = calibrated.groupby(groups, observed=True)[["before", "after"]].mean()
    changes["change"] = changes["after"] / changes["before"] - 1
    changes["cohorts"] = calibrated.groupby(groups, observed=True).size()
    changes.index = changes.index.astype(str)
    single = by_label.groupby("records")[["labels", "one", "each"]].mean().reset_index()
    return {
        "rows": means.to_dict("records"),
        "temperatures": changes.rename_axis("rarer").reset_index().to_dict("records"),
        "penalties": single.to_dict("records"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the three tables, write them as JSON and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", help="folder of PTB-XL")
    parser.add_argument("store", help="its packed store")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="records")
    parser.add_argument("--draws", type=int, default=3, help="cohorts of every size")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    # The rule under test leaves cohorts with few positives as they are.
    calibration_rule.MIN_FOR_TEMPERATURES = 1
    store = Store.open(options.store)
    cohort = open_cohort(options.cohort, task="all-71")
    material = material_of(cohort.select(store.without_quarantined(cohort.ids())), store)
    tables = rows_and_temperatures(material, options.sizes, options.draws)
    small = [size for size in options.sizes if size <= 500]
    result = summary(*tables, penalties(material, small, options.draws))
    write_json(options.out, result | {"draws": options.draws, "tested": TESTED})
    for name, lines in result.items():
        print(name, pd.DataFrame(lines).round(4).to_string(index=False), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
