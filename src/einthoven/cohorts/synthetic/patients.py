"""Patients of a synthetic cohort: their statements, their recordings and their folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from einthoven.cohorts.synthetic.statements import RHYTHMS, compatible, completed, statements_made


@dataclass(frozen=True)
class Visit:
    """One recording: its number, statements (diagnoses first, rhythm last), age and date."""

    ecg_id: int
    statements: tuple[str, ...]
    age: int
    date: datetime


@dataclass(frozen=True)
class Patient:
    """A patient with everything that does not change between recordings.

    `index` seeds the heart; `age` is the age that the heart was drawn for.
    """

    index: int
    patient_id: int
    age: int
    sex: int
    height: int | None
    weight: int | None
    fold: int
    visits: tuple[Visit, ...]


# Statements other than rhythm, in percent of patients, and the rhythms that they occur with. The
# order of magnitude is that of PTB-XL, flattened so that rare statements can be learned.
_CASES: tuple[tuple[str, float, str], ...] = (
    ("NORM", 22.0, "normal"),
    ("", 6.0, "arrhythmia"),
    ("PACE", 3.2, "paced"),
    ("1AVB", 2.6, "steady"),
    ("1AVB LAFB", 0.8, "steady"),
    ("1AVB CRBBB", 0.7, "steady"),
    ("CLBBB", 3.6, "any"),
    ("CRBBB", 2.8, "any"),
    ("CRBBB LAFB", 1.2, "any"),
    ("IRBBB", 3.6, "sinus"),
    ("LAFB", 2.2, "any"),
    ("LAFB LVH", 0.9, "any"),
    ("WPW", 3.2, "sinus"),
    ("LVH", 2.6, "any"),
    ("LVH LAO/LAE", 1.5, "sinus"),
    ("LAO/LAE", 2.2, "sinus"),
    ("LVOLT", 2.6, "any"),
    ("LVOLT NDT", 0.6, "any"),
    ("HVOLT", 3.2, "sinus"),
    ("ASMI", 3.0, "any"),
    ("ASMI LAFB", 0.8, "any"),
    ("ASMI IMI", 0.6, "any"),
    ("IMI", 3.0, "any"),
    ("IMI LAO/LAE", 0.6, "sinus"),
    ("IMI 1AVB", 0.6, "steady"),
    ("AMI", 3.2, "any"),
    ("ISC_", 3.2, "any"),
    ("ISCAL", 3.2, "any"),
    ("INVT", 3.2, "any"),
    ("NDT", 3.0, "any"),
    ("STD_", 3.2, "any"),
    ("LNGQT", 3.2, "steady"),
    ("QWAVE", 1.6, "sinus"),
    ("ABQRS", 3.2, "sinus"),
    ("PVC", 1.8, "sinus"),
    ("PAC", 2.0, "sinus"),
    ("BIGU PVC", 1.8, "steady"),
    ("BIGU PAC", 1.2, "steady"),
)

_MIXES: dict[str, dict[str, float]] = {
    "normal": {"SR": 0.66, "SBRAD": 0.15, "SARRH": 0.19},
    "any": {"SR": 0.62, "AFIB": 0.14, "AFLT": 0.06, "SBRAD": 0.05, "STACH": 0.10, "SARRH": 0.03},
    "sinus": {"SR": 0.73, "SBRAD": 0.07, "STACH": 0.13, "SARRH": 0.07},
    "steady": {"SR": 0.88, "SBRAD": 0.12},
    "arrhythmia": {"AFIB": 0.42, "AFLT": 0.36, "STACH": 0.22},
    "paced": {"PACE": 1.0},
}

# Ectopy in addition to other statements, in percent of the patients that may have it.
_OVERLAYS = (("PVC", 8.0), ("PAC", 6.0))

# Statements that may be absent from the next recording.
_TRANSIENT = frozenset(["ISC_", "ISCAL", "STD_", "NDT", "INVT", "LNGQT", "PVC", "PAC"])

# Mean and standard deviation of age, years; the first statement that applies decides.
_AGES: dict[str, tuple[float, float]] = {
    "AFIB": (72, 10), "PACE": (74, 10), "WPW": (36, 14), "HVOLT": (27, 8), "SARRH": (32, 13),
    "ASMI": (65, 11), "IMI": (64, 11), "AMI": (65, 11), "CLBBB": (70, 10), "CRBBB": (68, 13),
    "AFLT": (69, 10), "LVH": (66, 12), "LAFB": (67, 12), "1AVB": (66, 14), "NORM": (48, 16),
}  # fmt: skip

_FEWEST = 8  # patients of every statement in a large cohort
_LARGE = 230  # patients of a large cohort


def plan(records: int, seed: int) -> tuple[Patient, ...]:
    """Draw the patients of a cohort.

    Parameters
    ----------
    records : int
        Recordings in all; about one patient in six has two to four of them.
    seed : int
        The cohort's seed.

    Returns
    -------
    tuple of Patient
        With `ecg_id`s 1..records in order of date and folds 1..10.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    counts = _visit_counts(records, rng)
    first = _with_overlays(_cases(len(counts), rng), rng)
    if len(first) >= _LARGE:
        first = _topped_up(first)
    histories = [_history(case, count, rng) for case, count in zip(first, counts, strict=True)]
    folds = assign_folds(histories, rng)
    drawn = [
        _patient(index, history, fold, rng)
        for index, (history, fold) in enumerate(zip(histories, folds, strict=True))
    ]
    ids = rng.choice(max(22000, 3 * len(drawn)), len(drawn), replace=False) + 1
    return _numbered([replace(p, patient_id=int(n)) for p, n in zip(drawn, ids, strict=True)])


