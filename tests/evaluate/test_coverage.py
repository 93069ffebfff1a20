"""Coverage of the population value by 95 % intervals, in simulations with binormal scores."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, norm

from einthoven.evaluate import calibration_report
from einthoven.evaluate.curves import FALSE_POSITIVE_RATES, RECALLS, curves
from einthoven.evaluate.estimate import Bootstrap, BootstrapSettings, Estimate
from einthoven.evaluate.reliability import predictive_values
from einthoven.predictions import Predictions

RECORDS, PREVALENCE, LABELS = 400, 0.05, 16
WEAKER = 0.3  # the second model's scores are this much less far apart
SHARED = 0.7  # correlation of the two models' scores in a class


@cache
def average_precision(apart: float) -> float:
    thresholds = np.linspace(12 + apart, -12, 100_001)
    found, false = norm.sf(thresholds - apart), norm.sf(thresholds)
    hits = PREVALENCE * found
    precision = hits / np.maximum(hits + (1 - PREVALENCE) * false, 1e-300)
    return float(np.trapezoid(precision, found))


def simulate(
    rng: np.random.Generator, apart: float, settings: BootstrapSettings
) -> list[tuple[Estimate, Estimate]]:
    """AUROC and AUPRC of two models for labels drawn independently."""
    targets = (rng.random((RECORDS, LABELS)) < PREVALENCE).astype(np.uint8)
    first, second = rng.normal(size=(2, RECORDS, LABELS))
    second = SHARED * first + np.sqrt(1 - SHARED**2) * second
    models = [
        norm.cdf(noise + distance * (targets - 0.5))
        for noise, distance in ((first, apart), (second, apart - WEAKER))
    ]
    table = Predictions.from_arrays(targets, models[0])
    bootstrap = Bootstrap.of(table, settings)
    return [bootstrap.estimate(scores) for scores in models]


def coverage(apart: float, simulations: int, **settings: object) -> dict[tuple[str, int], float]:
    """Share of intervals that hold the population value, by kind and number of labels averaged."""
    rng, hits = np.random.default_rng(17), defaultdict(list)
    ap, weaker = average_precision(apart), average_precision(apart - WEAKER)
    auroc = float(norm.cdf(apart / np.sqrt(2)))
    for seed in range(simulations):
        drawn = BootstrapSettings(seed=seed, **settings)  # type: ignore[arg-type]
        ours, theirs = simulate(rng, apart, drawn)
        for kind, estimate, truth in (
            ("auroc", ours[0], auroc),
            ("ap", ours[1], ap),
            ("difference", ours[1].minus(theirs[1]), ap - weaker),
        ):
            for size in (1, 4, 16):
                places = np.arange(LABELS).reshape(-1, size).tolist()
                means = [estimate.select_labels(place).macro().interval() for place in places]
                hits[kind, size] += [low <= truth <= high for low, high in filter(None, means)]
    return {key: float(np.mean(values)) for key, values in hits.items()}


@pytest.mark.slow
@pytest.mark.parametrize("apart", [1.0, 1.5])
def test_average_precision_covers_the_population_value(apart: float) -> None:
    shares = coverage(apart, 500, resamples=200)
    for (kind, size), share in shares.items():
        lowest = 0.9 if kind == "auroc" else 0.93
        error = 2 * np.sqrt(0.05 * 0.95 / (500 * LABELS / size))
        assert lowest - error < share < 0.97 + error, (kind, size)


def test_few_simulations_tell_auto_from_percentile_intervals() -> None:
    shares = coverage(1.0, 30, resamples=100)
    assert min(shares.values()) > 0.88
    assert shares["ap", 1] > 0.92
    old = coverage(1.0, 30, resamples=100, interval="percentile")
    assert old["ap", 16] < 0.4
    assert old["auroc", 16] == shares["auroc", 16]


# Positives, negatives, sensitivity, specificity and the other prevalence.
CALLS = (
    (10, 100, 0.8, 0.9, 0.05),
    (10, 400, 0.9, 0.99, 0.01),
    (20, 400, 0.7, 0.98, 0.01),
    (20, 400, 0.95, 0.95, 0.1),
    (50, 500, 0.9, 0.9, 0.02),
    (60, 300, 0.8, 0.95, 0.02),
    (200, 1000, 0.9, 0.99, 0.005),
)


def coverage_of_calls(
    ill: int, well: int, sensitivity: float, specificity: float, prevalence: float
) -> dict[str, float]:
    """Probability that intervals of predictive values hold the population value, given a call.

    It is the sum over all tables of calls, less those of a probability below 1e-6.
    """
    hits = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    cleared = (1 - prevalence) * specificity, prevalence * (1 - sensitivity)
    truth = {"ppv": hits[0] / sum(hits), "npv": cleared[0] / sum(cleared)}
    held, total = dict.fromkeys(truth, 0.0), dict.fromkeys(truth, 0.0)
    chances = np.outer(
        binom.pmf(np.arange(ill + 1), ill, sensitivity),
        binom.pmf(np.arange(well + 1), well, specificity),
    )
    for a, c in np.argwhere(chances > 1e-6).tolist():
        calls = {
            "true_positives": a,
            "false_negatives": ill - a,
            "true_negatives": c,
            "false_positives": well - c,
        }
        values = predictive_values(calls, prevalence, 0.95)
        for name, value in truth.items():
            if values[name] is not None:
                low, high = values[f"{name}_interval"]
                total[name] += chances[a, c]
                held[name] += chances[a, c] * (low <= value <= high)
    return {name: held[name] / total[name] for name in truth}


@pytest.mark.slow
@pytest.mark.parametrize("calls", CALLS)
def test_intervals_of_predictive_values_hold_the_population_value(calls: tuple[float, ...]) -> None:
    for share in coverage_of_calls(*calls).values():
        assert 0.92 < share < 0.99


def coverage_of_bands(
    positives: int, apart: float, rates: list[float], recalls: list[float], simulations: int
) -> tuple[list[float], list[float]]:
    """Share of ROC and precision-recall bands that hold the population's value, by point."""
    rng = np.random.default_rng(5)
    targets = np.zeros((RECORDS, 1), dtype=np.uint8)
    targets[:positives] = 1
    share = positives / RECORDS
    at = [int(np.abs(FALSE_POSITIVE_RATES - rate).argmin()) for rate in rates]
    reached = [int(np.abs(RECALLS - recall).argmin()) for recall in recalls]
    sensitivity = norm.sf(norm.isf(FALSE_POSITIVE_RATES[at]) - apart)
    alarms = norm.sf(norm.isf(RECALLS[reached]) + apart)
    precision = share * RECALLS[reached] / (share * RECALLS[reached] + (1 - share) * alarms)
    hits: list[list[NDArray[np.bool_]]] = [[], []]
    for seed in range(simulations):
        scores = norm.cdf(rng.normal(size=(RECORDS, 1)) + apart * (targets - 0.5))
        table = Predictions.from_arrays(targets, scores)
        report = calibration_report(table, resamples=0)
        result = curves(table, report, resamples=300, seed=seed)
        assert result is not None
        (label,) = result.labels.values()
        for kind, band, places, truth in (
            (0, label.roc, at, sensitivity),
            (1, label.precision, reached, precision),
        ):
            assert band.limits is not None
            low, high = band.limits[:, places]
            hits[kind].append((low <= truth) & (truth <= high))
    return np.mean(hits[0], axis=0).tolist(), np.mean(hits[1], axis=0).tolist()


@pytest.mark.slow
def test_bands_hold_the_curve_of_the_population_away_from_one() -> None:
    rates, recalls = [0.05, 0.1, 0.2], [0.25, 0.5, 0.75, 0.9]
    for positives in (20, 80):
        for shares in coverage_of_bands(positives, 1.5, rates, recalls, 300):
            assert min(shares) > 0.92
            assert max(shares) < 0.995
    (narrow,), _ = coverage_of_bands(10, 2.5, [0.2], recalls, 100)
    assert narrow < 0.6
