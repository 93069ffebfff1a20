"""Layout of X, targets of y, and validation records."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, column_or_1d

# Private, but the only way to declare the constraints that BaseEstimator._validate_params checks.
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import validate_data

from einthoven.backbones.inference import device_of
from einthoven.backbones.leads import canonical_leads
from einthoven.cohorts.cohort import patient_order, stratified_places
from einthoven.errors import EinthovenError, EstimatorError, RecordError, StoreError
from einthoven.models import SHIPPED
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.file import is_file_like
from einthoven.records.limb_leads import repair_leads
from einthoven.records.record import LOWEST_RATE, canonical_patient, sampling_rate
from einthoven.signals.batches import SignalSource
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Window
from einthoven.signals.store import ArrayStore, check_amplitude
from einthoven.tasks import Task
from einthoven.tasks.kind import Form
from einthoven.tasks.task import Matrix
from einthoven.workers import MOST_THREADS

Kind = Literal["binary", "multiclass", "multilabel", "regression"]
# Records that are scored after every epoch if none are held out.
_SCORED = 512


class ArrayEstimator(BaseEstimator):  # type: ignore[misc]
    """Parameters that describe X, and their checks."""

    backbone: Any
    rate: Any
    leads: Any
    samples: int | None
    short: Any
    device: Any
    n_jobs: int | None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "rate": [Interval(Real, 0, None, closed="neither"), "array-like", None],
        "leads": ["array-like", None],
        "samples": [Interval(Integral, 1, None, closed="left"), None],
        "short": [StrOptions({"refuse", "pad"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "n_jobs": [
            Interval(Integral, 1, MOST_THREADS, closed="both"),
            Options(Integral, {-1}),
            None,
        ],
    }

    def _validate_params(self) -> None:
        if self.backbone is None:  # has no default, so that the network is a choice
            raise EstimatorError(
                f"{type(self).__name__} without a backbone",
                remedy=f"pass backbone={SHIPPED!r}, the folder of another model, or a name of "
                "einthoven.backbone_names() with its weights=",
            )
        super()._validate_params()

    def _flat(self, X: Any, *y: Any, **options: Any) -> Any:
        """X as (records, leads * samples), or as a list of Records; and y, both checked."""
        if (records := self._records(X)) is not None:
            if not y:
                return records
            check_consistent_length(records, *y)
            return records, validate_data(self, y=y[0], multi_output=True)
        self._check_layout()
        if (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) == 3:
            X = np.asarray(X)
            if X.shape[1] != len(self.leads):
                raise EstimatorError(
                    f"X of shape {X.shape} has {X.shape[1]} leads; `leads` names {len(self.leads)}",
                    remedy="pass (records, leads, samples), and one name for each lead",
                )
            self._refuse_gaps(X)
            X = X.reshape(len(X), -1)
        return validate_data(self, X, *y, **options)

    def _refuse_gaps(self, x: NDArray[Any]) -> None:
        """Raise EstimatorError if (records, leads, samples) hold NaN; it names record and lead."""
        if x.dtype.kind != "f" or not np.isnan(x.sum()):
            return
        record, lead = np.argwhere(np.isnan(x).any(axis=2))[0]
        count = int(np.isnan(x[record, lead]).sum())
        raise EstimatorError(
            f"record {record} of X has NaN in lead {self.leads[lead]} ({count} of {x.shape[2]} "
            "samples)",
            remedy="leave out or repair such records, or pass Records: invalid samples of limb "
            "leads are computed from the others",
        )

    def _records(self, X: Any) -> list[Record] | None:
        """A list of Records, files or arrays of different lengths as Records; None otherwise."""
        if is_file_like(X) or isinstance(X, Record):
            raise EstimatorError(
                "X is one ECG, not several", remedy="pass a list: X = [file] and one target in y"
            )
        if not isinstance(X, list | tuple) or not X:
            return None
        if not (isinstance(X[0], Record) or is_file_like(X[0])):
            shapes = {np.shape(value) for value in X}
            if len(shapes) == 1 or any(len(shape) != 2 for shape in shapes):
                return None
        return [self._record(value, place) for place, value in enumerate(X)]

    def _record(self, value: Any, place: int) -> Record:
        if isinstance(value, Record):
            return repair_leads(value)
        if isinstance(value, str | os.PathLike):
            return repair_leads(read_record(value))
        if is_file_like(value):
            try:
                return repair_leads(read_record(value))
            except RecordError as error:  # it names no file
                problem = f"record {place} of X: {error.problem}"
                raise EstimatorError(problem, remedy=error.remedy) from error
        self._check_layout()
        signal = np.asarray(value, dtype=np.float32)
        return Record.create(signal, self.rate, leads=self.leads, name=f"record {place} of X")

    def _hertz(self) -> float:
        """The parameter `rate` as a number; EstimatorError if it is none of at least 20 Hz."""
        rate = sampling_rate(self.rate)
        if not LOWEST_RATE <= rate < np.inf:
            raise EstimatorError(
                f"rate = {self.rate!r} is no sampling rate of an ECG",
                remedy=f"pass a number of hertz, at least {LOWEST_RATE:g}",
            )
        return rate

    def _check_layout(self) -> None:
        if self.rate is None or self.leads is None:
            raise EstimatorError(
                "rate and leads of the arrays are missing",
                remedy="set the parameters rate and leads, or pass a list of Records",
            )

    def _store(self, x: NDArray[Any] | list[Record]) -> ArrayStore:
        """The records of a flattened X, or of a list of Records, which are not copied."""
        if isinstance(x, list):
            leads = self.leads
            if leads is None:
                leads = [lead for lead in STANDARD_LEADS if all(lead in r.leads for r in x)]
            return _in_millivolts(ArrayStore.of(x, leads=canonical_leads(leads)))
        leads = canonical_leads(self.leads)
        samples, rest = divmod(x.shape[1], len(leads))
        if rest or self.samples not in (None, samples):
            expected = self.samples or "any number of"
            raise EstimatorError(
                f"X has {x.shape[1]} columns, which is not {len(leads)} leads x {expected} samples",
                remedy="pass (records, leads, samples), or leads and samples that multiply to "
                "the number of columns, lead after lead",
            )
        signals = x.reshape(len(x), len(leads), samples)
        return _in_millivolts(ArrayStore.over(signals, leads=leads, rate=self._hertz()))

    def _with_short(self, preparation: Preparation) -> Preparation:
        """The preparation with this estimator's treatment of short records."""
        steps = (
            replace(step, short=self.short) if isinstance(step, Window) else step
            for step in preparation.steps
        )
        return replace(preparation, steps=tuple(steps))

    def _device(self) -> str:
        """Name of the device; one that does not exist is a ValueError, as other parameters."""
        try:
            return device_of(self.device)
        except EinthovenError as error:
            raise EstimatorError(error.problem, remedy=error.remedy) from error

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Run the block with `n_jobs` threads of PyTorch."""
        before = torch.get_num_threads()
        if self.n_jobs is not None:
            count = (os.cpu_count() or 1) if self.n_jobs == -1 else int(self.n_jobs)
            torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _in_millivolts(store: ArrayStore) -> ArrayStore:
    """Refuse signals that look like another unit, and warn of other implausible amplitudes."""
    try:
        check_amplitude(store)
    except StoreError as error:
        raise EstimatorError(error.problem, remedy="pass millivolts") from error
    return store


def source(
    store: ArrayStore,
    preparation: Preparation,
    *,
    rows: NDArray[np.intp] | None = None,
    targets: Matrix | None = None,
    groups: Any = None,
) -> SignalSource:
    """Rows of a store, or all of them, with their rows of targets and groups."""
    rows = np.arange(len(store)) if rows is None else rows
    labels = np.zeros((len(rows), 0), dtype=np.uint8) if targets is None else targets[rows]
    patients = None if groups is None else spelled(groups)[rows]
    return SignalSource(store, rows, labels, preparation, patients)


def spelled(groups: Any) -> NDArray[np.str_]:
    """Groups as text, patients in one spelling (`einthoven.records.record.canonical_patient`)."""
    return np.array([canonical_patient(group) for group in column_or_1d(groups)], np.str_)


# ---------------------------------------------------------------------- targets


@dataclass(frozen=True)
class Targets:
    """Targets of the network.

    Attributes
    ----------
    kind : {"binary", "multiclass", "multilabel", "regression"}
        Whether a record has one of two classes, one of several, any number of labels, or numbers.
    classes : numpy.ndarray
        The classes in order, or the names (or numbers) of the labels or numbers.
    matrix : numpy.ndarray
        (records, outputs): the second class, every class, every label, or numbers; NaN where not
        known.
    label : str
        Name of the second of the classes 0 and 1; the empty string is its value.
    is_flat : bool
        Whether y has one dimension.
    """

    kind: Kind
    classes: NDArray[Any]
    matrix: Matrix
    label: str = ""
    is_flat: bool = False

    @classmethod
    def of(cls, y: NDArray[Any], names: Sequence[Any] | None = None) -> Targets:
        """Read y: labels of 0 and 1, (records, labels), or one class a record, (records,).

        `names` are those of the labels, such as the columns of a data frame, or of a series.

        Raises
        ------
        ValueError, EstimatorError
            If y is continuous, or contains only one class.
        """
        check_classification_targets(y)
        if type_of_target(y) == "multilabel-indicator":
            dense = y.toarray() if hasattr(y, "toarray") else y
            if not np.isin(dense, (0, 1)).all():
                raise EstimatorError(
                    f"labels contain {np.setdiff1d(dense, (0, 1))[:3].tolist()}",
                    remedy="pass 0 and 1, a column for each label",
                )
            classes = np.arange(dense.shape[1]) if names is None else np.asarray(names)
            return cls("multilabel", classes, np.ascontiguousarray(dense, dtype=np.uint8))
        classes, place = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(classes) < 2:
            raise EstimatorError(
                f"y contains one class only, {classes[0]!r}",
                remedy="pass records of at least two classes",
            )
        if len(classes) == 2:
            is_label = names is not None and len(names) == 1 and np.isin(classes, (0, 1)).all()
            label = str(names[0]) if names is not None and is_label else ""
            return cls("binary", classes, place.astype(np.uint8)[:, None], label)
        return cls("multiclass", classes, np.eye(len(classes), dtype=np.uint8)[place])

    @classmethod
    def numbers(cls, y: NDArray[Any], names: Sequence[Any] | None = None) -> Targets:
        """Read y as numbers, (records,) or (records, numbers)."""
        values = np.asarray(y, dtype=np.float32)
        matrix = values.reshape(len(values), -1)
        count = matrix.shape[1]
        names = names if names is not None and len(names) == count else range(count)
        return cls("regression", np.asarray(names), matrix, is_flat=values.ndim == 1)

    def with_gaps(self, gaps: NDArray[np.bool_] | None) -> Targets:
        """The targets with what is not known, (records, outputs); of classes that is nothing."""
        if gaps is None or not gaps.any():
            return self
        return replace(self, matrix=np.where(gaps, np.nan, self.matrix).astype(np.float32))

    @property
    def task(self) -> Task:
        """The task that the network is trained for."""
        if self.kind == "multiclass":
            return Task(kind="multiclass", target="y", classes=tuple(self.names))
        if self.kind == "regression":
            return Task(kind="regression", target=tuple(self.names))
        return Task()

    @property
    def form(self) -> Form:
        """Form of the task."""
        return self.task.behaviour.form

    @property
    def strata(self) -> NDArray[np.uint8]:
        """(records, strata) 0 and 1, over which validation records are stratified."""
        return self.task.behaviour.strata(self.matrix)

    @property
    def names(self) -> list[str]:
        """Names of the network's outputs."""
        if self.label:
            return [self.label]
        return [str(name) for name in (self.classes[1:] if self.kind == "binary" else self.classes)]


