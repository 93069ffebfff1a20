"""What arXiv 2509.12991 (second version) reports, and the peers that its table 1 stands beside.

All on PTB-XL, fold 10, by task. The paper has all-71, diagnostic-44, subclass-23 and rhythm-12; the
benchmark of Strodthoff et al. (2021), whose leaderboard most of the peers are on, has six tasks.
The paper's percentages are relative gains.
"""

from __future__ import annotations

from dataclasses import dataclass

TASKS = ("all-71", "diagnostic-44", "subclass-23", "rhythm-12")
BENCHMARK = ("all-71", "diagnostic-44", "subclass-23", "superclass-5", "form-19", "rhythm-12")
Limits = tuple[float, float]


@dataclass(frozen=True)
class Value:
    """A published macro value with its 95 % interval, where there is one.

    Attributes
    ----------
    value : float
    interval : (low, high) or None
    thousandths : int or None
        The leaderboard's uncertainty: the farther end of the 90 % interval of 100 record
        resamples, seen from the value, in thousandths.
    """

    value: float
    interval: Limits | None = None
    thousandths: int | None = None


def _values(*values: float | tuple[float, float, float] | None) -> dict[str, Value]:
    found = {}
    for task, value in zip(TASKS, values, strict=True):
        if isinstance(value, tuple):
            found[task] = Value(value[0], value[1:])
        elif value is not None:
            found[task] = Value(value)
    return found


def _leaderboard(*values: tuple[float, int]) -> dict[str, Value]:
    pairs = zip(BENCHMARK, values, strict=True)
    return {task: Value(value, thousandths=spread) for task, (value, spread) in pairs}


AUROC: dict[str, dict[str, Value]] = {
    "inception1d": _leaderboard(
        (0.925, 8), (0.931, 9), (0.930, 10), (0.921, 6), (0.899, 22), (0.953, 13)
    ),
    "xresnet1d101": _leaderboard(
        (0.925, 7), (0.937, 8), (0.929, 14), (0.928, 5), (0.896, 12), (0.957, 19)
    ),
    "resnet1d_wang": _leaderboard(
        (0.919, 8), (0.936, 8), (0.928, 10), (0.930, 5), (0.880, 15), (0.946, 10)
    ),
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
"""Table 1, whose first nine rows are quoted there from their own papers; with the leaderboard's
uncertainties and its other two tasks, where the row is one of the leaderboard's."""

FURTHER: dict[str, dict[str, Value]] = {
    "fcn_wang": _leaderboard(
        (0.918, 8), (0.926, 10), (0.927, 11), (0.925, 6), (0.869, 12), (0.931, 8)
    ),
    "lstm": _leaderboard((0.907, 8), (0.927, 8), (0.928, 10), (0.927, 5), (0.851, 15), (0.953, 9)),
    "lstm_bidir": _leaderboard(
        (0.914, 8), (0.932, 7), (0.923, 12), (0.921, 6), (0.876, 15), (0.949, 11)
    ),
    "Wavelet+NN": _leaderboard(
        (0.849, 13), (0.855, 15), (0.859, 16), (0.874, 7), (0.757, 29), (0.890, 24)
    ),
}
"""Of the leaderboard alone: table 1 has them in its ensemble only."""

ROWS = (
    {name: AUROC[name] for name in ("inception1d", "xresnet1d101", "resnet1d_wang")}
    | FURTHER
    | AUROC
)
"""All of them, the leaderboard's single networks first."""

AUPRC: dict[str, dict[str, Value]] = {
    "Transformer-FM": _values(
        (0.307, 0.305, 0.337), (0.231, 0.224, 0.266), (0.441, 0.419, 0.488), (0.559, 0.520, 0.656)
    ),
    "Transformer-FM-PT": _values(
        (0.414, 0.405, 0.452), (0.411, 0.393, 0.453), (0.555, 0.531, 0.592), (0.689, 0.623, 0.774)
    ),
}
"""Table 2. No value of the peers is published."""

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
