"""Labels without a positive or without a negative, and averages other than the macro average."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data import Study
from einthoven.evaluate import auroc, average_precision
from scoring import METRICS, Effect, Finding, Floats, Scored, mean, middle

SHARE, DRAWS = 0.1, 200
TENTHS = "a tenth of the fold, undefined labels {}"
POLICIES = {"left out": np.nan, "as 0": 0.0, "as 0.5": 0.5}
"""Value of an undefined label in the mean."""


def undefined(study: Study) -> Finding:
    """Policies for undefined labels, on tenths of the test fold; and other averages."""
    scored = study.test.scored()
    subsets = random_subsets(len(scored.records), SHARE, draws=DRAWS, seed=study.seed)
    by_metric = scored.resampled(subsets)
    defined = (~np.isnan(by_metric[0])).sum(axis=1)
    effects = []
    for metric, right, values in zip(METRICS, scored.macros(), by_metric, strict=True):
        for name, value in POLICIES.items():
            if metric == METRICS[1] and name == "as 0.5":
                continue  # not a policy in use for average precision
            macros = macro_with(values, value)
            wrong = float(np.nanmean(macros))
            what = TENTHS.format(name)
            effects.append(Effect(what, metric, right, wrong, middle(macros - right)))
    notes = (
        f"{DRAWS} random tenths of the test fold ({subsets[0].sum():,} records each): on "
        f"average {defined.mean():.1f} of {scored.targets.shape[1]} labels are defined in a tenth "
        f"({defined.min()} to {defined.max()}). Right: the whole fold; wrong: the mean over the "
        "tenths, with the central 95 % of them.",
        training_note(study),
    )
    effects += averages(scored)
    title = "Undefined labels, and averages other than the macro average"
    headlines = (TENTHS.format("as 0"), "micro average")
    return Finding("undefined", title, effects, notes, headlines=headlines)


def random_subsets(count: int, share: float, *, draws: int, seed: int) -> NDArray[np.uint8]:
    """0 or 1, `(draws, count)`: subsets of a share of the records, without replacement."""
    random = np.random.default_rng(np.random.SeedSequence([seed, 0x5AB5]))
    size = max(1, round(share * count))
    subsets = np.zeros((draws, count), dtype=np.uint8)
    for row in subsets:
        row[random.choice(count, size, replace=False)] = 1
    return subsets


def macro_with(values: Floats, value: float) -> Floats:
    """Mean over labels, NaN replaced by a value, or left out if the value is NaN."""
    return mean(np.where(np.isnan(values), value, values))


def averages(scored: Scored) -> list[Effect]:
    """Micro and prevalence-weighted averages beside the macro average."""
    weights = scored.targets.sum(axis=0).astype(np.float64)
    flat = scored.targets.ravel(), scored.probabilities.ravel()
    micro = float(auroc(*flat)[0]), float(average_precision(*flat)[0])
    effects = []
    for metric, values, pooled in zip(METRICS, scored.by_label(), micro, strict=True):
        defined = ~np.isnan(values)
        weighted = float(np.average(values[defined], weights=weights[defined]))
        right = float(mean(values))
        effects.append(Effect("micro average", metric, right, pooled))
        effects.append(Effect("average weighted by positives", metric, right, weighted))
    return effects


def training_note(study: Study) -> str:
    """Number of labels that a tenth of the training records loses, at random and stratified."""
    cohort = study.cohort
    train = cohort.targets("train")
    present = train.any(axis=0)
    subsets = random_subsets(len(train), SHARE, draws=DRAWS, seed=study.seed + 1)
    lost = [int((present & ~train[subset == 1].any(axis=0)).sum()) for subset in subsets]
    tenth = cohort.fraction(SHARE, seed=study.seed).targets("train")
    return (
        f"A random tenth of the training records has no positives for {np.mean(lost):.1f} labels "
        f"on average (up to {max(lost)}); with `Cohort.fraction({SHARE:g})`, which takes whole "
        f"patients stratified by label, the number is {int((present & ~tenth.any(axis=0)).sum())}."
    )
