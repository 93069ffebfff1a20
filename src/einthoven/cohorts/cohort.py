"""Cohort: records, patients, labels and patient-disjoint splits.

A Cohort holds no signals.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from einthoven.errors import CohortError
from einthoven.licences import OWN_DATA, Licence
from einthoven.tasks import Task, compact, positives
from einthoven.tasks.task import Matrix

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
ALL = "all"
"""Name of all records together, where a split is expected."""
REQUIRED_COLUMNS = ("path", "patient", "split")
UNLABELLED = "unlabelled"
FEWEST_FOLDS = 3
SMALL = 2000
"""Records below which cross-validation is recommended."""
_FEWEST_VALUES = 20  # to tell which are far from the others
_FAR, _FAR_IN_LOGARITHM = 6, 4  # robust standard deviations
_GAP = 8.0  # ratio of the numbers in one unit to those in another
_SHOWN = 3  # values in a message
ABOVE_89 = 300
"""PTB-XL's code for an age of more than 89 years."""
WITHOUT_LABEL = "without a label of the task"
UNKNOWN_TARGET = "without a known target"
OTHER_CLASS = "of another class"
"""Reasons in `Cohort.left_out`."""


class CohortWarning(UserWarning):
    """Data of a cohort that are not understood, or probably wrong."""


