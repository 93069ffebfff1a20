"""Which labels count as positive, which records stay, and which version they are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from einthoven.cohorts.ptbxl import REMOVED_IN_1_0_3, TASKS
from einthoven.reproduce.pitfalls.material import Material, Targets, as_task, likelihoods, members
from einthoven.reproduce.pitfalls.scoring import (
    METRICS,
    Effect,
    Finding,
    Floats,
    Places,
    Scored,
    limits_of,
    macros_of_subsets,
    mean,
)
from einthoven.reproduce.wording import limits

RULES: Mapping[str, Callable[[Floats], NDArray[np.bool_]]] = {
    "present": lambda likelihood: ~np.isnan(likelihood),
    "> 0": lambda likelihood: likelihood > 0,
    ">= 50": lambda likelihood: likelihood >= 50,
    "== 100": lambda likelihood: likelihood == 100,
}
"""Ways to read `scp_codes`, the benchmark's first; comparisons with NaN are false."""

DRAWS = 1000
_HEAD = (
    "task",
    "positive if",
    "labels",
    "positives",
    "records",
    *METRICS,
    "AUROC minus presence's",
    "of that, by other labels",
)
_KNOWN = (
    "Measured on {share} of {records:,} records: those whose likelihoods this copy of PTB-XL has. "
    "Their probabilities are of linear probes on random convolutions, each record by a probe that "
    "did not see its fold. Labels, and records without any, are dropped by each rule as the "
    "benchmark drops them by its own; macro values are over the labels that a rule leaves."
)
_SAME_LABELS = (
    "The last column is the part of the change that comes from averaging other labels: the macro "
    "AUROC of those that the rule leaves, still by presence, minus that of all."
)


def likelihood(material: Material, out_of_fold: Floats) -> Finding:
    """Thresholds on the likelihood instead of the presence of a code.

    Parameters
    ----------
    out_of_fold : array, shape (records, labels)
        Probabilities of every record by a model that did not see its fold.
    """
    said = likelihoods(material.cohort)
    known = with_likelihoods(said)
    title = "Likelihood thresholds instead of key presence"
    if not len(known):
        note = "This copy of PTB-XL has no likelihoods (every value is 0): nothing to measure."
        return Finding("likelihood", title, notes=(note,))
    resamples = material.resamples_of(known)
    effects: list[Effect] = []
    rows: list[tuple[str, ...]] = []
    for task in TASKS:
        labels = members(material.cohort, task)
        if not labels:
            continue
        scores = as_task(out_of_fold[known], labels)
        ways = {
            rule: _kept(as_task(holds(said[known]).astype(np.uint8), labels), scores)
            for rule, holds in RULES.items()
        }
        right = ways["present"]
        for rule, scored in ways.items():
            found: tuple[Effect, ...] = ()
            if rule != "present" and scored.targets.any():
                found = resamples.effects(f"{task}, likelihood {rule}", right, scored)
            rows.append((task, rule, *_likelihood_row(scored, right, found)))
            effects += found
    share = "all" if len(known) == len(said) else f"the first {len(known):,}"
    return Finding(
        "likelihood",
        title,
        tuple(effects),
        (_KNOWN.format(share=share, records=len(said)), _SAME_LABELS),
        _HEAD,
        tuple(rows),
        headlines=("all-71, likelihood > 0", "diagnostic-44, likelihood == 100"),
        listed=False,
    )


def with_likelihoods(said: Floats) -> Places:
    """Rows up to the last one with a likelihood above 0: the part of a table that has any.

    PTB-XL writes 0 where a likelihood is not stated, and so do copies that left them out.
    """
    stated = np.flatnonzero((np.nan_to_num(said) > 0).any(axis=1))
    return np.arange(int(stated[-1]) + 1 if len(stated) else 0)


def _kept(targets: Targets, scores: Floats) -> Scored:
    rows = np.flatnonzero(targets.any(axis=1))
    return Scored(targets[rows], scores[rows], rows)


