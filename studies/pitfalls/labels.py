"""Mistakes about labels: likelihood thresholds, empty rows, dataset versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from data import Study, as_task, likelihoods, members
from einthoven.cohorts.ptbxl import REMOVED_IN_1_0_3, TASKS
from scoring import (
    METRICS,
    Effect,
    Finding,
    Floats,
    Indices,
    Scored,
    Targets,
    mean,
    middle,
    paired_effects,
    signed,
    with_interval,
)

RULES: Mapping[str, Callable[[Floats], NDArray[np.bool_]]] = {
    "present": lambda likelihood: ~np.isnan(likelihood),
    "> 0": lambda likelihood: likelihood > 0,
    ">= 50": lambda likelihood: likelihood >= 50,
    "== 100": lambda likelihood: likelihood == 100,
}
"""Ways to read `scp_codes`, the benchmark's first; comparisons with NaN are false."""

DRAWS = 1000
_SUBSET = (
    "Measured on {share} of {records:,} records, for which this copy of PTB-XL has likelihoods. "
    "Their probabilities come from linear probes on random convolutions; the probe of each record "
    "was not trained on its fold. Labels without positives and records without labels are dropped "
    "for each rule, as in the benchmark; macro values cover the labels that a rule leaves."
)
_LAST_COLUMN = (
    "The last column is the part of the change that is due to averaging over different labels: "
    "the macro AUROC, with positives by presence, of the labels that the rule leaves, minus that "
    "of all labels."
)


def likelihood(study: Study, out_of_fold: Floats) -> Finding:
    """Thresholds on the likelihood instead of the presence of a code.

    Parameters
    ----------
    out_of_fold : array, shape (records, labels)
        Probabilities of every record by a model that did not see its fold.
    """
    values = likelihoods(study.cohort)
    rows = with_likelihoods(values)
    title = "Likelihood thresholds instead of key presence"
    if not len(rows):
        note = "This copy of PTB-XL has no likelihoods (every value is 0): nothing to measure."
        return Finding("likelihood", title, notes=(note,))
    counts = study.counts(rows)
    effects: list[Effect] = []
    table: list[dict[str, str]] = []
    for task in TASKS:
        labels = members(study.cohort, task)
        if not labels:
            continue
        scores = as_task(out_of_fold[rows], labels)
        by_rule = {
            rule: _with_labels(as_task(positive(values[rows]).astype(np.uint8), labels), scores)
            for rule, positive in RULES.items()
        }
        right = by_rule["present"]
        for rule, scored in by_rule.items():
            changes: list[Effect] = []
            if rule != "present" and scored.targets.any():
                changes = paired_effects(f"{task}, likelihood {rule}", right, scored, counts)
            table.append({"task": task, "positive if": rule, **_line(scored, right, changes)})
            effects += changes
    share = "all" if len(rows) == len(values) else f"the first {len(rows):,}"
    return Finding(
        "likelihood",
        title,
        effects,
        (_SUBSET.format(share=share, records=len(values)), _LAST_COLUMN),
        table,
        headlines=("all-71, likelihood > 0", "diagnostic-44, likelihood == 100"),
        listed=False,
    )


def with_likelihoods(values: Floats) -> Indices:
    """Rows up to the last one with a likelihood above 0: the part of a table that has any.

    PTB-XL writes 0 where a likelihood is not stated, and so do copies that left them out.
    """
    stated = np.flatnonzero((np.nan_to_num(values) > 0).any(axis=1))
    return np.arange(int(stated[-1]) + 1 if len(stated) else 0)


def _with_labels(targets: Targets, scores: Floats) -> Scored:
    """The records that have at least one label."""
    return Scored.of_records(targets, scores).rows(np.flatnonzero(targets.any(axis=1)))


