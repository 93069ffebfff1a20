"""Layout of X, targets of y, validation records, threads and devices."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from torch import nn

from einthoven.backbones.leads import canonical_leads
from einthoven.cohorts.cohort import patient_order, stratified_places
from einthoven.errors import EstimatorError
from einthoven.signals.batches import SignalSource
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Window
from einthoven.signals.store import ArrayStore

Kind = Literal["binary", "multiclass", "multilabel"]
# Records scored after every epoch if none are set aside.
_WATCHED = 512


def flattened(x: Any, leads: Sequence[str] | None) -> Any:
    """(records, leads, samples) as (records, leads * samples); anything else as it is."""
    axes = x.ndim if hasattr(x, "ndim") else np.asarray(x).ndim
    if axes != 3:
        return x
    array = np.asarray(x)
    if leads is not None and array.shape[1] != len(leads):
        raise EstimatorError(
            f"X of shape {array.shape} has {array.shape[1]} leads, and leads names {len(leads)}",
            remedy="give (records, leads, samples), and leads=(...) with one name a row",
        )
    return array.reshape(len(array), -1)


@dataclass(frozen=True)
class Layout:
    """Columns of a flattened X.

    Attributes
    ----------
    leads : tuple of str
        One after the other.
    rate : float
        In hertz.
    samples : int
        Of each lead.
    """

    leads: tuple[str, ...]
    rate: float
    samples: int

    @classmethod
    def of(cls, parameters: Any, columns: int) -> Layout:
        """Layout of X by an estimator's `leads`, `rate` and `samples`.

        Raises
        ------
        EstimatorError
            If one is missing, impossible, or does not match the number of columns.
        """
        rate, named = parameters.rate, parameters.leads
        if rate is None or named is None:
            raise EstimatorError(
                f"rate = {rate}, leads = {named}: they cannot be told from X",
                remedy="give the sampling rate in Hz and the names of the leads, in X's order",
            )
        if not (isinstance(rate, int | float) and math.isfinite(rate) and rate > 0):
            raise EstimatorError(f"rate = {rate!r} Hz", remedy="give a positive number of hertz")
        leads = canonical_leads(named)
        samples, rest = divmod(columns, len(leads))
        if rest or parameters.samples not in (None, samples):
            wanted = parameters.samples or "any number of"
            raise EstimatorError(
                f"X has {columns} columns, which is not {len(leads)} leads x {wanted} samples",
                remedy="give (records, leads, samples), or leads and samples that multiply to "
                "the number of columns, lead after lead",
            )
        return cls(leads, float(rate), samples)

    def source(
        self,
        x: NDArray[Any],
        preparation: Preparation,
        *,
        rows: NDArray[np.intp] | None = None,
        targets: NDArray[np.uint8] | None = None,
    ) -> SignalSource:
        """Rows of a flattened X, or all of them, ready to be cut into batches.

        X is shared and not copied; `targets` are those of all its rows.
        """
        store = ArrayStore.over(
            x.reshape(len(x), len(self.leads), self.samples), leads=self.leads, rate=self.rate
        )
        rows = np.arange(len(x)) if rows is None else rows
        labels = np.zeros((len(rows), 0), dtype=np.uint8) if targets is None else targets[rows]
        return SignalSource(store, rows, labels, preparation)


def with_short(preparation: Preparation, short: Any) -> Preparation:
    """Set what happens to records shorter than the window."""
    steps = (
        replace(step, short=short) if isinstance(step, Window) else step
        for step in preparation.steps
    )
    return replace(preparation, steps=tuple(steps))


# ---------------------------------------------------------------------- targets


@dataclass(frozen=True)
class Targets:
    """Targets of the network.

    Attributes
    ----------
    kind : {"binary", "multiclass", "multilabel"}
        Whether a record has one of two classes, one of several, or any number of labels.
    classes : numpy.ndarray
        The classes in order, or the names (or numbers) of the labels.
    matrix : numpy.ndarray
        (records, outputs) uint8: the second class, every class, or every label.
    """

    kind: Kind
    classes: NDArray[Any]
    matrix: NDArray[np.uint8]

    @classmethod
    def of(cls, y: NDArray[Any], names: Sequence[Any] | None = None) -> Targets:
        """Read y: labels of 0 and 1, (records, labels), or one class a record, (records,).

        Parameters
        ----------
        y : numpy.ndarray
        names : sequence, optional
            Of labels, such as the columns of a data frame.

        Raises
        ------
        ValueError, EstimatorError
            If y is continuous, or has one class only.
        """
        check_classification_targets(y)
        if type_of_target(y) == "multilabel-indicator":
            dense = y.toarray() if hasattr(y, "toarray") else y
            if not np.isin(dense, (0, 1)).all():
                raise EstimatorError(
                    f"labels hold {np.setdiff1d(dense, (0, 1))[:3].tolist()}",
                    remedy="give 0 and 1, a column for each label",
                )
            classes = np.arange(dense.shape[1]) if names is None else np.asarray(names)
            return cls("multilabel", classes, np.ascontiguousarray(dense, dtype=np.uint8))
        column = column_or_1d(y, warn=True)
        classes, place = np.unique(column, return_inverse=True)
        if len(classes) < 2:
            raise EstimatorError(
                f"y holds one class only, {classes[0]!r}",
                remedy="give records of at least two classes",
            )
        if len(classes) == 2:
            return cls("binary", classes, place.astype(np.uint8)[:, None])
        return cls("multiclass", classes, np.eye(len(classes), dtype=np.uint8)[place])

    @property
    def names(self) -> list[str]:
        """Names of the network's outputs."""
        return [str(name) for name in (self.classes[1:] if self.kind == "binary" else self.classes)]


