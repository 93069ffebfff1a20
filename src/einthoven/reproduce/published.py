"""What arXiv 2509.12991 (second version) reports, and the peers that its table 1 quotes.

All on PTB-XL, fold 10, by task: all-71, diagnostic-44, subclass-23, rhythm-12. The paper's
percentages are relative gains.
"""

from __future__ import annotations

from dataclasses import dataclass

TASKS = ("all-71", "diagnostic-44", "subclass-23", "rhythm-12")
Limits = tuple[float, float]


@dataclass(frozen=True)
class Value:
    """A published macro value with its 95 % interval, where there is one."""

    value: float
    interval: Limits | None = None


def _values(*values: float | tuple[float, float, float] | None) -> dict[str, Value]:
    found = {}
    for task, value in zip(TASKS, values, strict=True):
        if isinstance(value, tuple):
            found[task] = Value(value[0], value[1:])
        elif value is not None:
            found[task] = Value(value)
    return found


AUROC: dict[str, dict[str, Value]] = {
    "inception1d": _values(0.925, 0.931, 0.930, 0.953),
    "xresnet1d101": _values(0.925, 0.937, 0.929, 0.957),
    "resnet1d_wang": _values(0.919, 0.936, 0.928, 0.946),
    "ensemble of 7": _values(0.929, 0.939, 0.933, 0.965),
    "MULTIRESNET": _values(0.938, 0.939, 0.934, 0.975),
    "MSW-Transformer": _values(None, 0.924, 0.927, 0.925),
    "SPACETIME": _values(0.936, 0.941, 0.933, 0.967),
    "Chimera": _values(0.941, 0.947, 0.935, 0.975),
    "HuBERT-ECG-BASE": _values(0.903, 0.917, 0.917, 0.953),
    "Transformer-FM": _values(
        (0.898, 0.888, 0.907), (0.870, 0.856, 0.884), (0.910, 0.896, 0.922), (0.968, 0.942, 0.984)
    ),
    "Transformer-FM-PT": _values(
        (0.945, 0.938, 0.951), (0.947, 0.938, 0.954), (0.943, 0.933, 0.952), (0.975, 0.956, 0.987)
    ),
}
"""Table 1. The first nine rows are quoted there from their own papers."""

AUPRC: dict[str, dict[str, Value]] = {
    "Transformer-FM": _values(
        (0.307, 0.305, 0.337), (0.231, 0.224, 0.266), (0.441, 0.419, 0.488), (0.559, 0.520, 0.656)
    ),
    "Transformer-FM-PT": _values(
        (0.414, 0.405, 0.452), (0.411, 0.393, 0.453), (0.555, 0.531, 0.592), (0.689, 0.623, 0.774)
    ),
}
"""Table 2."""

BY_METRIC = {"auroc": AUROC, "auprc": AUPRC}
ROW_OF_ARM = {"fine-tuning": "Transformer-FM", "post-training": "Transformer-FM-PT"}
"""The published rows of the two arms that are compared: plain fine-tuning and post-training."""

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