def _likelihood_row(scored: Scored, right: Scored, effects: tuple[Effect, ...]) -> tuple[str, ...]:
    positives, before = int(scored.targets.sum()), int(right.targets.sum())
    labels, had = (int(each.targets.any(axis=0).sum()) for each in (scored, right))
    lost = f" ({100 * (positives / before - 1):+.0f} %)" if positives < before else ""
    counts = (f"{labels} of {had}", f"{positives:,}{lost}", f"{len(scored.records):,}")
    areas, precisions = scored.points() if positives else (np.array([]), np.array([]))
    defined = ~np.isnan(areas)
    if not defined.any():
        return (*counts, "–", "–", "–", "–")
    found = (f"{mean(areas):.4f}", f"{mean(precisions):.4f}")
    if not effects:
        return (*counts, *found, "", "")
    # What the protocol says of the labels that this rule leaves: they may be the easier ones.
    easier = float(mean(right.columns(defined).points()[0])) - effects[0].right
    gained = f"{effects[0].difference:+.4f}{limits(effects[0].interval, sign=True)}"
    return (*counts, *found, gained, f"{round(easier, 4) + 0.0:+.4f}")


def empty_rows(material: Material) -> Finding:
    """Records without any label of a task, kept as rows of zeros."""
    test = material.test
    effects: list[Effect] = []
    resamples = material.resamples_of(test.rows)
    scores = test.joined()
    counts = []
    for task in TASKS:
        labels = members(material.cohort, task)
        if not labels or task == "all-71":
            continue
        targets, values = as_task(test.targets, labels), as_task(scores, labels)
        kept = Scored(targets, values, np.arange(len(targets)))
        dropped = _kept(targets, values)
        effects += resamples.effects(f"{task}, empty rows kept", dropped, kept)
        counts.append(f"{len(kept.records) - len(dropped.records):,} ({task})")
    notes = (
        f"{material.name} on fold 10, its outputs reduced to the task's labels, classes by their "
        f"highest member. Records without any: {', '.join(counts)} of {len(test.rows):,}.",
    )
    title = "Records without a label of the task kept"
    headlines = ("form-19, empty rows kept", "rhythm-12, empty rows kept")
    return Finding("empty-rows", title, tuple(effects), notes, headlines=headlines)


def versions(material: Material) -> Finding:
    """1.0.1's five further test records, or what five of them can do."""
    test = material.test
    scored = test.scored()
    title = "Results of 1.0.1 and 1.0.3 in one table"
    extra = np.array([int(i) in REMOVED_IN_1_0_3 for i in _numbers(material, test.rows)])
    if extra.any() and material.cohort.version == "1.0.1":
        rows = np.flatnonzero(~extra)
        right = Scored(scored.targets[rows], scored.probabilities[rows], rows)
        note = f"{int(extra.sum())} of {len(extra):,} test records are not in 1.0.3."
        what = "test fold of 1.0.1"
        found = material.resamples_of(test.rows).effects(what, right, scored)
        return Finding("versions", title, found, (note,), headlines=(what,))
    count = min(5, len(test.rows) // 10)
    draws = np.random.default_rng(np.random.SeedSequence([material.seed, 0x5EC0]))
    kept = np.ones((DRAWS, len(test.rows)), dtype=bool)
    for row in kept:
        row[draws.choice(len(row), count, replace=False)] = False
    what = f"{count} test records left out at random"
    whole, effects = scored.points(), []
    for metric, point, values in zip(METRICS, whole, macros_of_subsets(scored, kept), strict=True):
        full = float(mean(point))
        away = mean(values) - full
        effects.append(Effect(what, metric, full, full + float(away.mean()), limits_of(away)))
    notes = (
        f"This copy is {material.cohort.version}, so the records that 1.0.1 had besides are not "
        f"here. Instead {count} records of the test fold, as many as 1.0.3 removed from it, were "
        f"left out {DRAWS:,} times at random: mean change, and the middle 95 % of the changes. "
        "A label whose only positive is among them leaves the mean.",
    )
    return Finding("versions", title, tuple(effects), notes, headlines=(what,))


def _numbers(material: Material, rows: Places) -> list[str]:
    return [name if name.isdigit() else "0" for name in material.cohort.ids()[rows]]