def _visit_counts(records: int, rng: np.random.Generator) -> list[int]:
    drawn = rng.choice(4, size=records, p=[0.82, 0.11, 0.045, 0.025]) + 1
    ends = np.cumsum(drawn)
    patients = int(np.searchsorted(ends, records)) + 1
    drawn[patients - 1] -= ends[patients - 1] - records
    return [int(count) for count in drawn[:patients]]


def _apportioned(weights: Sequence[float], total: int, rng: np.random.Generator) -> list[int]:
    """Indices of `weights`, each as often as its share (largest remainders), shuffled."""
    share = np.asarray(weights) / np.sum(weights) * total
    counts = np.floor(share).astype(int)
    counts[np.argsort(counts - share, kind="stable")[: total - counts.sum()]] += 1
    return [int(index) for index in rng.permutation(np.repeat(np.arange(len(counts)), counts))]


def _cases(patients: int, rng: np.random.Generator) -> list[frozenset[str]]:
    """Statements with a rhythm, one set a patient; rhythms are apportioned within their mix."""
    rows = [_CASES[i] for i in _apportioned([weight for _, weight, _ in _CASES], patients, rng)]
    cases = [frozenset(codes.split()) for codes, _, _ in rows]
    for name, mix in _MIXES.items():
        members = [i for i, (_, _, rhythms) in enumerate(rows) if rhythms == name]
        codes = list(mix)
        for i, k in zip(members, _apportioned(list(mix.values()), len(members), rng), strict=True):
            wanted = cases[i] | {codes[k]}
            cases[i] = wanted if compatible(wanted) else cases[i] | {"SR"}
    return cases


def _with_overlays(cases: list[frozenset[str]], rng: np.random.Generator) -> list[frozenset[str]]:
    out = list(cases)
    for code, percent in _OVERLAYS:
        able = [i for i, case in enumerate(out) if "NORM" not in case and compatible(case | {code})]
        for i in rng.permutation(able)[: round(len(able) * percent / 100)]:
            out[i] = out[i] | {code}
    return out


def _topped_up(cases: list[frozenset[str]]) -> list[frozenset[str]]:
    """Turn normal patients into the rarest ones until every statement has a few patients."""
    out = list(cases)
    for code in statements_made():
        have = sum(code in completed(case) for case in out)
        spare = [i for i, case in enumerate(out) if case == {"NORM", "SR"}]
        for i in spare[: max(0, _FEWEST - have)]:
            out[i] = frozenset(completed({code}))
    return out


