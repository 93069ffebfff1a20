"""The same patients on both sides: records split at random, windows cut before splitting.

The comparison is matched. Test rows are the same, training rows as many, and nearly all of the
latter the same too: only that those of test patients are in one training set and not in the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from einthoven.reproduce.pitfalls.features import WINDOWS, Neighbours, Probe, Singles
from einthoven.reproduce.pitfalls.material import Material, Targets
from einthoven.reproduce.pitfalls.scoring import Effect, Finding, Floats, Places, Resamples, Scored

MODELS = ("linear probe", "nearest neighbours")
PARTS = 10  # of the records, one of them the test rows each time
RECORD_PARTS, WINDOW_PARTS = 5, 3  # how many are tested
WINDOW_SHARE = 0.02  # of all windows in one test part: their siblings must leave enough to train on


@dataclass(frozen=True, eq=False)
class Cut:
    """Rows to test on, and two training sets of one size.

    Attributes
    ----------
    test : array of int
    leaky : array of int
        Holds every other row of the test rows' patients.
    clean : array of int
        Holds none of them.
    crossing : array of bool, shape (test rows,)
        Which test rows have a patient in `leaky`.
    """

    test: Places
    leaky: Places
    clean: Places
    crossing: NDArray[np.bool_]


def matched_cut(patients: NDArray[np.str_], test: Places, *, seed: int) -> Cut:
    """Training sets with and without the patients of some test rows, otherwise alike."""
    others = np.setdiff1d(np.arange(len(patients)), test)
    shared = np.isin(patients[others], patients[test])
    siblings, clean = others[shared], others[~shared]
    source = np.random.default_rng(np.random.SeedSequence([seed, 0x1EA4]))
    room = max(0, len(clean) - len(siblings))
    filled = source.choice(clean, room, replace=False)
    leaky = np.sort(np.concatenate([siblings[: len(clean)], filled]))
    return Cut(test, leaky, clean, np.isin(patients[test], patients[siblings]))


def record_leak(material: Material, features: Singles) -> Finding:
    """A random split of records.

    Parameters
    ----------
    features : array, shape (records, windows, features)
    """
    x, targets = features.mean(axis=1), material.cohort.matrix
    owners = np.arange(len(x))
    order = np.random.default_rng(np.random.SeedSequence([material.seed, 0x5911])).permutation(
        len(x)
    )
    tests = [np.sort(part) for part in np.array_split(order, PARTS)[:RECORD_PARTS]]
    trial = _Trial(material, x, targets, owners)
    trial.run(tests)
    people, times = np.unique(material.patients, return_counts=True)
    notes = (
        f"{int((times > 1).sum()):,} of {len(people):,} patients have more than one record. Of the "
        f"records that a random tenth tests on, {_percent(trial.crossing)} have their patient "
        "among those trained on. Test records and number of training records are the same both "
        f"times ({len(trial.crossing):,} records of {RECORD_PARTS} disjoint tenths, "
        f"{trial.trained:,} trained on); the right way leaves the test patients' other records "
        "out. Features: random convolutions, which nobody trained.",
        trial.memory("record"),
    )
    effects = (*trial.effects("all test records"), *trial.crossing_effects("those that cross"))
    title = "Records split at random instead of by `strat_fold`"
    headlines = tuple(f"{model}, all test records" for model in MODELS)
    return Finding("records", title, effects, notes, headlines=headlines)


def window_leak(material: Material, features: Singles) -> Finding:
    """Windows of a record on both sides."""
    count = len(features)
    x = features.reshape(count * WINDOWS, -1)
    owners = np.repeat(np.arange(count), WINDOWS)
    order = np.random.default_rng(np.random.SeedSequence([material.seed, 0x3144])).permutation(
        len(x)
    )
    size = max(1, round(WINDOW_SHARE * len(x)))
    tests = [np.sort(order[i * size : (i + 1) * size]) for i in range(WINDOW_PARTS)]
    trial = _Trial(material, x, material.cohort.matrix, owners)
    trial.run(tests)
    notes = (
        f"{WINDOWS} windows of 2.5 s a record, {100 * WINDOW_SHARE:g} % of all windows tested on, "
        f"{WINDOW_PARTS} times ({len(trial.crossing):,} windows; {trial.trained:,} trained on both "
        "times), each window scored as a row of its own. The right way leaves every window of the "
        "test windows' patients out of training.",
        trial.memory("window"),
    )
    title = "Windows cut before splitting"
    effects = trial.effects("all test windows")
    headlines = tuple(f"{model}, all test windows" for model in MODELS)
    return Finding("windows", title, effects, notes, headlines=headlines)


class _Trial:
    """Both models on both training sets, for some test parts."""

    def __init__(self, material: Material, x: Singles, targets: Targets, owners: Places) -> None:
        self.material, self.x, self.targets, self.owners = material, x, targets, owners
        self.patients = material.patients[owners]
        self.tested: list[Places] = []
        self._crossing: list[NDArray[np.bool_]] = []
        self._same: list[NDArray[np.bool_]] = []
        self.values: dict[tuple[str, str], list[Floats]] = {}
        self.trained = 0

    def run(self, tests: list[Places]) -> None:
        """Train and test on every part."""
        for number, test in enumerate(tests):
            cut = matched_cut(self.patients, test, seed=self.material.seed + number)
            self.tested.append(cut.test)
            self._crossing.append(cut.crossing)
            self.trained = len(cut.clean)
            for side, rows in (("leaky", cut.leaky), ("clean", cut.clean)):
                self._add(side, cut.test, rows)

    def _add(self, side: str, test: Places, rows: Places) -> None:
        trained, targets = self.x[rows], self.targets[self.owners[rows]]
        probe = Probe.fit(trained, targets)
        self.values.setdefault((MODELS[0], side), []).append(probe.probabilities(self.x[test]))
        near, nearest = Neighbours.fit(trained, targets)(self.x[test])
        self.values.setdefault((MODELS[1], side), []).append(near)
        if side == "leaky":
            self._same.append(self.patients[rows[nearest]] == self.patients[test])

    @property
    def crossing(self) -> NDArray[np.bool_]:
        """Of every test row, whether its patient was among the leaky training rows."""
        return np.concatenate(self._crossing)

    def effects(self, what: str) -> tuple[Effect, ...]:
        """Of both models, on every test row."""
        return self._effects(what, np.ones(len(self.crossing), dtype=bool))

    def crossing_effects(self, what: str) -> tuple[Effect, ...]:
        """The same on the rows whose patient was seen."""
        return self._effects(what, self.crossing) if self.crossing.any() else ()

    def memory(self, unit: str) -> str:
        """How often the nearest training row is of the same patient."""
        same, crossing = np.concatenate(self._same), self.crossing
        if not crossing.any():
            return "No patient crosses."
        return (
            f"Of the test {unit}s whose patient was trained on, {_percent(same[crossing])} have a "
            f"{unit} of that same patient as the nearest of all; by `strat_fold` none can."
        )

    def _effects(self, what: str, kept: NDArray[np.bool_]) -> tuple[Effect, ...]:
        rows = np.concatenate(self.tested)[kept]
        targets = self.targets[self.owners[rows]]
        resamples = Resamples.of(
            self.patients[rows], count=self.material.resamples, seed=self.material.seed
        )
        found: list[Effect] = []
        for model in MODELS:
            clean, leaky = (
                Scored(
                    targets, np.concatenate(self.values[model, side])[kept], np.arange(len(rows))
                )
                for side in ("clean", "leaky")
            )
            found += resamples.effects(f"{model}, {what}", clean, leaky)
        return tuple(found)


def _percent(share: NDArray[np.bool_]) -> str:
    return f"{100 * share.mean():.1f} %"


def out_of_fold(material: Material, features: Singles) -> Floats:
    """Probabilities of every record by a probe on the other nine folds, `(records, labels)`."""
    x, targets = features.mean(axis=1), material.cohort.matrix
    found = np.empty(targets.shape)
    for fold in np.unique(material.folds):
        test = material.folds == fold
        found[test] = Probe.fit(x[~test], targets[~test]).probabilities(x[test])
    return found