@dataclass(frozen=True, eq=False, repr=False)
class Cohort:
    """Labelled records in patient-disjoint splits.

    Attributes
    ----------
    name : str
        `ptb-xl`, or the name of the table or folder.
    version : str
        Version of the data, detected by content; empty for anything but PTB-XL.
    task : str
        The labelling task (`all-71`, ...).
    labels : tuple of str
        Ordered names of the columns of `targets`: labels, classes or numbers.
    root : Path
        Folder that `path` entries are relative to.
    table : pandas.DataFrame
        One row a record; index is the record id (text), columns `path`, `patient`, `split`, and
        further columns of the source: `age` (years), `sex`, `date` and `device` of the recording.
    matrix : numpy.ndarray
        `(records, labels)`, row by row with `table`: 1 where a label or class applies, or the
        number. uint8, or float32 with NaN for what is not known.
    descriptions : dict
        Label name to its description, where the source has one.
    licence : Licence
        Terms that the data set for models that are trained on them.
    left_out : dict
        Records of the source that are not in the table: their number by reason.
    has_splits : bool
        Whether the source states the splits. Otherwise einthoven has divided the patients, which
        only matters for training.
    target : Task
        What is predicted: kind, columns and unit.
    """

    name: str
    version: str
    task: str
    labels: tuple[str, ...]
    root: Path
    table: pd.DataFrame
    matrix: Matrix
    descriptions: dict[str, str] = field(default_factory=dict)
    licence: Licence = OWN_DATA
    left_out: dict[str, int] = field(default_factory=dict)
    has_splits: bool = True
    target: Task = field(default_factory=Task)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {len(self.ids(split))}" for split in SPLITS)
        return (
            f"<Cohort {self.name}: {len(self)} records ({counts}) of "
            f"{self.table['patient'].nunique()} patients, {len(self.labels)} labels>"
        )

    def ids(self, split: str | None = None) -> NDArray[np.str_]:
        """Record ids of a split (all records with `all` or None), in the order of `targets`."""
        return self.table.index.to_numpy(dtype=str)[self._rows(split)]

    def patients(self, split: str | None = None) -> NDArray[np.str_]:
        """Patient of each record of a split, aligned with `ids`."""
        return self.table["patient"].to_numpy(dtype=str)[self._rows(split)]

    def targets(self, split: str | None = None) -> Matrix:
        """`(records, labels)` targets of a split, aligned with `ids` and `labels`."""
        return self.matrix[self._rows(split)]

    def paths(self, split: str | None = None) -> list[Path]:
        """File of each record of a split, aligned with `ids`."""
        return [self.root / path for path in self.table["path"].to_numpy()[self._rows(split)]]

    def metadata(self, split: str | None = None) -> pd.DataFrame:
        """Further columns of each record of a split, aligned with `ids` (index: record id).

        `age` (years; PTB-XL writes 300 for more than 89), `sex` (`male`, `female` in PTB-XL,
        otherwise the table's values), `date` (ISO 8601) and `device`, where the source has them.
        """
        extra = [name for name in self.table if name not in (*REQUIRED_COLUMNS, "fold")]
        return self.table.iloc[self._rows(split)][extra]

    def counts(self) -> pd.DataFrame:
        """Records of every label or class, or with a known number, in every split.

        The index is the label, the columns are the splits.
        """
        sums = {split: self._counts(self.targets(split)) for split in SPLITS}
        return pd.DataFrame(sums, index=pd.Index(self.labels, name="label"))

    @property
    def is_synthetic(self) -> bool:
        """Whether einthoven simulated the cohort: the ground truth lies beside it."""
        return (self.root / "ground_truth.csv").is_file()

    @property
    def digest(self) -> str:
        """SHA-256 of ids, patients, splits, labels and targets; equal for identical cohorts."""
        text = self.table[["patient", "split"]].to_csv() + json.dumps(self.labels)
        if self.target.behaviour.form != "labels":
            text += json.dumps(self.target.to_dict())
        return hashlib.sha256(text.encode() + self.matrix.tobytes()).hexdigest()

    def select(self, keep: NDArray[np.bool_], *, reason: str = "") -> Cohort:
        """Select the records where `keep` is true; with a reason, `left_out` counts the others."""
        left_out, others = dict(self.left_out), int((~keep).sum())
        if reason and others:
            left_out[reason] = left_out.get(reason, 0) + others
        return replace(self, table=self.table[keep], matrix=self.matrix[keep], left_out=left_out)

    def with_labels(self, labels: Sequence[str]) -> Cohort:
        """Select labels, in this order.

        Raises
        ------
        CohortError
            If a label is not the cohort's.
        """
        absent = [label for label in labels if label not in self.labels]
        if absent:
            raise CohortError(
                f"{self.name} has no labels {absent[:5]}",
                remedy="open the cohort with the task that these labels belong to",
            )
        columns = [self.labels.index(label) for label in labels]
        matrix = np.ascontiguousarray(self.matrix[:, columns])
        target = self.target.select(columns, self.labels)
        selected = replace(self, labels=tuple(labels), matrix=matrix, target=target)
        if target.behaviour.form == "classes":  # a record of another class
            keep: NDArray[np.bool_] = (matrix == 1).any(axis=1)
            return selected.select(keep, reason=OTHER_CLASS)
        return selected.known()

    def known(self) -> Cohort:
        """Leave out the records without any known target."""
        if not self.labels:
            return self
        keep = ~np.all(np.isnan(self.matrix), axis=1, keepdims=True)[:, 0]
        cohort = self.select(keep, reason=UNKNOWN_TARGET)
        return replace(cohort, matrix=compact(cohort.matrix))

    def with_common_labels(self, records: int) -> Cohort:
        """Drop the labels that fewer than `records` records carry; for numbers, are known of.

        Raises
        ------
        CohortError
            If no label is left.
        """
        counts = self._counts(self.matrix)
        if len(counts) and counts.max() < records:
            most = self.labels[int(counts.argmax())]
            raise CohortError(
                f"{self.name}: no label has {records} records; the most frequent, {most}, has "
                f"{counts.max()}",
                remedy="use a smaller minimum",
            )
        labels = [label for label, n in zip(self.labels, counts, strict=True) if n >= records]
        return self if len(labels) == len(self.labels) else self.with_labels(labels)

    def fraction(self, share: float, *, seed: int = 0, labelled: bool = True) -> Cohort:
        """Keep about `share` of the training records, as whole patients.

        Fractions of one seed are nested (a smaller one lies inside a larger one), stratified by
        each patient's rarest label (or fifth of a number), and start with one patient of every
        label, so that even a small fraction has every label; without `labelled` the patients are
        drawn without regard to labels. Validation and test stay as they are.

        Raises
        ------
        CohortError
            If `share` is not in (0, 1].
        """
        if not 0 < share <= 1:
            raise CohortError(
                f"training fraction {share} is outside (0, 1]",
                remedy="use the share of training records to keep, such as 0.1",
            )
        is_training = (self.table["split"] == "train").to_numpy()
        strata = self.strata("train") if labelled else np.zeros((is_training.sum(), 0), np.uint8)
        order = patient_order(self.patients("train"), strata, seed=seed)
        sizes = self.table[is_training].groupby("patient").size().reindex(order).to_numpy()
        count = int(np.searchsorted(np.cumsum(sizes), round(share * is_training.sum()))) + 1
        patients = order[:count]
        keep = ~is_training | self.table["patient"].isin(patients).to_numpy()
        return self.select(keep, reason="not in the training fraction")

    def folds(self, count: int, *, seed: int = 0) -> list[Cohort]:
        """Cross-validation: the same records in `count` other divisions into splits.

        The folds are those of the column `fold` if it has `count` (`has_folds`). Otherwise
        patients are divided into folds, stratified by their rarest label, or the fifth of a number.
        The k-th cohort tests on fold k, validates on the next one and trains on the others, so that
        every record is in one test split and in one validation split. The present splits are not
        used.

        Raises
        ------
        CohortError
            If there are fewer than 3 folds, fewer patients than folds, or a patient is in several
            folds of the column.
        """
        patients = len(np.unique(self.patients()))
        if not FEWEST_FOLDS <= count <= patients:
            raise CohortError(
                f"{count} folds of {patients} patients of {self.name}",
                remedy=f"use {FEWEST_FOLDS} to {patients} folds: one tests, one validates, the "
                "others train"
                if patients >= FEWEST_FOLDS
                else "add patients",
            )
        if self.has_folds(count):
            places = self._stated_folds()
        else:
            places = stratified_places(self.patients(), self.strata(), count=count, seed=seed)
        return [
            self.with_splits(
                np.select([places == k, places == (k + 1) % count], ["test", "validation"], "train")
            )
            for k in range(count)
        ]

    def has_folds(self, count: int) -> bool:
        """Whether the column `fold` divides the records into `count` folds."""
        return "fold" in self.table and bool(self.table["fold"].nunique() == count)

    def _stated_folds(self) -> NDArray[np.intp]:
        """Place of each record's fold among those of the column, in the order of their numbers."""
        folds = pd.to_numeric(self.table["fold"])
        several = folds.groupby(self.table["patient"]).nunique() > 1
        if several.any():
            raise CohortError(
                f"{self.name}: {several.sum()} patients are in more than one fold, such as "
                f"{several.idxmax()!r}",
                remedy="put all records of a patient into one fold, or ask for another number of "
                "folds, and einthoven divides the patients",
            )
        return np.unique(folds, return_inverse=True)[1]

    def with_splits(self, splits: str | NDArray[np.str_]) -> Cohort:
        """Put the records into other splits: one for all of them, or one for each."""
        return replace(self, table=self.table.assign(split=splits), has_splits=True)

    def strata(self, split: str | None = None) -> NDArray[np.uint8]:
        """`(records, strata)` 0 and 1 of a split: labels, classes, or fifths of a number."""
        return self.target.behaviour.strata(self.targets(split))

    def _counts(self, targets: Matrix) -> NDArray[np.int64]:
        if self.target.behaviour.form == "values":
            return np.asarray((~np.isnan(targets)).sum(axis=0, dtype=np.int64))
        return positives(targets)

    def _rows(self, split: str | None) -> NDArray[np.intp]:
        if split in (None, ALL):
            return np.arange(len(self.table))
        if split not in SPLITS:
            raise CohortError(
                f"unknown split {split!r}", remedy=f"the splits are {', '.join(SPLITS)}, or {ALL}"
            )
        return np.flatnonzero((self.table["split"] == split).to_numpy())


