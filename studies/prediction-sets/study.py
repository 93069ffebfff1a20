"""Prediction sets and recalibration of einthoven-small: the numbers of docs/uncertainty.md.

    python studies/prediction-sets/study.py data/ptb-xl data/ptb-xl.store

Bounds come from fold 9, coverage is measured on fold 10.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from einthoven.cohorts import open_cohort
from einthoven.evaluate.calibrate import fit_calibration, refit_calibration
from einthoven.evaluate.conformal import fit_sets
from einthoven.evaluate.reliability import measure_quality
from einthoven.inference import predict_cohort
from einthoven.models import load_model
from einthoven.predictions import Predictions
from einthoven.signals.store import Store

MISCOVERAGE = 0.1
GROUPS = {"all 71": None, "5 common": ("NORM", "AFIB", "LVH", "IMI", "SR"), "1AVB": ("1AVB",)}
SIZES = (50, 100, 200, 400)
DRAWS = 20


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", help="folder of PTB-XL")
    parser.add_argument("store", help="its packed store")
    options = parser.parse_args(arguments)
    model, store = load_model(), Store.open(options.store)
    cohort = open_cohort(options.cohort, task="all-71")
    validation, test = (
        predict_cohort(model, cohort, store, split) for split in ("validation", "test")
    )
    marginal(validation, test)
    recalibration(test)


def marginal(validation: Predictions, test: Predictions) -> None:
    """One bound for all records of a label, against one for each answer."""
    values, targets = validation.probabilities, validation.require_targets()
    truth = np.where(targets == 1, values, 1 - values)  # probability of the true answer
    k = int((len(values) + 1) * MISCOVERAGE)
    bound = np.partition(truth, k - 1, axis=0)[k - 1]
    later, true = test.probabilities, test.require_targets() == 1
    sets = fit_sets(validation)
    lowest = np.array([0.0 if x is None else x for x in sets.lowest])  # type: ignore[union-attr]
    highest = np.array([1.0 if x is None else x for x in sets.highest])  # type: ignore[union-attr]
    forms = {
        "one bound for all records": (later >= bound, 1 - later >= bound),
        "a bound for each answer": (later >= lowest, later <= highest),
    }
    common = (true.sum(axis=0) >= 5) & np.array([x is not None for x in sets.lowest])  # type: ignore[union-attr]
    print(f"Coverage on fold 10, {common.sum()} labels: of all records, positives, negatives")
    for name, (present, absent) in forms.items():
        whole = np.where(true, present, absent)[:, common].mean()
        shares = [
            ((member & covered)[:, common].sum(axis=0) / member[:, common].sum(axis=0))
            for member, covered in ((true, present), (~true, absent))
        ]
        print(f"  {name}: {whole:.3f} {shares[0].mean():.3f} {shares[1].mean():.3f}")
        print("    lowest of positives:", sorted(np.round(shares[0], 2).tolist())[:5])


def recalibration(test: Predictions) -> None:
    """Change of the log loss on other records, by number of records and kind of shift."""
    rng = np.random.default_rng(0)
    print("Log loss after recalibration on n records, in % of that before (no shift, shifts)")
    for name, labels in GROUPS.items():
        table = test if labels is None else test.with_labels(labels)
        for size in SIZES:
            changes = [
                one_change(table, size, shift, rng) for shift in SHIFTS for _ in range(DRAWS)
            ]
            means = np.reshape(changes, (len(SHIFTS), DRAWS)).mean(axis=1)
            texts = (
                f"{shift} {100 * mean:+.1f}" for shift, mean in zip(SHIFTS, means, strict=True)
            )
            print(f"  {name}, {size}:", ", ".join(texts))


SHIFTS = ("none", "overconfident", "underconfident", "other prevalence")


def one_change(table: Predictions, size: int, shift: str, rng: np.random.Generator) -> float:
    """Relative change of the log loss on records that were not drawn."""
    z = logit(np.clip(table.probabilities, 1e-9, 1 - 1e-9))
    moved: NDArray[np.float64] = {
        "none": z,
        "overconfident": 1.4 * z,
        "underconfident": z / 1.4,
        "other prevalence": z + rng.normal(0, 1, z.shape[1]),
    }[shift]
    moved_table = replace(table, probabilities=expit(moved))
    drawn = np.isin(np.arange(len(z)), rng.permutation(len(z))[:size])
    fitted, rest = moved_table.select(drawn), moved_table.select(~drawn)
    calibration = refit_calibration(fitted, fit_calibration(fitted).thresholds)
    after = replace(rest, probabilities=calibration.apply(rest.probabilities))
    losses = [measure_quality(x).macro["log_loss"] for x in (rest, after)]
    return losses[1] / losses[0] - 1


if __name__ == "__main__":
    main()
