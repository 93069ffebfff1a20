"""The values of published.toml: arXiv 2509.12991 (second version) and its peers.

The paper has all-71, diagnostic-44, subclass-23 and rhythm-12; the benchmark of Strodthoff et al.
(2021), whose leaderboard most of the peers are on, has six tasks. The paper's percentages are
relative gains.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

TASKS = ("all-71", "diagnostic-44", "subclass-23", "rhythm-12")


@dataclass(frozen=True)
class Quote:
    """A published macro value, with its 95 % interval or the leaderboard's uncertainty, if any."""

    value: float
    interval: list[float] | None = None
    thousandths: int | None = None


_TABLES = TypeAdapter(dict[str, dict[str, dict[str, Quote]]]).validate_python(
    tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
)
AUROC, AUPRC, LEADERBOARD = _TABLES["auroc"], _TABLES["auprc"], _TABLES["leaderboard"]
ROWS = {name: AUROC[name] for name in list(AUROC)[:3]} | LEADERBOARD | AUROC
"""All rows of macro AUROC, the leaderboard's single networks first."""

BY_METRIC = {"auroc": AUROC, "auprc": AUPRC}
ROW_OF_VARIANT = {"fine-tuning": "Transformer-FM", "post-training": "Transformer-FM-PT"}
"""The published rows of the two variants that are compared: plain fine-tuning and post-training."""

LABELS = {"auroc": (63, 35), "auprc": (62, 35)}
"""Figure 2, of 71 labels: those that improve, and those whose interval lies above zero."""

ABLATION = {
    "without-stochastic-depth": {"auroc": -0.008, "auprc": -0.035},
    "without-probe": {"auroc": -0.039, "auprc": -0.259},
}
"""Figure 5, validation: relative change against the whole recipe."""

_FRACTIONS = {0.3: {"auroc": 0.924, "auprc": 0.370}}  # figure 4, post-training on all-71


def quoted(variant: str, task: str, fraction: float = 1.0) -> dict[str, float]:
    """Published macro values of a variant on test, by metric; empty where there are none."""
    if fraction < 1:
        is_post_training = (variant, task) == ("post-training", "all-71")
        return _FRACTIONS.get(fraction, {}) if is_post_training else {}
    row = ROW_OF_VARIANT.get(variant, "")
    tables = {metric: table.get(row, {}) for metric, table in BY_METRIC.items()}
    return {metric: table[task].value for metric, table in tables.items() if task in table}


def relative_gain(task: str, metric: str) -> float | None:
    """The published relative gain of post-training over plain fine-tuning."""
    plain, ours = (quoted(variant, task).get(metric) for variant in ROW_OF_VARIANT)
    return None if ours is None or plain is None else ours / plain - 1