def _history(case: frozenset[str], count: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Statements of a patient's recordings: chronic ones stay, others vary."""
    history = [completed(case)]
    while len(history) < count:
        lasting = {c for c in case if c not in RHYTHMS and c != "NORM"}
        gone = {c for c in sorted(lasting & _TRANSIENT) if rng.uniform() > 0.7}
        # A bigeminy stays one.
        left = lasting - gone if "BIGU" not in case else lasting
        visit = left | {_next_rhythm(case, rng)}
        if not left and compatible(visit | {"NORM"}):
            visit |= {"NORM"}
        history.append(completed(visit) if compatible(visit) else completed(case))
    return history


def _next_rhythm(case: frozenset[str], rng: np.random.Generator) -> str:
    now = next(code for code in RHYTHMS if code in case)
    if now == "PACE" or rng.uniform() < 0.65:
        return now
    mix = _MIXES["normal" if "NORM" in case else "sinus"]
    return str(rng.choice(list(mix), p=list(mix.values())))


def _patient(
    index: int, history: list[tuple[str, ...]], fold: int, rng: np.random.Generator
) -> Patient:
    had = Counter(code for codes in history for code in codes)
    mean, spread = next((_AGES[code] for code in _AGES if code in had), (60.0, 14.0))
    age = int(np.clip(rng.normal(mean, spread), 17, 95))
    scarred = bool({"ASMI", "IMI", "AMI", "HVOLT"} & set(had))
    sex = int(rng.uniform() > (0.66 if scarred else 0.50))
    height = int(rng.normal(176 - 12 * sex, 7)) if rng.uniform() < 0.4 else None
    weight = int(rng.normal(82 - 12 * sex, 11)) if rng.uniform() < 0.6 else None
    day = datetime(1989, 1, 9, 8) + timedelta(minutes=int(rng.integers(60 * 24 * 365 * 6)))
    visits = []
    for codes in history:
        visits.append(Visit(0, codes, age + (day.year - 1989) // 3, day))
        day += timedelta(minutes=int(rng.integers(60 * 24 * 7, 60 * 24 * 500)))
    return Patient(index, 0, age, sex, height, weight, fold, tuple(visits))


def _numbered(patients: list[Patient]) -> tuple[Patient, ...]:
    """Number all recordings by date, as PTB-XL does."""
    order = sorted((visit.date, p.index, k) for p in patients for k, visit in enumerate(p.visits))
    number = {(index, k): n for n, (_, index, k) in enumerate(order, start=1)}
    return tuple(
        replace(
            p,
            visits=tuple(
                replace(visit, ecg_id=number[p.index, k]) for k, visit in enumerate(p.visits)
            ),
        )
        for p in patients
    )


FOLDS = tuple(range(1, 11))
_HELD_OUT = (9, 10)
_HELD_OUT_PATIENTS = 2  # patients of every statement in validation and in test
_SHARED = 3 * _HELD_OUT_PATIENTS  # statements of fewer patients are not distributed


def assign_folds(
    histories: Sequence[Sequence[tuple[str, ...]]], rng: np.random.Generator
) -> list[int]:
    """Assign a fold to every patient.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011) over patients:
    the rarest statement first, each of its patients to the fold that misses it most. Folds 9 and
    10 receive at least two patients of every statement.

    Parameters
    ----------
    histories : sequence of sequences of tuple of str
        Statements of each recording of each patient.
    rng : numpy.random.Generator
        The order in which patients of one statement are taken.

    Returns
    -------
    list of int
        1..10, one a patient.
    """
    labels = [frozenset(code for codes in history for code in codes) for history in histories]
    counts = Counter(code for codes in labels for code in codes)
    wanted = {code: _wanted(count) for code, count in counts.items()}
    room = np.full(len(FOLDS), sum(map(len, histories)) / len(FOLDS))
    folds = [0] * len(histories)
    order = rng.permutation(len(histories))
    for rarest in sorted(counts, key=lambda code: (counts[code], code)):
        for patient in order:
            if folds[patient] or rarest not in labels[patient]:
                continue
            choice = int(np.lexsort((-room, -wanted[rarest].round(9)))[0])
            folds[patient] = FOLDS[choice]
            room[choice] -= len(histories[patient])
            for code in labels[patient]:
                wanted[code][choice] -= 1
    return _repaired(folds, labels, order)


def _repaired(
    folds: list[int], labels: Sequence[frozenset[str]], order: npt.NDArray[np.int64]
) -> list[int]:
    """Move training patients to a held-out fold that still misses a statement of theirs."""
    for code in sorted(set().union(*labels)):
        having = [int(patient) for patient in order if code in labels[patient]]
        if len(having) < _SHARED:
            continue  # too few to share
        for fold in _HELD_OUT:
            missing = _HELD_OUT_PATIENTS - sum(folds[patient] == fold for patient in having)
            train = [patient for patient in having if folds[patient] not in _HELD_OUT]
            for patient in train[: max(0, missing)]:
                folds[patient] = fold
    return folds


def _wanted(count: int) -> npt.NDArray[np.float64]:
    """Target number of a statement's patients in each fold."""
    wanted = np.full(len(FOLDS), count / len(FOLDS))
    held = [FOLDS.index(fold) for fold in _HELD_OUT]
    wanted[held] = np.maximum(wanted[held], _HELD_OUT_PATIENTS)
    train = np.setdiff1d(np.arange(len(FOLDS)), held)
    wanted[train] = max(0.0, count - wanted[held].sum()) / len(train)
    return wanted