def checked(cohort: Cohort) -> Cohort:
    """Check a cohort and return it.

    Raises
    ------
    CohortError
        For duplicated record ids or labels, a matrix of another shape, or a patient in two splits.
    """
    duplicated = cohort.table.index[cohort.table.index.duplicated()]
    if len(duplicated):
        raise CohortError(
            f"{cohort.name}: record id {duplicated[0]!r} occurs more than once "
            f"({len(duplicated)} such rows)",
            remedy="use a unique id for each record (column `record`), or drop the duplicates",
        )
    if len(set(cohort.labels)) != len(cohort.labels) or (
        not cohort.labels and cohort.task != UNLABELLED
    ):
        raise CohortError(
            f"{cohort.name}: {len(cohort.labels)} labels, {len(set(cohort.labels))} distinct",
            remedy="name at least one label, each once",
        )
    if cohort.matrix.shape != (len(cohort.table), len(cohort.labels)):
        raise CohortError(
            f"targets have shape {cohort.matrix.shape} for {len(cohort.table)} records and "
            f"{len(cohort.labels)} labels",
            remedy="rebuild the cohort from its tables",
        )
    pairs = cohort.table[["patient", "split"]].drop_duplicates()
    crossing = pairs["patient"][pairs["patient"].duplicated()].unique()
    if len(crossing):
        where = sorted(pairs["split"][pairs["patient"] == crossing[0]])
        raise CohortError(
            f"{cohort.name}: {len(crossing)} patients are in more than one split, "
            f"for example patient {crossing[0]!r} in {' and '.join(where)}",
            remedy="put all records of a patient into one fold, or leave the fold column out and "
            "einthoven splits by patient",
        )
    return cohort


