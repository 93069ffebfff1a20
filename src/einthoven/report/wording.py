"""What page and card call the parts of a bundle's evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

MEASURES = (
    ("macro", "log_loss", "log loss"),
    ("macro", "brier", "Brier score"),
    ("macro", "ece_mass", "ECE, mean over labels, bins of equal mass"),
    ("macro", "ece_width", "ECE, mean over labels, bins of equal width"),
    ("micro", "ece_mass", "ECE, all pairs together, bins of equal mass"),
    ("micro", "ece_width", "ECE, all pairs together, bins of equal width"),
)
"""Macro or micro, the measure's key, and its name."""

THRESHOLDS = (
    "A label is called present where its calibrated probability reaches its threshold: the one "
    "with the highest F1 in validation, or, for a label with fewer than five positives there, the "
    "one that calls as many records as it has positives."
)

ATTRIBUTES = {"sex": "sex", "age": "age in years"}
_POLICIES = {
    "own": "the network's own policy",
    "derived": "limb leads that follow are computed, the network's own policy for the rest",
    "zeroed": "zeros for the others",  # of evidence by earlier versions
}


def drawn_text(found: Json) -> str:
    """`1,000 resamples by record, seed 0`."""
    if not found["resamples"]:
        return "no resamples"
    unit = found.get("unit") or found.get("by")
    return f"{found['resamples']:,} resamples by {unit}, seed {found['seed']}"


def condition_text(condition: Json) -> str:
    """`8 leads (I, II, V1, ...; the network's own policy)`, or `muscle, 6 dB`."""
    if "leads" not in condition:
        return str(condition.get("name", "all leads, no noise added"))
    policy = _POLICIES.get(condition["policy"], condition["policy"])
    return f"{condition['name']} ({', '.join(condition['leads'])}; {policy})"
