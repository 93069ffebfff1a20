"""How windows are joined, where thresholds are chosen, which AUPRC is meant."""

from __future__ import annotations

import numpy as np

from einthoven.metrics import trapezoid_auprc
from einthoven.metrics.label_metrics import THRESHOLDS
from einthoven.reproduce.pitfalls.material import Answers, Material, Targets, answers
from einthoven.reproduce.pitfalls.scoring import (
    METRICS,
    Effect,
    Finding,
    Floats,
    Resamples,
    Scored,
    limits_of,
    mean,
)

NAMES = {"probability": "mean probability", "logit": "mean logit", "max": "highest probability"}
BENCHMARK_WINDOWS = 7


def joined_windows(material: Material) -> Finding:
    """The same windows, joined in other ways."""
    test = material.test
    resamples = material.resamples_of(test.rows)
    right = test.scored()
    effects = [
        effect
        for how in NAMES
        if how != test.aggregate
        for effect in resamples.effects(NAMES[how], right, test.scored(how))
    ]
    effects += resamples.effects("every window a row of its own", right, windows_as_rows(test))
    seven = answers(
        material.model, material.cohort, material.store, "test",
        windows=BENCHMARK_WINDOWS, device=material.device,
    )  # fmt: skip
    for how in (test.aggregate, "max"):
        named = f"{BENCHMARK_WINDOWS} overlapping windows, {_named(how)}"
        effects += resamples.effects(named, right, seven.scored(how))
    each = len(test.logits) / len(test.rows)
    notes = (
        f"{material.name} on fold 10. Right is its own way: the {_named(test.aggregate)} of "
        f"{each:g} windows. A network that was chosen with another way of joining would differ "
        "by other amounts: take one, before the test fold, and name it.",
    )
    title, rows = "Joining windows in another way", "every window a row of its own"
    return Finding("windows-joined", title, tuple(effects), notes, headlines=(NAMES["max"], rows))


def _named(how: str | tuple[str, ...]) -> str:
    return NAMES[how] if isinstance(how, str) else "way of each label"


def windows_as_rows(answered: Answers) -> Scored:
    """Every window beside its record's targets, as if it were a record."""
    owner = answered.owner.numpy()
    probabilities = answered.logits.double().sigmoid().numpy()
    return Scored(answered.targets[owner], probabilities, owner)


def thresholds(material: Material) -> Finding:
    """One threshold for all labels, and one for each, chosen on fold 9 or on fold 10."""
    validation, test = material.validation, material.test
    ours, theirs = validation.joined(), test.joined()
    curve = sample_f(test.targets, theirs)
    chosen = int(sample_f(validation.targets, ours).argmax())
    own, others = (
        best_thresholds(test.targets, theirs), best_thresholds(validation.targets, ours)
    )  # fmt: skip
    resamples = material.resamples_of(test.rows)
    effects = (
        Effect("one threshold for all labels", "F over records", curve[chosen], curve.max()),
        Effect(
            "one threshold a label", "macro F1",
            macro_f1(test.targets, theirs, others), macro_f1(test.targets, theirs, own),
            _f1_limits(resamples, test.targets, theirs, (others, own)),
        ),
    )  # fmt: skip
    notes = (
        f"{material.name}; right: chosen on fold 9, wrong: on the test fold itself. F over "
        f"records is the benchmark's F-max, which takes the best of {len(THRESHOLDS)} thresholds "
        f"on the set it is reported on (here {THRESHOLDS[int(curve.argmax())]:.2f}; fold 9 would "
        f"take {THRESHOLDS[chosen]:.2f}). Macro F1 is over the labels with a positive.",
    )
    title = "Thresholds chosen on the test fold"
    return Finding(
        "thresholds", title, effects, notes, headlines=tuple(effect.what for effect in effects)
    )


def sample_f(targets: Targets, probabilities: Floats) -> Floats:
    """The benchmark's F of every threshold 0, 0.01, ... 1: `f_max` is the highest."""
    true = targets.sum(axis=1)
    found = np.empty(len(THRESHOLDS))
    for place, threshold in enumerate(THRESHOLDS):
        called = probabilities >= threshold
        hits, count = (called & (targets == 1)).sum(axis=1), called.sum(axis=1)
        some = count > 0
        precision = (hits[some] / count[some]).mean() if some.any() else 0.0
        recall = (hits / true).mean()
        total = precision + recall
        found[place] = 2 * precision * recall / total if total else 0.0
    return found


def best_thresholds(targets: Targets, probabilities: Floats) -> Floats:
    """For every label the threshold of the highest F1; 2, which nothing reaches, without one."""
    found = np.full(targets.shape[1], 2.0)
    for label in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-probabilities[:, label], kind="stable")
        hits = targets[order, label].cumsum()
        scores = 2 * hits / (np.arange(1, len(order) + 1) + hits[-1])
        values = probabilities[order, label]
        last_of_ties = np.append(values[1:] != values[:-1], True)
        found[label] = values[np.where(last_of_ties, scores, 0.0).argmax()]
    return found


def macro_f1(
    targets: Targets, probabilities: Floats, limits: Floats, weights: Floats | None = None
) -> float:
    """Mean F1 over the labels that have a positive, records weighted by how often they count."""
    each = np.ones(len(targets)) if weights is None else weights
    called = probabilities >= limits
    hits = each @ (called & (targets == 1))
    total = each @ called + each @ targets
    there = each @ targets > 0
    return float((2 * hits[there] / total[there]).mean())


def _f1_limits(
    resamples: Resamples, targets: Targets, scores: Floats, pair: tuple[Floats, Floats]
) -> tuple[float, float] | None:
    counts = resamples.counts.astype(np.float64)
    right, wrong = (
        np.array([macro_f1(targets, scores, limits, row) for row in counts]) for limits in pair
    )
    return limits_of(wrong - right)


def trapezoid(material: Material) -> Finding:
    """The area under the interpolated precision-recall curve instead of average precision."""
    scored = material.test.scored()
    right = scored.points()[1]
    wrong = trapezoid_auprc(scored.targets, scored.probabilities)
    effects = (Effect("trapezoid", METRICS[1], float(mean(right)), float(mean(wrong))),)
    rare = scored.targets.sum(axis=0) < 10
    parts = [
        f"{float(mean((wrong - right)[kept])):+.4f} over the {int(kept.sum())} labels {named}"
        for kept, named in ((rare, "with fewer than ten positives"), (~rare, "with more"))
        if kept.any()
    ]
    notes = (f"{material.name} on fold 10: {', '.join(parts)}.",)
    title = "Trapezoidal AUPRC instead of average precision"
    return Finding("trapezoid", title, effects, notes, headlines=("trapezoid",))
