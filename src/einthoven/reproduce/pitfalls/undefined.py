"""Labels without a positive or without a negative, and other ways to average labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from einthoven.metrics.label_metrics import auroc, average_precision
from einthoven.reproduce.pitfalls.material import Material
from einthoven.reproduce.pitfalls.scoring import (
    METRICS,
    Effect,
    Finding,
    Floats,
    Scored,
    limits_of,
    macros_of_subsets,
    mean,
)

SHARE, DRAWS = 0.1, 200
TENTHS = "a tenth of the fold, undefined {}"
POLICIES = {"left out": np.nan, "as 0": 0.0, "as 0.5": 0.5}
"""What an undefined label counts as in the mean."""


def undefined(material: Material) -> Finding:
    """Policies for undefined labels, on tenths of the test fold; and other averages."""
    scored = material.test.scored()
    subsets = random_subsets(len(scored.records), SHARE, draws=DRAWS, seed=material.seed)
    by_metric = macros_of_subsets(scored, subsets)
    defined = (~np.isnan(by_metric[0])).sum(axis=1)
    effects = []
    for metric, whole, values in zip(METRICS, scored.points(), by_metric, strict=True):
        right = float(mean(whole))
        for name, counted in POLICIES.items():
            if metric == METRICS[1] and name == "as 0.5":
                continue  # nobody counts an average precision of one half
            found = macro_with(values, counted)
            what, wrong = TENTHS.format(name), float(np.nanmean(found))
            effects.append(Effect(what, metric, right, wrong, limits_of(found - right)))
    notes = (
        f"{DRAWS} random tenths of the test fold ({subsets[0].sum():,} records each): "
        f"{defined.mean():.1f} of {scored.targets.shape[1]} labels are defined in one, on average "
        f"({defined.min()} to {defined.max()}). Right is the whole fold, which a tenth stands for; "
        "wrong the mean over the tenths, with the middle 95 % of them.",
        *_training_note(material),
    )
    effects += averages(scored)
    title = "Undefined labels, and averages that are not macro"
    headlines = (TENTHS.format("as 0"), "micro average")
    return Finding("undefined", title, tuple(effects), notes, headlines=headlines)


def random_subsets(count: int, share: float, *, draws: int, seed: int) -> NDArray[np.bool_]:
    """`(draws, count)`: subsets of a share of the records, without replacement."""
    source = np.random.default_rng(np.random.SeedSequence([seed, 0x5AB5]))
    size = max(1, round(share * count))
    out = np.zeros((draws, count), dtype=bool)
    for row in out:
        row[source.choice(count, size, replace=False)] = True
    return out


def macro_with(values: Floats, counted: float) -> Floats:
    """Mean over labels, where those that are NaN count as a number, or not at all for NaN."""
    if np.isnan(counted):
        return mean(values)
    return np.asarray(np.where(np.isnan(values), counted, values).mean(axis=-1))


def averages(scored: Scored) -> list[Effect]:
    """Micro and prevalence-weighted averages beside the macro value."""
    areas, precisions = scored.points()
    weights = scored.targets.sum(axis=0).astype(np.float64)
    flat = scored.targets.ravel(), scored.probabilities.ravel()
    micro = float(auroc(*flat)[0]), float(average_precision(*flat)[0])
    effects = []
    for metric, values, pooled in zip(METRICS, (areas, precisions), micro, strict=True):
        there = ~np.isnan(values)
        weighted = float(np.average(values[there], weights=weights[there]))
        right = float(mean(values))
        effects.append(Effect("micro average", metric, right, pooled))
        effects.append(Effect("average weighted by positives", metric, right, weighted))
    return effects


def _training_note(material: Material) -> tuple[str, ...]:
    """How many labels a tenth of the training records loses, cut at random and cut by us."""
    cohort = material.cohort
    train = cohort.targets("train")
    had = train.any(axis=0)
    if not len(train):
        return ()
    subsets = random_subsets(len(train), SHARE, draws=DRAWS, seed=material.seed + 1)
    lost = [int((had & ~train[chosen].any(axis=0)).sum()) for chosen in subsets]
    ours = had & ~cohort.fraction(SHARE, seed=material.seed).targets("train").any(axis=0)
    return (
        f"A random tenth of the training records has no positive of {np.mean(lost):.1f} labels on "
        f"average (up to {max(lost)}); `Cohort.fraction({SHARE:g})`, whole patients stratified by "
        f"label, of {int(ours.sum())}.",
    )