def set_aside(
    targets: NDArray[np.uint8], groups: Any, *, fraction: float | None, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to train and to validate on, by groups and stratified by their rarest label.

    Without a fraction, all records are for training, and some of them are scored as well.

    Raises
    ------
    EstimatorError
        If the fraction is impossible, or groups have another length or are too few.
    """
    count = len(targets)
    owners: NDArray[Any] = np.arange(count) if groups is None else np.asarray(groups)
    if owners.shape != (count,):
        raise EstimatorError(
            f"groups of shape {owners.shape} for {count} records", remedy="give one a record"
        )
    named: NDArray[np.str_] = owners.astype(str)
    if fraction is not None and not 0 < fraction <= 0.5:
        raise EstimatorError(
            f"validation_fraction = {fraction}",
            remedy="give a share above 0 and up to 0.5, or None to train on everything",
        )
    if fraction is None:
        watched = patient_order(named, targets, seed=seed)[:_WATCHED]
        return np.arange(count), np.flatnonzero(np.isin(named, watched))
    folds = round(1 / fraction)
    groups_in_all = len(np.unique(named))
    if folds > groups_in_all:
        raise EstimatorError(
            f"validation_fraction = {fraction} of {groups_in_all} groups is none",
            remedy="give a larger share, or None to train on everything",
        )
    chosen = stratified_places(named, targets, count=folds, seed=seed) == folds - 1
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


# ---------------------------------------------------------------------- machines


@contextmanager
def threads(n_jobs: int | None) -> Iterator[None]:
    """PyTorch's threads inside the block; -1 is all processors, None leaves them as they are."""
    if n_jobs is None:
        yield
        return
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or (n_jobs < 1 and n_jobs != -1):
        raise EstimatorError(
            f"n_jobs = {n_jobs!r}", remedy="give a number of threads, -1 for all, or None"
        )
    before = torch.get_num_threads()
    torch.set_num_threads((os.cpu_count() or 1) if n_jobs == -1 else n_jobs)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def lent(network: nn.Module, device: str) -> Iterator[torch.device]:
    """A network on a device inside the block, and on the CPU again after it; `auto` is a GPU.

    Raises
    ------
    EstimatorError
        If there is no such device.
    """
    name = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        there = torch.device(name)
        network.to(there)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        raise EstimatorError(
            f"device = {device!r}: {str(error).splitlines()[0]}",
            remedy="give 'cpu', 'auto', or a device that PyTorch has on this machine",
        ) from error
    try:
        yield there
    finally:
        network.cpu()
