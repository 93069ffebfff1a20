"""Labels that a model answers with some of its leads.

A network that reads zeros for missing leads answers all the same, and an unchanged AUROC does not
mean that the calls are right. `einthoven-small` on the validation split of PTB-XL (fold 9) has a
macro AUROC of 0.945 with all leads, 0.788 with the limb leads and 0.542 with lead I. With the limb
leads CLBBB loses 0.02 of its AUROC, and all of its sensitivity: no case reaches the threshold.
"""

from __future__ import annotations

from collections.abc import Iterable

from einthoven.files import Json

LARGEST_LOSS = 0.05
"""Largest loss of AUROC, of sensitivity and of precision of a label that is answered."""
LOWEST_AUROC = 0.80
"""Lowest AUROC of a label that is answered."""


def answered_labels(accuracy: Json, leads: Iterable[str]) -> tuple[str, ...]:
    """Labels that are answered with some of a model's leads.

    The largest measured set of leads among those present stands for them. With it, a label has to
    keep its AUROC, sensitivity and precision, up to `LARGEST_LOSS`, and have an AUROC of
    `LOWEST_AUROC`. A label that was not measured, or has no precision, is not answered.

    Parameters
    ----------
    accuracy : dict
        The entry `lead_accuracy` of a model's config.json, from
        `einthoven.experiment.robustness.measure_lead_accuracy`.
    leads : iterable of str
        Leads that are recorded or computed.

    Returns
    -------
    tuple of str
        In the order of the labels; empty if no measured set is among the leads.
    """
    present = set(leads)
    sets = [entry for entry in accuracy["sets"] if present.issuperset(entry["leads"])]
    nearest: Json = max(sets, key=lambda entry: len(entry["leads"]), default={"labels": {}})
    best = accuracy["all"]["labels"]
    return tuple(x for x, values in nearest["labels"].items() if _is_answered(best[x], values))


def _is_answered(best: Json, values: Json) -> bool:
    pairs = [(best[key], values[key]) for key in best]
    if any(None in pair for pair in pairs) or values["auroc"] < LOWEST_AUROC:
        return False
    # Values have four decimals; their differences have more.
    return all(round(before - after, 4) <= LARGEST_LOSS for before, after in pairs)
