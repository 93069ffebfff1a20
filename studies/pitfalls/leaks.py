"""The same patients on both sides: records split at random, windows cut before splitting.

The comparison is matched. Test rows are the same, training rows as many, and nearly all of the
latter the same too: only those of test patients are in one training set and not in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data import Study
from features import WINDOWS, Singles, neighbours, probe
from scoring import (
    Effect,
    Finding,
    Floats,
    Indices,
    Scored,
    Targets,
    paired_effects,
    patient_resamples,
)

MODELS = ("linear probe", "nearest neighbours")
PARTS = 10  # of the records, one of them the test rows each time
RECORD_PARTS, WINDOW_PARTS = 5, 3  # how many are tested
WINDOW_SHARE = 0.02  # of all windows in one test part: their siblings must leave enough to train on


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to test on, and two training sets of one size.

    Attributes
    ----------
    test : array of int
    leaky : array of int
        Contains every other row of the test rows' patients.
    clean : array of int
        Contains none of them.
    crossing : array of bool, shape (test rows,)
        Test rows with a patient in `leaky`.
    """

    test: Indices
    leaky: Indices
    clean: Indices
    crossing: NDArray[np.bool_]


def matched_split(patients: NDArray[np.str_], test: Indices, *, seed: int) -> Split:
    """Training sets with and without the patients of some test rows, otherwise alike."""
    others = np.setdiff1d(np.arange(len(patients)), test)
    shared = np.isin(patients[others], patients[test])
    siblings, clean = others[shared], others[~shared]
    random = np.random.default_rng(np.random.SeedSequence([seed, 0x1EA4]))
    filled = random.choice(clean, max(0, len(clean) - len(siblings)), replace=False)
    leaky = np.sort(np.concatenate([siblings[: len(clean)], filled]))
    return Split(test, leaky, clean, np.isin(patients[test], patients[siblings]))


@dataclass(frozen=True, eq=False)
class Trial:
    """Probabilities of both models after training on both sets, for all test rows of some splits.

    Attributes
    ----------
    study : Study
    patients, targets : arrays, shape (test rows,) and (test rows, labels)
    crossing, same : arrays of bool, shape (test rows,)
        Whether the patient was in the leaky training set, and whether its nearest row is theirs.
    probabilities : dict
        By model and training set.
    trained : int
        Rows of the last training set.
    """

    study: Study
    patients: NDArray[np.str_]
    targets: Targets
    crossing: NDArray[np.bool_]
    same: NDArray[np.bool_]
    probabilities: dict[tuple[str, str], Floats]
    trained: int

    @classmethod
    def run(cls, study: Study, x: Singles, owner: Indices, tests: Sequence[Indices]) -> Trial:
        """Train and test on every part.

        Parameters
        ----------
        x : array, shape (rows, features)
        owner : array of int, shape (rows,)
            Record of each row.
        tests : sequence of arrays of int
            Test rows of each part.
        """
        patients, targets = study.patients[owner], study.cohort.matrix[owner]
        splits = [
            matched_split(patients, test, seed=study.seed + part) for part, test in enumerate(tests)
        ]
        parts: dict[tuple[str, str], list[Floats]] = {}
        same = []
        for split in splits:
            for name, rows in (("leaky", split.leaky), ("clean", split.clean)):
                fitting = x[rows], targets[rows], x[split.test]
                near, nearest = neighbours(*fitting)
                parts.setdefault((MODELS[0], name), []).append(probe(*fitting))
                parts.setdefault((MODELS[1], name), []).append(near)
                if name == "leaky":
                    same.append(patients[rows[nearest]] == patients[split.test])
        tested = np.concatenate([split.test for split in splits])
        return cls(
            study,
            patients[tested],
            targets[tested],
            np.concatenate([split.crossing for split in splits]),
            np.concatenate(same),
            {key: np.concatenate(values) for key, values in parts.items()},
            len(splits[-1].clean),
        )

    def effects(self, what: str, rows: NDArray[np.bool_] | slice = slice(None)) -> list[Effect]:
        """Effects on both models, on some test rows."""
        study, targets, effects = self.study, self.targets[rows], []
        if not len(targets):
            return []
        counts = patient_resamples(self.patients[rows], count=study.resamples, seed=study.seed)
        for model in MODELS:
            clean, leaky = (
                Scored.of_records(targets, self.probabilities[model, name][rows])
                for name in ("clean", "leaky")
            )
            effects += paired_effects(f"{model}, {what}", clean, leaky, counts)
        return effects

    def memory(self, unit: str) -> str:
        """How often the nearest training row is of the same patient, as a sentence."""
        if not self.crossing.any():
            return "No patient is on both sides."
        return (
            f"For {_percent(self.same[self.crossing])} of the test {unit}s of patients with "
            f"training {unit}s, the nearest training {unit} is of the same patient; with "
            "`strat_fold` this cannot occur."
        )


