"""Recordings of a synthetic cohort: patients, their statements and their folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from einthoven.cohorts.synthetic.statements import RHYTHMS, compatible, completed, statements_made


@dataclass(frozen=True)
class Recording:
    """One recording of a patient.

    `patient` seeds the heart, which was drawn for the age `heart_age`; `visit` counts the patient's
    recordings. Statements are in order: diagnoses first, rhythm last.
    """

    patient: int
    visit: int
    statements: tuple[str, ...]
    date: datetime
    age: int
    heart_age: int
    sex: int
    height: int | None
    weight: int | None
    fold: int


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
_HELD_OUT_PATIENTS = 2  # patients of every statement in validation and in test


def draw_recordings(records: int, seed: int) -> tuple[list[Recording], list[int]]:
    """Draw the patients of a cohort; about one in six has two to four recordings.

    Returns the recordings in order of date, and the `patient_id` of each patient.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    counts = _visit_counts(records, rng)
    cases = _with_overlays(_cases(len(counts), rng), rng)
    if len(cases) >= _LARGE:
        cases = _topped_up(cases)
    histories = [_history(case, count, rng) for case, count in zip(cases, counts, strict=True)]
    folds = _assign_folds(histories, rng)
    recordings = [
        recording
        for patient, history in enumerate(histories)
        for recording in _recordings(patient, history, folds[patient], rng)
    ]
    ids = rng.choice(max(22000, 3 * len(counts)), len(counts), replace=False) + 1
    recordings.sort(key=lambda recording: (recording.date, recording.patient, recording.visit))
    return recordings, ids.tolist()


def _visit_counts(records: int, rng: np.random.Generator) -> list[int]:
    counts = rng.choice(4, size=records, p=[0.82, 0.11, 0.045, 0.025]) + 1
    ends = np.cumsum(counts)
    patients = int(np.searchsorted(ends, records)) + 1
    counts[patients - 1] -= ends[patients - 1] - records
    return [int(count) for count in counts[:patients]]


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
            case = cases[i] | {codes[k]}
            cases[i] = case if compatible(case) else cases[i] | {"SR"}
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


def _recordings(
    patient: int, history: list[tuple[str, ...]], fold: int, rng: np.random.Generator
) -> list[Recording]:
    codes = set().union(*history)
    mean, spread = next((_AGES[code] for code in _AGES if code in codes), (60.0, 14.0))
    age = int(np.clip(rng.normal(mean, spread), 17, 95))
    mostly_men = bool({"ASMI", "IMI", "AMI", "HVOLT"} & codes)
    sex = int(rng.uniform() > (0.66 if mostly_men else 0.50))
    height = int(rng.normal(176 - 12 * sex, 7)) if rng.uniform() < 0.4 else None
    weight = int(rng.normal(82 - 12 * sex, 11)) if rng.uniform() < 0.6 else None
    day = datetime(1989, 1, 9, 8) + timedelta(minutes=int(rng.integers(60 * 24 * 365 * 6)))
    recordings = []
    for visit, statements in enumerate(history):
        now = age + (day.year - 1989) // 3
        recordings.append(
            Recording(patient, visit, statements, day, now, age, sex, height, weight, fold)
        )
        day += timedelta(minutes=int(rng.integers(60 * 24 * 7, 60 * 24 * 500)))
    return recordings


def _assign_folds(histories: list[list[tuple[str, ...]]], rng: np.random.Generator) -> list[int]:
    """Assign a fold, 1 to 10, to every patient.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011) over patients:
    the rarest statement first, each of its patients to the fold that misses it most. Folds 9 and
    10 receive at least two patients of every statement.
    """
    labels = [frozenset(code for codes in history for code in codes) for history in histories]
    counts = Counter(code for codes in labels for code in codes)
    missing = {code: _fold_sizes(count) for code, count in counts.items()}
    room = np.full(10, sum(map(len, histories)) / 10)
    folds = [0] * len(histories)
    order = rng.permutation(len(histories))
    for rarest in sorted(counts, key=lambda code: (counts[code], code)):
        for patient in order:
            if folds[patient] or rarest not in labels[patient]:
                continue
            fold = int(np.lexsort((-room, -missing[rarest].round(9)))[0])
            folds[patient] = fold + 1
            room[fold] -= len(histories[patient])
            for code in labels[patient]:
                missing[code][fold] -= 1
    return _repaired(folds, labels, order)


def _fold_sizes(count: int) -> npt.NDArray[np.float64]:
    """Target number of a statement's patients in each fold."""
    held_out = max(count / 10, _HELD_OUT_PATIENTS)
    training = max(0.0, count - 2 * held_out) / 8
    return np.array([training] * 8 + [held_out] * 2)


def _repaired(
    folds: list[int], labels: Sequence[frozenset[str]], order: npt.NDArray[np.int64]
) -> list[int]:
    """Move training patients to a held-out fold that still misses a statement of theirs."""
    for code in sorted(set().union(*labels)):
        carriers = [int(patient) for patient in order if code in labels[patient]]
        if len(carriers) < 3 * _HELD_OUT_PATIENTS:
            continue  # too few to share
        for fold in (9, 10):
            missing = _HELD_OUT_PATIENTS - sum(folds[patient] == fold for patient in carriers)
            train = [patient for patient in carriers if folds[patient] < 9]
            for patient in train[: max(0, missing)]:
                folds[patient] = fold
    return folds
