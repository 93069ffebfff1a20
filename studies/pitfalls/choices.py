"""Mistakes about joining windows, choosing thresholds, and the area under the PR curve."""

from __future__ import annotations

import numpy as np

from data import Outputs, Study
from einthoven.evaluate import trapezoid_auprc
from einthoven.evaluate.metrics import THRESHOLDS
from scoring import METRICS, Effect, Finding, Floats, Scored, Targets, mean, middle

METHODS = {"probability": "mean probability", "logit": "mean logit", "max": "highest probability"}
BENCHMARK_WINDOWS = 7


def joined_windows(study: Study) -> Finding:
    """The same windows, joined in other ways."""
    test = study.test
    right = test.scored()
    effects: list[Effect] = []
    for method, name in METHODS.items():
        if method != test.aggregate:
            effects += study.test_effects(name, right, test.scored(method))
    rows = "every window as a separate record"
    effects += study.test_effects(rows, right, windows_as_rows(test))
    seven = study.outputs(windows=BENCHMARK_WINDOWS)
    for aggregate in (test.aggregate, "max"):
        what = f"{BENCHMARK_WINDOWS} overlapping windows, {_name(aggregate)}"
        effects += study.test_effects(what, right, seven.scored(aggregate))
    notes = (
        f"{study.name} on fold 10. Right: the aggregation of the model, the "
        f"{_name(test.aggregate)} of {len(test.logits) / len(test.rows):g} windows. A network that "
        "was selected with another aggregation would show other differences. Choose one before "
        "the test fold is evaluated, and report it.",
    )
    title = "Windows aggregated in another way"
    return Finding("windows-joined", title, effects, notes, headlines=(METHODS["max"], rows))


def _name(aggregate: str | tuple[str, ...]) -> str:
    return METHODS[aggregate] if isinstance(aggregate, str) else "way of each label"


def windows_as_rows(outputs: Outputs) -> Scored:
    """Every window beside its record's targets, as if it were a record."""
    owner = outputs.owner.numpy()
    return Scored(outputs.targets[owner], outputs.logits.double().sigmoid().numpy(), owner)


def thresholds(study: Study) -> Finding:
    """One threshold for all labels, and one for each, chosen on fold 9 or on fold 10."""
    test, targets = study.test, study.test.targets
    fold_9, fold_10 = study.validation.joined(), test.joined()
    curve = sample_f(targets, fold_10)
    best = int(sample_f(study.validation.targets, fold_9).argmax())
    limits = best_thresholds(study.validation.targets, fold_9), best_thresholds(targets, fold_10)
    counts = study.counts(test.rows).astype(np.float64)
    right, wrong = (macro_f1(targets, fold_10, limit) for limit in limits)
    resampled = [
        np.array([macro_f1(targets, fold_10, limit, weights) for weights in counts])
        for limit in limits
    ]
    effects = (
        Effect("one threshold for all labels", "sample-centric F", curve[best], curve.max()),
        Effect(
            "one threshold for each label",
            "macro F1",
            right,
            wrong,
            middle(resampled[1] - resampled[0]),
        ),
    )
    notes = (
        f"{study.name}. Right: thresholds chosen on fold 9; wrong: on the test fold itself. The "
        f"sample-centric F is the benchmark's F-max, which uses the best of {len(THRESHOLDS)} "
        f"thresholds on the evaluated set (here {THRESHOLDS[int(curve.argmax())]:.2f}; fold 9 "
        f"selects {THRESHOLDS[best]:.2f}). Macro F1 covers the labels with a positive.",
    )
    headlines = tuple(effect.what for effect in effects)
    title = "Thresholds chosen on the test fold"
    return Finding("thresholds", title, effects, notes, headlines=headlines)


def sample_f(targets: Targets, probabilities: Floats) -> Floats:
    """The benchmark's F at every threshold 0, 0.01, ... 1; `f_max` is the highest."""
    true = targets.sum(axis=1)
    values = np.zeros(len(THRESHOLDS))
    for place, threshold in enumerate(THRESHOLDS):
        predicted = probabilities >= threshold
        hits, count = (predicted & (targets == 1)).sum(axis=1), predicted.sum(axis=1)
        some = count > 0
        precision = (hits[some] / count[some]).mean() if some.any() else 0.0
        recall = (hits / true).mean()
        if precision + recall:
            values[place] = 2 * precision * recall / (precision + recall)
    return values


def best_thresholds(targets: Targets, probabilities: Floats) -> Floats:
    """Threshold of the highest F1 of every label; 2, which nothing reaches, without a positive."""
    best = np.full(targets.shape[1], 2.0)
    for label in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-probabilities[:, label], kind="stable")
        hits = targets[order, label].cumsum()
        scores = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
        values = probabilities[order, label]
        last_of_ties = np.append(values[1:] != values[:-1], True)
        best[label] = values[np.where(last_of_ties, scores, 0.0).argmax()]
    return best


def macro_f1(
    targets: Targets, probabilities: Floats, limits: Floats, weights: Floats | None = None
) -> float:
    """Mean F1 over the labels with a positive; `weights` count each record."""
    weights = np.ones(len(targets)) if weights is None else weights
    predicted = probabilities >= limits
    hits = weights @ (predicted & (targets == 1))
    total = weights @ predicted + weights @ targets
    present = weights @ targets > 0
    return float((2 * hits[present] / total[present]).mean())


def trapezoid(study: Study) -> Finding:
    """The area under the interpolated precision-recall curve instead of average precision."""
    scored = study.test.scored()
    right = scored.by_label()[1]
    wrong = trapezoid_auprc(scored.targets, scored.probabilities)
    effect = Effect("trapezoid", METRICS[1], float(mean(right)), float(mean(wrong)))
    rare = scored.targets.sum(axis=0) < 10
    parts = [
        f"{float(mean((wrong - right)[mask])):+.4f} over the {int(mask.sum())} labels {name}"
        for mask, name in ((rare, "with fewer than ten positives"), (~rare, "with at least ten"))
        if mask.any()
    ]
    notes = (f"{study.name} on fold 10: {', '.join(parts)}.",)
    title = "Trapezoidal AUPRC instead of average precision"
    return Finding("trapezoid", title, (effect,), notes, headlines=("trapezoid",))