def _line(scored: Scored, right: Scored, effects: list[Effect]) -> dict[str, str]:
    positives, before = int(scored.targets.sum()), int(right.targets.sum())
    labels, all_labels = (int(part.targets.any(axis=0).sum()) for part in (scored, right))
    lost = f" ({100 * (positives / before - 1):+.0f} %)" if positives < before else ""
    areas, precisions = scored.by_label() if positives else (np.array([]), np.array([]))
    defined = ~np.isnan(areas)
    line = {
        "labels": f"{labels} of {all_labels}",
        "positives": f"{positives:,}{lost}",
        "records": f"{len(scored.records):,}",
        METRICS[0]: f"{mean(areas):.4f}" if defined.any() else "–",
        METRICS[1]: f"{mean(precisions):.4f}" if defined.any() else "–",
    }
    change = others = "" if defined.any() else "–"
    if effects and defined.any():
        # By presence, over the labels that this rule leaves: they may be the easier ones.
        easier = Scored(right.targets[:, defined], right.probabilities[:, defined], right.records)
        change = with_interval(effects[0].difference, effects[0].interval)
        others = signed(easier.macros()[0] - effects[0].right)
    return line | {"AUROC minus that by presence": change, "due to different labels": others}


def empty_rows(study: Study) -> Finding:
    """Records without any label of a task, kept as rows of zeros."""
    test = study.test
    effects: list[Effect] = []
    scores = test.joined()
    dropped = []
    for task in TASKS:
        labels = members(study.cohort, task)
        if not labels or task == "all-71":
            continue
        targets, values = as_task(test.targets, labels), as_task(scores, labels)
        all_rows, right = Scored.of_records(targets, values), _with_labels(targets, values)
        effects += study.test_effects(f"{task}, empty rows kept", right, all_rows)
        dropped.append(f"{len(all_rows.records) - len(right.records):,} ({task})")
    notes = (
        f"{study.name} on fold 10, with its outputs reduced to the labels of the task; a class has "
        "the probability of its highest member. Records without any label: "
        f"{', '.join(dropped)} of {len(test.rows):,}.",
    )
    headlines = ("form-19, empty rows kept", "rhythm-12, empty rows kept")
    title = "Records without a label of the task kept"
    return Finding("empty-rows", title, effects, notes, headlines=headlines)


def versions(study: Study) -> Finding:
    """The five further test records of 1.0.1, or the effect of leaving out any five."""
    test = study.test
    scored = test.scored()
    title = "Results of 1.0.1 and 1.0.3 in one table"
    numbers = [name if name.isdigit() else "0" for name in study.cohort.ids()[test.rows]]
    extra = np.array([int(number) in REMOVED_IN_1_0_3 for number in numbers])
    if extra.any() and study.cohort.version == "1.0.1":
        note = f"{int(extra.sum())} of {len(extra):,} test records are not in 1.0.3."
        what = "test fold of 1.0.1"
        direct = study.test_effects(what, scored.rows(~extra), scored)
        return Finding("versions", title, direct, (note,), headlines=(what,))
    count = min(5, len(test.rows) // 10)
    random = study.random(0x5EC0)
    subsets = np.ones((DRAWS, len(test.rows)), dtype=np.uint8)
    for row in subsets:
        row[random.choice(len(row), count, replace=False)] = 0
    what = f"{count} test records left out at random"
    effects = []
    for metric, full, values in zip(
        METRICS, scored.macros(), scored.resampled(subsets), strict=True
    ):
        change = mean(values) - full
        effects.append(Effect(what, metric, full, full + float(change.mean()), middle(change)))
    notes = (
        f"This copy is {study.cohort.version}, so the additional records of 1.0.1 are not "
        f"available. Instead, {count} records of the test fold, as many as 1.0.3 removed from it, "
        f"were left out at random {DRAWS:,} times. The values are the mean change and the central "
        "95 % of the changes. A label whose only positive is left out does not enter the mean.",
    )
    return Finding("versions", title, effects, notes, headlines=(what,))
