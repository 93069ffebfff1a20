"""The bootstrap of macro AUROC and AUPRC against a scikit-learn loop.

    python benchmarks/bench_bootstrap.py

2,198 records x 71 labels with the label counts of PTB-XL 1.0.3's test fold, synthetic
probabilities, 1,000 accepted resamples. The baseline calls `roc_auc_score` and
`average_precision_score` for the records of a resample; it runs for a few resamples and its time
is scaled up to 1,000. Our times are the fastest of several runs and include the sort.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from einthoven.evaluate.bootstrap import Draws, multiplicities
from einthoven.evaluate.metrics import rank, resampled_metrics
from einthoven.evaluate.scores import score
from table import Row, Times, fastest, print_table, speed_row, timed

Floats = NDArray[np.float64]

RECORDS = 2198
# Positives of the 71 statements, in code order, in fold 10 of PTB-XL 1.0.3.
# fmt: off
POSITIVES = (
    79, 1, 2, 322, 152, 7, 27, 35, 10, 234, 8, 54, 54, 18, 9, 6, 8, 48, 267, 14, 22, 2, 2, 2, 29,
    5, 3, 112, 66, 4, 17, 18, 22, 13, 128, 79, 162, 42, 20, 11, 44, 18, 34, 214, 18, 182, 963, 77,
    42, 40, 28, 2, 1, 2, 114, 55, 10, 12, 77, 64, 2, 1674, 82, 101, 3, 14, 3, 3, 2, 87, 8,
)
# fmt: on
TARGET = 100.0  # baseline time over ours


def example() -> tuple[NDArray[np.uint8], Floats]:
    """Targets with PTB-XL's counts and probabilities of a good classifier; some labels tie."""
    rng = np.random.default_rng(0)
    targets = np.zeros((RECORDS, len(POSITIVES)), np.uint8)
    for label in np.argsort(POSITIVES):
        # The most frequent label comes last and first goes to the records without any other.
        order = rng.permutation(RECORDS)
        if label == np.argmax(POSITIVES):
            order = order[np.argsort(targets[order].any(axis=1), kind="stable")]
        targets[order[: POSITIVES[label]], label] = 1
    scores = 1 / (1 + np.exp(2 - 2 * targets - rng.normal(size=targets.shape)))
    scores[:, ::10] = np.round(scores[:, ::10], 2)
    return targets, scores


def loop(targets: NDArray[np.uint8], scores: Floats, draws: Draws, count: int) -> Floats:
    """The baseline: (2, count, labels) values of the first resamples."""
    values = np.empty((2, count, targets.shape[1]))
    for i, weight in enumerate(draws.multiplicities[:count]):
        rows = np.repeat(np.arange(RECORDS), weight)
        values[0, i] = roc_auc_score(targets[rows], scores[rows], average=None)
        values[1, i] = average_precision_score(targets[rows], scores[rows], average=None)
    return values


def run(resamples: int = 1000, baseline: int = 5, runs: int = 5) -> list[Row]:
    """Measure the metrics of all resamples, then the drawing and a whole `score`."""
    targets, scores = example()
    draws = multiplicities(RECORDS, resamples, seed=0, accept=targets)
    expected = loop(targets, scores, draws, baseline)
    few = timed(lambda: loop(targets, scores, draws, baseline))
    theirs = Times(*(t / baseline * resamples for t in few))

    def metrics() -> Floats:
        ranking = rank(targets, scores)
        return np.stack(resampled_metrics(ranking, draws.multiplicities)[:2])

    deviation = np.abs(metrics()[:, :baseline] - expected).max()
    ours = fastest([timed(metrics) for _ in range(runs)])
    note = f"sort included; max deviation {deviation:.0e}"
    rows = [speed_row("bootstrap", ours, theirs, target=TARGET, note=note)]
    drawing_times = [
        timed(lambda: multiplicities(RECORDS, resamples, seed=0, accept=targets))
        for _ in range(runs)
    ]
    score_times = [
        timed(lambda: score(targets, scores, labels=label_names(), resamples=resamples))
        for _ in range(runs)
    ]
    note = f"{resamples} accepted of {draws.drawn} drawn"
    rows.append(speed_row("bootstrap, drawing alone", fastest(drawing_times), theirs, note=note))
    note = "drawing, sort, both metrics, all intervals, F-max"
    rows.append(speed_row("bootstrap, all of score()", fastest(score_times), theirs, note=note))
    return rows


def label_names() -> list[str]:
    """A name for each label."""
    return [f"L{i:02d}" for i in range(len(POSITIVES))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--baseline", type=int, default=5, help="resamples of the baseline")
    options = parser.parse_args()
    print_table(
        run(options.resamples, options.baseline),
        title=f"{options.resamples} resamples x 71 labels x 2,198 records, AUROC and AUPRC\n"
        f"(baseline: scikit-learn, {options.baseline} resamples scaled up)",
    )


if __name__ == "__main__":
    main()
