"""The scalar standardiser, fitted on other records or at another rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from einthoven.records import read_record
from einthoven.reproduce.pitfalls.material import Material, answers
from einthoven.reproduce.pitfalls.scoring import Effect, Finding, Places
from einthoven.signals.prepare import MinMax, Preparation, Scale, Standardise
from einthoven.signals.store import Store

AT_500_HZ = 500  # records, at most, that are read at both rates
_BATCH = 512
_WORST = (
    "{} on fold 10, its input rescaled as by the wrong constants after training with the right "
    "ones: the worst case, since the same constants in training and testing change nothing but the "
    "numbers that training starts from. The last lines show what a mistake of that size would do."
)


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of all samples of all leads, mV."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"mean {1000 * self.mean:+.2f} µV, deviation {1000 * self.deviation:.2f} µV"


def scaler_of(store: Store, rows: Places) -> Scaler:
    """Of some rows of a store, exactly: sums of whole microvolts."""
    count = total = squares = 0
    for start in range(0, len(rows), _BATCH):
        for chunk in store.read(rows[start : start + _BATCH]):
            values = chunk.signals.astype(np.int64)
            count += values.size
            total += int(values.sum())
            squares += int((values * values).sum())
    mean = total / count
    return Scaler(mean / 1000, float(np.sqrt(squares / count - mean * mean)) / 1000)


def standardiser(material: Material) -> Finding:
    """Constants of three fits, and what a network makes of the wrong ones."""
    cohort, store = material.cohort, material.store
    at = store.rows(cohort.ids())
    training = np.flatnonzero(material.folds <= 8)
    right, everything = scaler_of(store, at[training]), scaler_of(store, at)
    lines = [("folds 1 to 8, 100 Hz", right, right), ("all folds, 100 Hz", everything, right)]
    rates = _at_both_rates(material, training)
    notes = []
    if rates:
        slow, fast, count = rates
        lines += [(f"{count} training records, 100 Hz", slow, slow)]
        lines += [("the same at 500 Hz", fast, slow)]
        notes.append(
            f"At 500 Hz this copy has {count} of the training records that were looked for, which "
            "are compared with themselves at 100 Hz; the ratio of deviations is then applied."
        )
    wrong = {"fitted on all folds": everything}
    if rates:
        ratio = rates[1].deviation / rates[0].deviation
        mean = right.mean + rates[1].mean - rates[0].mean
        wrong["fitted at 500 Hz"] = Scaler(mean, right.deviation * ratio)
    wrong["deviation twice as large"] = Scaler(right.mean, 2 * right.deviation)
    effects: list[Effect] = []
    if scales_itself(material.model.preparation):
        notes.append(f"{material.name} scales every record by itself: no constant can be wrong.")
    else:
        for what, scaler in wrong.items():
            effects += _effects(material, what, right, scaler)
        notes.insert(0, _WORST.format(material.name))
    rows = tuple(
        (name, f"{1000 * each.mean:+.3f}", f"{1000 * each.deviation:.3f}",
         f"{100 * (each.deviation / other.deviation - 1):+.2f} %")
        for name, each, other in lines
    )  # fmt: skip
    head = ("fitted on", "mean, µV", "deviation, µV", "deviation against right")
    title = "Standardiser fitted on all folds, or at another rate"
    headlines = tuple(wrong)[:-1] if effects else ()
    return Finding(
        "standardiser", title, tuple(effects), tuple(notes), head, rows, headlines=headlines
    )


def _effects(material: Material, what: str, right: Scaler, wrong: Scaler) -> tuple[Effect, ...]:
    """Inputs that were made with `wrong`, for a network that was trained with `right`."""
    changed = answers(
        material.model, material.cohort, material.store, "test",
        change=_change(material.model.preparation, right, wrong), device=material.device,
    )  # fmt: skip
    resamples = material.resamples_of(changed.rows)
    return resamples.effects(what, material.test.scored(), changed.scored())


def _change(preparation: Preparation, right: Scaler, wrong: Scaler) -> tuple[float, float]:
    """Factor and offset of prepared signals that stand for another standardiser.

    In mV the mistake maps x to factor x + offset; `Scale` comes after it.
    """
    factor = right.deviation / wrong.deviation
    offset = right.mean - factor * wrong.mean
    scales = [step for step in preparation.steps if isinstance(step, Scale)] or [Scale(0.0, 1.0)]
    mean, unit = scales[-1].mean, scales[-1].std
    return factor, ((factor - 1) * mean + offset) / unit


def scales_itself(preparation: Preparation) -> bool:
    """Whether every record is scaled by its own values, so that no constant can be wrong."""
    return any(isinstance(step, Standardise | MinMax) for step in preparation.steps)


def _at_both_rates(material: Material, training: Places) -> tuple[Scaler, Scaler, int] | None:
    """Constants of the same training records at 100 and at 500 Hz, where both are there."""
    root, table = material.cohort.root, material.cohort.table
    pairs: list[tuple[NDArray[np.float32], ...]] = []
    for name in table["path"].iloc[training[:AT_500_HZ]]:
        both = root / name, root / name.replace("records100", "records500").replace("_lr", "_hr")
        if "_lr" in name and all(file.with_suffix(".hea").is_file() for file in both):
            pairs.append(tuple(read_record(file).signal for file in both))
    if not pairs:
        return None
    slow, fast = (_scaler(side) for side in zip(*pairs, strict=True))
    return slow, fast, len(pairs)


def _scaler(signals: Sequence[NDArray[np.float32]]) -> Scaler:
    values = np.concatenate([signal.ravel() for signal in signals]).astype(np.float64)
    return Scaler(float(values.mean()), float(values.std()))
