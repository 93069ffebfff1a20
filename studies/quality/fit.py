"""Fit the coefficients of `records/electrodes.json` and `beats.json` to PTB-XL's folds 1 to 8.

python studies/quality/fit.py --cohort data/ptb-xl --store data/ptb-xl.store
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from einthoven.cohorts import open_cohort
from einthoven.records import beats, electrodes
from einthoven.records.electrodes import EXCHANGES, LEADS, features, steady
from einthoven.signals.store import Store

BATCH = 256
FITTED = 3000
"""Records of folds 1 to 8 that the regressions are fitted to; the others choose the limits."""
FALSE = {"arms": 1e-3, "arm-leg": 1e-3, "V1-V2": 1e-3, "V2-V3": 1e-3, "V3-V4": 1e-3}
FALSE |= {"V1-V3": 5e-4, "V2-V4": 5e-4, "V3-V5": 5e-4, "V4-V6": 5e-4}
FALSE |= {f"V{number}/10": 5e-5 for number in range(1, 7)} | {"fast": 5e-4, "inverted": 3e-4}
"""Share of recordings in which a fault may be found wrongly; 2e-4 for all others."""
# The same electrode on the right arm, with the two others exchanged as well.
TURNED = {"arms": [[0.0, -1.0], [1.0, -1.0]], "arm-leg": [[-1.0, 1.0], [-1.0, 0.0]]}


def eight_leads(store: Store, rows: NDArray[np.intp]) -> Iterator[NDArray[np.float64]]:
    """Batches of the eight independent leads after `steady`, (records, 8, samples)."""
    places = [store.leads.index(lead) for lead in LEADS]
    for start in range(0, len(rows), BATCH):
        for chunk in store.read(rows[start : start + BATCH]):
            yield steady(chunk.signals[:, places].astype(np.float64) / 1000, chunk.rate)


def fit_exchanges(store: Store, rows: NDArray[np.intp]) -> dict[str, list[float]]:
    """Weights and constant of each exchange of electrodes, the limit subtracted."""
    fitted, rest = parts(rows)
    batches = list(eight_leads(store, fitted))
    sound = np.concatenate([features(x) for x in batches])
    others = np.concatenate([features(x) for x in eight_leads(store, rest)])
    wrong = {}
    for name, exchange in EXCHANGES.items():
        matrices = [exchange.matrix]
        if name in TURNED:
            matrices.append(np.eye(len(LEADS)))
            matrices[-1][:2, :2] = TURNED[name]
        wrong[name] = np.concatenate([features(m @ x) for m in matrices for x in batches])
    return regressions(sound, others, wrong, strength=0.3)


def fit_beats(store: Store, rows: NDArray[np.intp]) -> dict[str, list[float]]:
    """Weights and constant of each fault of the average beat, the limit subtracted."""
    fitted, rest = parts(rows)
    changes: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
        "inverted": (lambda x: -x, 1.0),
        "reversed": (lambda x: x[..., ::-1], 1.0),
        "fast": (lambda x: x, 2.0),
        "slow": (lambda x: x, 0.5),
    }
    places = [store.leads.index(lead) for lead in LEADS]

    def measured(
        rows: NDArray[np.intp],
        change: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda x: x,
        factor: float = 1.0,
    ) -> NDArray[np.float64]:
        """Features of recordings with a change, and a declared rate that is wrong by a factor."""
        results = []
        for start in range(0, len(rows), BATCH):
            for chunk in store.read(rows[start : start + BATCH]):
                rate = chunk.rate * factor
                batch = steady(change(chunk.signals[:, places].astype(np.float64) / 1000), rate)
                results += [beats.features(beats.at_100_hz(x, rate)) for x in batch]
        return np.array(results)

    wrong = {name: measured(fitted, *change) for name, change in changes.items()}
    return regressions(measured(fitted), measured(rest), wrong, strength=0.05)


def parts(rows: NDArray[np.intp]) -> Sequence[NDArray[np.intp]]:
    """Rows that regressions are fitted to, and those that choose their limits."""
    order = np.random.default_rng(0).permutation(rows)
    return np.sort(order[:FITTED]), np.sort(order[FITTED:])


def regressions(
    sound: NDArray[np.float64],
    others: NDArray[np.float64],
    wrong: Mapping[str, NDArray[np.float64]],
    *,
    strength: float,
) -> dict[str, list[float]]:
    """Weights and constant of each fault, by features of recordings with it and without."""
    mean, scale = sound.mean(axis=0), sound.std(axis=0)
    result = {}
    for name, values in wrong.items():
        x = (np.concatenate([sound, values]) - mean) / scale
        y = np.repeat([0, 1], [len(sound), len(values)])
        model = LogisticRegression(C=strength, max_iter=500, class_weight="balanced").fit(x, y)
        weights = model.coef_[0] / scale
        limit = np.quantile(others @ weights, 1 - FALSE.get(name, 2e-4))
        result[name] = [float(f"{value:.5g}") for value in (*weights, -limit)]
        print(name, flush=True)
    return result


def main() -> None:
    """Write the files that the package reads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    arguments = parser.parse_args()
    cohort = open_cohort(arguments.cohort, empty_rows="keep")
    store = Store.open(arguments.store)
    rows = store.rows(cohort.ids("train"))
    for module, fit in ((electrodes, fit_exchanges), (beats, fit_beats)):
        lines = [f"{json.dumps(name)}: {json.dumps(v)}" for name, v in fit(store, rows).items()]
        file = Path(module.__file__).with_suffix(".json")
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
