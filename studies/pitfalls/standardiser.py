"""The scalar standardiser, fitted on other records or at another rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data import Study
from einthoven.records import read_record
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import MinMax, Scale, Standardise
from einthoven.signals.store import Store
from scoring import Effect, Finding, Indices

AT_500_HZ = 500  # records, at most, that are read at both rates
_BATCH = 512
_WORST = (
    "{} on fold 10, with inputs scaled by the wrong constants after training with the right ones. "
    "This is the worst case, since the same constants in training and testing only change the "
    "values from which training starts. The last rows show the effect of a much larger error."
)


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of all samples of all leads, mV."""

    mean: float
    deviation: float


def scaler_of(store: Store, rows: Indices) -> Scaler:
    """Statistics of some rows of a store, exact: sums of whole microvolts."""
    count = total = squares = 0
    for start in range(0, len(rows), _BATCH):
        for chunk in store.read(rows[start : start + _BATCH]):
            values = chunk.signals.astype(np.int64)
            count += values.size
            total += int(values.sum())
            squares += int((values * values).sum())
    mean = total / count
    return Scaler(mean / 1000, float(np.sqrt(squares / count - mean * mean)) / 1000)


def standardiser(study: Study) -> Finding:
    """Constants of three fits, and a network's results with the wrong ones."""
    cohort, store = study.cohort, study.store
    store_rows = store.rows(cohort.ids())
    training = np.flatnonzero(study.folds <= 8)
    right, everything = scaler_of(store, store_rows[training]), scaler_of(store, store_rows)
    table = [
        _line("folds 1 to 8, 100 Hz", right, right),
        _line("all folds, 100 Hz", everything, right),
    ]
    wrong = {"fitted on all folds": everything}
    notes = []
    rates = _at_both_rates(study, training)
    if rates:
        slow, fast, count = rates
        table += [
            _line(f"{count} training records, 100 Hz", slow, slow),
            _line("the same at 500 Hz", fast, slow),
        ]
        ratio = fast.deviation / slow.deviation
        mean = right.mean + fast.mean - slow.mean
        wrong["fitted at 500 Hz"] = Scaler(mean, right.deviation * ratio)
        notes.append(
            f"At 500 Hz this copy has {count} of the training records that were tried. Their "
            "constants are compared with those of the same records at 100 Hz, and the ratio of "
            "the standard deviations is applied."
        )
    headlines = tuple(wrong)
    wrong["standard deviation twice as large"] = Scaler(right.mean, 2 * right.deviation)
    effects: list[Effect] = []
    if scales_itself(study.model.preparation):
        notes.append(
            f"{study.name} scales every record by itself, so that no constant can be wrong."
        )
        headlines = ()
    else:
        notes.insert(0, _WORST.format(study.name))
        for what, scaler in wrong.items():
            outputs = study.outputs(change=change_of(study.model.preparation, right, scaler))
            effects += study.test_effects(what, study.test.scored(), outputs.scored())
    title = "Standardiser fitted on all folds or at another sampling rate"
    return Finding("standardiser", title, effects, notes, table, headlines)


def _line(name: str, scaler: Scaler, right: Scaler) -> dict[str, str]:
    return {
        "fitted on": name,
        "mean, µV": f"{1000 * scaler.mean:+.3f}",
        "standard deviation, µV": f"{1000 * scaler.deviation:.3f}",
        "relative to right": f"{100 * (scaler.deviation / right.deviation - 1):+.2f} %",
    }


def change_of(preparation: Preparation, right: Scaler, wrong: Scaler) -> tuple[float, float]:
    """Factor and offset of prepared signals that represent another standardiser.

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


def _at_both_rates(study: Study, training: Indices) -> tuple[Scaler, Scaler, int] | None:
    """Constants of the same training records at 100 and at 500 Hz, and their number."""
    root, table = study.cohort.root, study.cohort.table
    pairs: list[list[NDArray[np.float32]]] = []
    for name in table["path"].iloc[training[:AT_500_HZ]]:
        files = root / name, root / name.replace("records100", "records500").replace("_lr", "_hr")
        if "_lr" in name and all(file.with_suffix(".hea").is_file() for file in files):
            pairs.append([read_record(file).signal.ravel() for file in files])
    if not pairs:
        return None
    slow, fast = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    scalers = [Scaler(float(values.mean()), float(values.std())) for values in (slow, fast)]
    return scalers[0], scalers[1], len(pairs)