def without_gaps(y: Any) -> tuple[Any, NDArray[np.bool_] | None]:
    """Targets without NaN or None, and where these were, (records, columns); None if nowhere.

    A known value of the column takes their place, or 0.
    """
    values = np.asarray(y) if not hasattr(y, "toarray") else np.empty(())
    if values.ndim not in (1, 2) or not pd.isna(values).any():
        return y, None
    gaps = np.asarray(pd.isna(values)).reshape(len(values), -1)
    columns = values.reshape(len(values), -1).astype(object)
    for column, gap in zip(columns.T, gaps.T, strict=True):
        column[gap] = next(iter(column[~gap]), 0)
    filled = np.array(columns.tolist()).reshape(values.shape)
    # Whole numbers are floats in a column of pandas that has a gap.
    if filled.dtype.kind == "f" and gaps.shape[1] == 1 and (np.abs(filled) < 2**53).all():
        whole = filled.astype(np.int64)
        filled = whole if np.array_equal(whole, filled) else filled
    return filled, gaps


def with_known_target(
    x: NDArray[Any] | list[Record], y: NDArray[Any], groups: Any, gaps: NDArray[np.bool_] | None
) -> tuple[NDArray[Any] | list[Record], NDArray[Any], Any, NDArray[np.bool_] | None]:
    """The records of which a target is known; a UserWarning counts the others.

    Raises EstimatorError if fewer than two are left.
    """
    if gaps is None or not (empty := gaps.all(axis=1)).any():
        return x, y, groups, gaps
    rows = np.flatnonzero(~empty)
    if len(rows) < 2:
        raise EstimatorError(
            f"the target of {len(rows)} of {len(gaps)} records is known",
            remedy="pass the targets of at least two records",
        )
    warnings.warn(
        f"{len(gaps) - len(rows)} of {len(gaps)} records without a known target are left out",
        stacklevel=3,
    )
    if groups is not None:
        check_consistent_length(groups, gaps)
        groups = spelled(groups)[rows]
    x = [x[row] for row in rows] if isinstance(x, list) else x[rows]
    return x, y[rows], groups, gaps[rows]


def set_aside(
    strata: NDArray[np.uint8], groups: Any, *, fraction: float | None, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to train and to validate on, by groups and stratified by their rarest label.

    Without a fraction, all records are for training, and some of them are scored as well.

    Raises
    ------
    EstimatorError
        If the groups are too few for the fraction.
    """
    rows = np.arange(len(strata))
    owners = spelled(rows if groups is None else groups)
    check_consistent_length(owners, strata)
    if fraction is None:
        scored = patient_order(owners, strata, seed=seed)[:_SCORED]
        return rows, np.flatnonzero(np.isin(owners, scored))
    folds, count = round(1 / fraction), len(np.unique(owners))
    if folds > count:
        raise EstimatorError(
            f"validation_fraction = {fraction} of {count} groups is none",
            remedy="pass a larger share, or None to train on all records",
        )
    is_validation = stratified_places(owners, strata, count=folds, seed=seed) == folds - 1
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)