def record_leak(study: Study, features: Singles) -> Finding:
    """A random split of records.

    Parameters
    ----------
    features : array, shape (records, windows, features)
    """
    x = features.mean(axis=1)
    parts = np.array_split(study.random(0x5911).permutation(len(x)), PARTS)
    trial = Trial.run(study, x, np.arange(len(x)), [np.sort(p) for p in parts[:RECORD_PARTS]])
    people, times = np.unique(study.patients, return_counts=True)
    notes = (
        f"{int((times > 1).sum()):,} of {len(people):,} patients have more than one record. If a "
        f"random tenth of the records is the test set, {_percent(trial.crossing)} of them are of "
        "patients with training records. Both variants have the same test records and the same "
        f"number of training records ({len(trial.crossing):,} records in {RECORD_PARTS} disjoint "
        f"tenths, {trial.trained:,} training records); the right one excludes the other records "
        "of the test patients. Features: untrained random convolutions.",
        trial.memory("record"),
    )
    effects = [
        *trial.effects("all test records"),
        *trial.effects("test records of training patients", trial.crossing),
    ]
    title = "Records split at random instead of by `strat_fold`"
    headlines = tuple(f"{model}, all test records" for model in MODELS)
    return Finding("records", title, effects, notes, headlines=headlines)


def window_leak(study: Study, features: Singles) -> Finding:
    """Windows of a record on both sides."""
    x = features.reshape(len(features) * WINDOWS, -1)
    order = study.random(0x3144).permutation(len(x))
    size = max(1, round(WINDOW_SHARE * len(x)))
    tests = [np.sort(order[part * size : (part + 1) * size]) for part in range(WINDOW_PARTS)]
    trial = Trial.run(study, x, np.repeat(np.arange(len(features)), WINDOWS), tests)
    notes = (
        f"{WINDOWS} windows of 2.5 s per record; {100 * WINDOW_SHARE:g} % of all windows are the "
        f"test set, {WINDOW_PARTS} times ({len(trial.crossing):,} windows; {trial.trained:,} "
        "training windows in both variants). Each window is scored as a separate record. The "
        "right variant excludes all windows of the test patients from training.",
        trial.memory("window"),
    )
    title = "Windows cut before splitting"
    headlines = tuple(f"{model}, all test windows" for model in MODELS)
    effects = trial.effects("all test windows")
    return Finding("windows", title, effects, notes, headlines=headlines)


def out_of_fold(study: Study, features: Singles) -> Floats:
    """Probabilities of every record by a probe on the other nine folds, `(records, labels)`."""
    x, targets = features.mean(axis=1), study.cohort.matrix
    probabilities = np.empty(targets.shape)
    for fold in np.unique(study.folds):
        test = study.folds == fold
        probabilities[test] = probe(x[~test], targets[~test], x[test])
    return probabilities


def _percent(share: NDArray[np.bool_]) -> str:
    return f"{100 * share.mean():.1f} %"