def warn_of_far_values(
    columns: Mapping[str, NDArray[np.float64]], records: Sequence[str], source: object
) -> None:
    """Name numbers of targets (`Kind.numbers`) that are far from the others (CohortWarning).

    `records` are the names of their rows, and `source` is where the columns come from.
    """
    for name, values in columns.items():
        far = np.flatnonzero(far_values(values))
        if len(far):
            shown = ", ".join(f"{values[row]:g} of record {records[row]!r}" for row in far[:_SHOWN])
            warnings.warn(
                f"{source}: {len(far)} of {int((~np.isnan(values)).sum())} values of {name} "
                f"are far from all others: {shown}{', ...' * (len(far) > _SHOWN)}. They are "
                "used as they are; correct them, or leave these cells empty",
                CohortWarning,
                stacklevel=4,
            )


def far_values(values: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Whether each of some numbers is far from the others, such as a code for a missing value.

    It is more than 6 robust standard deviations from the median, and, so that the tail of a skewed
    distribution of positive numbers is not, more than 4 on a scale of logarithms. The deviation
    is that of the number's side: the larger one of the quartile and the decile.

    Among positive numbers, so is the only negative value, such as -1, and numbers that are more
    than 4 deviations of the logarithm below the others, with a gap, and in their range when they
    are multiplied by 100: fractions among per cents, metres among centimetres.
    """
    numbers = values[~np.isnan(values)].astype(np.float64)
    if len(numbers) < _FEWEST_VALUES:
        return np.zeros(len(values), dtype=bool)
    far = _deviations(values.astype(np.float64), numbers) > _FAR
    if np.median(numbers) > 0:
        positive = values > 0
        logarithms = np.log(np.where(positive, values, 1).astype(np.float64))
        deviations = _deviations(logarithms, np.log(numbers[numbers > 0]))
        is_low = positive & (values < np.median(numbers)) & (deviations > _FAR_IN_LOGARITHM)
        far &= ~positive | (deviations > _FAR_IN_LOGARITHM)
        if len(np.unique(numbers[numbers < 0])) == 1:
            far |= values < 0
        low, others = values[is_low], values[positive & ~is_low]
        if low.size and low.max() * _GAP < others.min():
            far |= is_low & (values * 100 >= others.min()) & (values * 100 <= others.max())
    return far


def _deviations(values: NDArray[np.float64], numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances of values from the median of numbers, in robust standard deviations; NaN if 0."""
    low, lower, median, upper, high = np.quantile(numbers, [0.1, 0.25, 0.5, 0.75, 0.9])
    below = max((median - lower) / 0.6745, (median - low) / 1.2816)  # quantiles of the normal
    above = max((upper - median) / 0.6745, (high - median) / 1.2816)
    scale = np.where(values < median, below, above)
    return np.asarray(np.abs(values - median) / np.where(scale > 0, scale, np.nan))


def patient_order(
    patients: Sequence[str] | NDArray[np.str_], strata: NDArray[np.uint8], *, seed: int
) -> NDArray[np.str_]:
    """Order patients so that every prefix has about the label shares of the whole.

    Patients are grouped by their rarest label and spread evenly, in random order, over [0, 1);
    one patient of every label comes first.
    """
    names, _, has, rarest = _by_rarest(patients, strata)
    generator = np.random.default_rng(np.random.SeedSequence([seed, 0x0DE5]))
    shuffled = generator.permutation(len(names))
    position = np.empty(len(names))
    for label in np.unique(rarest):
        members = shuffled[rarest[shuffled] == label]
        spread = np.arange(len(members)) + generator.random(len(members))
        position[members] = spread / len(members)
    for label in range(strata.shape[1]):
        carriers = shuffled[has[shuffled, label]]
        if len(carriers) and position[carriers].min() >= 0:
            position[carriers[0]] = -1.0
    return names[np.argsort(position, kind="stable")]


def split_by_patient(
    patients: Sequence[str] | NDArray[np.str_], strata: NDArray[np.uint8], *, seed: int = 0
) -> NDArray[np.str_]:
    """A split for every record, 80 / 10 / 10 by patients, stratified by their rarest label."""
    places = stratified_places(patients, strata, count=10, seed=seed)
    return np.select([places == 8, places == 9], ["validation", "test"], "train")


def stratified_places(
    patients: Sequence[str] | NDArray[np.str_],
    strata: NDArray[np.uint8],
    *,
    count: int,
    seed: int = 0,
) -> NDArray[np.intp]:
    """Assign one of `count` places to every record, the same for all records of a patient.

    Patients who share their rarest label are spread evenly over the places.
    """
    names, owner, _, rarest = _by_rarest(patients, strata)
    generator = np.random.default_rng(np.random.SeedSequence([seed, 0x0DE6]))
    shuffled = generator.permutation(len(names))
    grouped = shuffled[np.argsort(rarest[shuffled], kind="stable")]
    places = np.empty(len(names), dtype=np.intp)
    places[grouped] = (np.arange(len(names)) + generator.integers(count)) % count
    return places[owner]


def _by_rarest(
    patients: Sequence[str] | NDArray[np.str_], strata: NDArray[np.uint8]
) -> tuple[NDArray[np.str_], NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]:
    """Patients, each record's, the labels that a patient ever has, and the rarest of them.

    Patients without any label share an extra one, the last.
    """
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    has = np.zeros((len(names), strata.shape[1] + 1), dtype=bool)
    np.logical_or.at(has, owner, np.pad(strata.astype(bool), ((0, 0), (0, 1))))
    has[:, -1] = ~has[:, :-1].any(axis=1)
    frequency = has.sum(axis=0).astype(float)
    return names, owner, has, np.where(has, frequency, np.inf).argmin(axis=1)
