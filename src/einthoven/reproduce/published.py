"""The values of published.toml: arXiv 2509.12991 (second version) and its peers.

The paper has all-71, diagnostic-44, subclass-23 and rhythm-12; the benchmark of Strodthoff et al.
(2021), whose leaderboard most of the peers are on, has six tasks. The paper's percentages are
relative gains.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

TASKS = ("all-71", "diagnostic-44", "subclass-23", "rhythm-12")
BENCHMARK = ("all-71", "diagnostic-44", "subclass-23", "superclass-5", "form-19", "rhythm-12")


@dataclass(frozen=True)
class Value:
    """A published macro value with its 95 % interval, where there is one.

    Attributes
    ----------
    value : float
    interval : [low, high] or None
    thousandths : int or None
        The leaderboard's uncertainty.
    """

    value: float
    interval: list[float] | None = None
    thousandths: int | None = None


Table = dict[str, dict[str, Value]]


def _read() -> dict[str, Table]:
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return {
        name: {
            row: {task: Value(**value) for task, value in values.items()}
            for row, values in table.items()
        }
        for name, table in tomllib.loads(text).items()
    }


_TABLES = _read()
AUROC, AUPRC, LEADERBOARD = _TABLES["auroc"], _TABLES["auprc"], _TABLES["leaderboard"]
ROWS = {name: AUROC[name] for name in list(AUROC)[:3]} | LEADERBOARD | AUROC
"""All rows of macro AUROC, the leaderboard's single networks first."""

BY_METRIC = {"auroc": AUROC, "auprc": AUPRC}
ROW_OF_VARIANT = {"fine-tuning": "Transformer-FM", "post-training": "Transformer-FM-PT"}
"""The published rows of the two variants that are compared: plain fine-tuning and post-training."""

LABELS = {"auroc": (63, 35), "auprc": (62, 35)}
"""Figure 2, of 71 labels: those that improve, and those whose interval lies above zero."""

FRACTIONS = {0.3: {"auroc": 0.924, "auprc": 0.370}, 1.0: {"auroc": 0.945, "auprc": 0.414}}
"""Figure 4, post-training, test: the points that the text names."""

ABLATION = {
    "without-stochastic-depth": {"auroc": -0.008, "auprc": -0.035},
    "without-probe": {"auroc": -0.039, "auprc": -0.259},
}
"""Figure 5, validation: relative change against the whole recipe."""


def relative_gain(task: str, metric: str) -> float | None:
    """The published relative gain of post-training over plain fine-tuning."""
    table = BY_METRIC[metric]
    ours, plain = table["Transformer-FM-PT"].get(task), table["Transformer-FM"].get(task)
    return None if ours is None or plain is None else ours.value / plain.value - 1
