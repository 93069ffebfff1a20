"""The predictions table: record, patient, targets and probabilities, in named columns.

Metrics, comparisons and reports read this table and never see a model. On disk it has the columns
`record` and `patient`, then `target:LABEL` for every label and `probability:LABEL` for every label,
in the order of the labels. Any Parquet or CSV reader opens it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError, listed
from einthoven.files import METRICS_FILE, read_json, replacing
from einthoven.predictions.calibration import Calibration, ClassCalibration
from einthoven.records.record import canonical_patient
from einthoven.tasks import Task, kind_of, positives
from einthoven.tasks.kind import Form
from einthoven.tasks.task import Matrix

TARGET = "target:"
PROBABILITY = "probability:"
VALUE = "value:"
CLASS = "class"
KIND = "kind"
POS_WEIGHT = "pos_weight"
DIGEST = "digest"  # keys of the metadata
NO_DIGEST = "none"
METADATA_KEY, DIGEST_KEY = b"einthoven.predictions", b"einthoven.digest"


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """Predictions of every output for every record, with targets where known.

    Lists, data frames and other dtypes are converted and checked once, at construction; the arrays
    are then read-only.

    Parameters
    ----------
    labels : tuple of str
        Names of labels, classes or numbers, in the order of the columns of `targets` and
        `probabilities`.
    records : array of str, shape (records,)
        Unique record names.
    patients : array of str, shape (records,)
        Patient of each record; the empty string where it is unknown.
    targets : array, shape (records, labels), or None
        1 where the label or class holds, 0 where it does not, or the number; uint8, or float64 with
        NaN where it is not known. None without any.
    probabilities : array of float64, shape (records, labels)
        In [0, 1]; of a regression, the predicted numbers.
    metadata : mapping of str to str
        Origin of the predictions, and `kind` of target, if it is not `multilabel`, with its `unit`.
        Parquet keeps it, CSV does not. `digest` is `none` if the table was read from a file
        without a digest.

    Raises
    ------
    EvaluationError
        If shapes disagree, labels or records repeat, a target is not 0, 1 or NaN, or a probability
        is not finite or outside [0, 1]; the message names label and record.
    """

    labels: tuple[str, ...]
    records: NDArray[np.str_]
    patients: NDArray[np.str_]
    targets: Matrix | None
    probabilities: NDArray[np.float64]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = tuple(_names(self.labels, "labels").tolist())
        records, patients = _names(self.records, "records"), _patients(self.patients)
        if patients.shape != records.shape or "" in labels:
            raise EvaluationError(
                f"{len(patients)} patients for {len(records)} records, labels {listed(labels)}",
                remedy="pass one patient for each record, and labels that are not empty",
            )
        for kind, names in (("label", labels), ("record", records.tolist())):
            _refuse_repeats(names, kind)
        targets: Matrix | None = None
        is_bounded = self.form != "values"
        if self.targets is not None:
            targets = _checked(self.targets, "target", labels, records, is_bounded)
            if is_bounded and np.isfinite(targets).all():
                targets = targets.astype(np.uint8)
        probabilities = _checked(self.probabilities, "probability", labels, records, is_bounded)
        checked = (labels, records, patients, targets, probabilities, dict(self.metadata))
        for name, value in zip(self.__dataclass_fields__, checked, strict=True):
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    def calibrated(self, calibration: Calibration | ClassCalibration | None) -> Predictions:
        """The table with calibrated probabilities; itself without a calibration."""
        if calibration is None:
            return self
        return replace(self, probabilities=calibration.apply(self.probabilities))

    @classmethod
    def from_arrays(
        cls,
        targets: ArrayLike,
        probabilities: ArrayLike,
        labels: Sequence[str] | None = None,
        *,
        patients: ArrayLike | None = None,
        kind: str = Task.kind,
    ) -> Predictions:
        """Make a table of arrays; records are numbered, and so are labels without names.

        Parameters
        ----------
        targets, probabilities : array, list or data frame, shape (records, labels)
            0, 1 or NaN, and numbers in [0, 1]; of a regression, numbers. A vector is one label.
        labels : sequence of str, optional
        patients : array, shape (records,), optional
        kind : str
            Kind of target (`einthoven.Task`).

        Raises
        ------
        EvaluationError
            As the constructor.
        """
        tables: list[Any] = []
        for values in (targets, probabilities):
            array = values if isinstance(values, pd.DataFrame) else np.asarray(values)
            tables.append(np.reshape(array, (-1, 1)) if array.ndim < 2 else array)
        count, width = tables[1].shape[:2]
        names: Any = [str(i) for i in range(width)] if labels is None else labels
        groups: Any = np.full(count, "") if patients is None else patients
        metadata = {} if kind == Task.kind else {KIND: kind}
        records = np.arange(count).astype(np.str_)
        return cls(names, records, groups, tables[0], tables[1], metadata)

    def __repr__(self) -> str:
        kind = "without targets" if self.targets is None else "with targets"
        return f"<Predictions: {len(self)} records {kind}, labels: {listed(self.labels)}>"

    def __len__(self) -> int:
        return int(self.records.size)

    @property
    def kind(self) -> str:
        """Name of the kind of target."""
        return self.metadata.get(KIND, Task.kind)

    @property
    def is_verified(self) -> bool:
        """Whether the values are as they were computed; False if a file had no digest."""
        return self.metadata.get(DIGEST) != NO_DIGEST

    @property
    def form(self) -> Form:
        """Whether the columns are labels, classes or values."""
        return kind_of(self.kind).form

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of labels or classes in the loss of the network; empty for none."""
        text = self.metadata.get(POS_WEIGHT, "")
        return tuple(map(float, text.split()))

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each column; the empty string for none."""
        units = tuple(self.metadata.get("unit", "").split(", "))
        return units if len(units) == len(self.labels) else ("",) * len(self.labels)

    def with_labels(self, labels: Sequence[str]) -> Predictions:
        """Select labels, in this order.

        Raises
        ------
        EvaluationError
            If the table lacks a label, or none is named.
        """
        unknown = [label for label in labels if label not in self.labels]
        if unknown:
            raise EvaluationError(
                f"the predictions lack {listed(unknown)}; they have {listed(self.labels)}",
                remedy="name labels of the table",
            )
        columns = [self.labels.index(label) for label in labels]
        return replace(
            self,
            labels=tuple(labels),
            targets=None if self.targets is None else self.targets[:, columns],
            probabilities=self.probabilities[:, columns],
        )

    def select(self, keep: NDArray[np.bool_]) -> Predictions:
        """Select the records where `keep` is true."""
        return replace(
            self,
            records=self.records[keep],
            patients=self.patients[keep],
            targets=None if self.targets is None else self.targets[keep],
            probabilities=self.probabilities[keep],
        )

    def require_targets(self) -> Matrix:
        """Return the targets.

        Raises
        ------
        EvaluationError
            If the table has none.
        """
        if self.targets is None:
            raise EvaluationError(
                "the predictions table holds no targets",
                remedy="add the columns target:LABEL, or predict for a labelled cohort",
            )
        return self.targets

    def with_positives(self, minimum: int) -> Predictions:
        """Select the labels with at least `minimum` positives.

        Raises
        ------
        EvaluationError
            If the table has no targets, or no label has as many positives.
        """
        counts = positives(self.require_targets())
        if counts.max() < minimum:
            most = self.labels[int(counts.argmax())]
            raise EvaluationError(
                f"no label has {minimum} positives; the most common one, {most}, has "
                f"{counts.max()}",
                remedy=f"set the minimum to {counts.max()} or fewer",
            )
        return self.with_labels([self.labels[i] for i in np.flatnonzero(counts >= minimum)])

    def save(self, path: str | Path) -> None:
        """Write the table atomically as Parquet or CSV, by the suffix of `path`.

        Both formats keep every bit of a probability; CSV loses the metadata, and has no digest.

        Raises
        ------
        EvaluationError
            If the suffix is not .parquet, .pq or .csv.
        """
        write = pa.csv.write_csv if _is_csv(Path(path)) else pa.parquet.write_table
        with replacing(Path(path)) as temporary:
            write(self.to_arrow(), temporary)

    @property
    def digest(self) -> str:
        """SHA-256 of the whole table, by which a damaged file is recognised."""
        names = [self.labels, self.records.tolist(), self.patients.tolist()]
        text = json.dumps([names, dict(self.metadata)], sort_keys=True)
        digest = hashlib.sha256(text.encode())
        for values in (self.targets, self.probabilities):
            if values is not None:  # the sign and payload of NaN are not kept by every format
                numbers = values.astype(np.float64)
                digest.update(np.where(np.isnan(numbers), -1.0, numbers).tobytes())
        return digest.hexdigest()

    def to_arrow(self) -> pa.Table:
        """The table as it is stored."""
        columns = {"record": self.records.tolist(), "patient": self.patients.tolist()}
        predicted = VALUE if self.form == "values" else PROBABILITY
        for kind, values in ((TARGET, self.targets), (predicted, self.probabilities)):
            if values is not None:
                columns |= {kind + s: values[:, i] for i, s in enumerate(self.labels)}
        if self.form == "classes":
            places = self.probabilities.argmax(axis=1).tolist()
            columns[CLASS] = [self.labels[place] for place in places]
        metadata = {METADATA_KEY: json.dumps(dict(self.metadata)).encode()}
        metadata[DIGEST_KEY] = self.digest.encode()
        return pa.table(columns).replace_schema_metadata(metadata)

    @classmethod
    def load(cls, path: str | Path, *, of_run: bool = False) -> Predictions:
        """Read a table written by `save` or by another program.

        A Parquet file of `save` has a digest, and is refused if its content does not match it. A
        table of another program, a Parquet file that another program has written again, and CSV
        have none: nothing shows whether their values are those that a model predicted
        (`is_verified`).

        The order of the labels is that of the probability columns. The table has targets for all
        labels or for none; an empty cell is not known. Without metadata, columns `value:` are those
        of a regression, and a column `class` is that of classes.

        Parameters
        ----------
        path : path
        of_run : bool
            Whether the file is that of a run folder, and has to have a digest.

        Raises
        ------
        EvaluationError
            If the file is missing, is damaged or has another suffix, a digest is missing where
            there was one, or columns are missing, repeated or not numeric; the message names them.
        """
        path = Path(path)
        read = _read_csv if _is_csv(path) else pa.parquet.read_table
        if not path.is_file():
            raise EvaluationError(f"{path}: no such predictions table", remedy="check the path")
        try:
            table = read(path)
            columns = table.column_names
            metadata = dict(json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}")))
        except (pa.ArrowException, TypeError, ValueError, OSError) as error:
            raise EvaluationError(
                f"{path} is not a readable predictions table: {error}",
                remedy="save it as CSV in UTF-8, with commas, or write it again"
                if _is_csv(path)
                else "write the table again",
            ) from error
        has_values = any(name.startswith(VALUE) for name in columns)
        predicted = VALUE if has_values else PROBABILITY
        if has_values or CLASS in columns:
            metadata = {KIND: "regression" if has_values else "multiclass"} | metadata
        labels, targets = (
            [name.removeprefix(kind) for name in columns if name.startswith(kind)]
            for kind in (predicted, TARGET)
        )
        _check_columns(table, labels, targets, path, predicted)
        loaded = cls(
            labels=tuple(labels),
            records=table["record"].to_numpy(),
            patients=table["patient"].to_numpy(),
            targets=_matrix(table, TARGET, labels, path) if targets else None,
            probabilities=_matrix(table, predicted, labels, path),
            metadata=metadata,
        )
        # The keys in the bytes show that there was a digest, even if the metadata cannot be read.
        digest = (table.schema.metadata or {}).get(DIGEST_KEY)
        content = b"" if _is_csv(path) else path.read_bytes()
        if digest is None and DIGEST_KEY not in content:
            if of_run or METADATA_KEY in content:
                raise EvaluationError(
                    f"{path} has no digest: another program has written it again, and its values "
                    "may have changed",
                    remedy="delete it and repeat the command that wrote it",
                )
            return replace(loaded, metadata=dict(loaded.metadata) | {DIGEST: NO_DIGEST})
        if digest != loaded.digest.encode():
            raise EvaluationError(
                f"{path} is damaged: its content does not match its digest",
                remedy="delete it and repeat the command that wrote it",
            )
        return loaded


def task_metadata(task: Task, outputs: int) -> dict[str, str]:
    """Metadata of a table of a task: its `kind`, unless it is `multilabel`, and its `unit`."""
    kind = {KIND: task.kind} if task.kind != Task.kind else {}
    return kind | ({"unit": ", ".join(task.units(outputs))} if task.unit else {})


def table_file(folder: Path, split: str) -> Path:
    """File of the predictions of a split in a run folder."""
    return folder / "predictions" / f"{split}.parquet"


def run_table(folder: Path, split: str) -> Predictions:
    """Read the predictions of a split in a run folder.

    A finished run states the digests of its tables in `metrics.json` (key `predictions`); tables of
    unfinished runs, and of earlier versions, only state their split.

    Raises
    ------
    EvaluationError
        As `Predictions.load` of a run, and for the table of another split or another run.
    """
    file, metrics = table_file(folder, split), folder / METRICS_FILE
    table = Predictions.load(file, of_run=True)
    remedy = "delete it and repeat the command that wrote it"
    if (stored := table.metadata.get("split", split)) != split:
        raise EvaluationError(f"{file} holds the predictions of {stored}", remedy=remedy)
    digests = read_json(metrics).get("predictions", {}) if metrics.is_file() else {}
    if digests.get(split, table.digest) != table.digest:
        raise EvaluationError(
            f"{file} is not the table that the run's {METRICS_FILE} was computed from",
            remedy=remedy,
        )
    return table


def _names(values: ArrayLike, kind: str) -> NDArray[np.str_]:
    array = np.asarray(values)
    nested = array.dtype.kind == "O" and any(isinstance(x, np.ndarray | list) for x in array.flat)
    if array.ndim != 1 or not array.size or nested or array.dtype.kind not in "UOiu":
        raise EvaluationError(
            f"{kind} have shape {array.shape} and dtype {array.dtype}, expected names",
            remedy=f"pass the names of the {kind}, one for each",
        )
    if array.dtype.kind == "O":  # a missing value is unknown, not a patient called "nan"
        array = np.where(pd.isna(array), "", array)
    return array.astype(np.str_)


def _patients(values: ArrayLike) -> NDArray[np.str_]:
    """Patients in one spelling; a float column with gaps holds numbers of patients."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = array.astype(object)
    return np.array([canonical_patient(name) for name in _names(array, "patients")], np.str_)


def _refuse_repeats(names: Sequence[str], kind: str) -> None:
    unique, counts = np.unique(np.asarray(names), return_counts=True)
    repeated = unique[counts > 1].tolist()
    if repeated:
        raise EvaluationError(
            f"{len(repeated)} {kind} names occur more than once: {listed(repeated)}",
            remedy=f"keep one {'row' if kind == 'record' else 'column'} for each {kind}",
        )


def _checked(
    values: ArrayLike,
    kind: str,
    labels: tuple[str, ...],
    records: NDArray[np.str_],
    is_bounded: bool,
) -> NDArray[np.float64]:
    """Check shape and range of targets or probabilities; return a copy."""
    if isinstance(values, pd.DataFrame):
        # Columns in another order would be scored wrongly; pandas numbers unnamed ones from 0.
        names = values.columns.tolist()
        if names not in (list(labels), list(range(len(names)))):
            raise EvaluationError(
                f"the data frame has the columns {listed(names)}, the labels are {listed(labels)}",
                remedy="select the columns in the order of the labels: table[labels]",
            )
    array = np.asarray(values)
    shape = (len(records), len(labels))
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise EvaluationError(
            f"{kind} values have shape {array.shape} and dtype {array.dtype}, expected numbers of "
            f"shape {shape} for {shape[0]} records and {shape[1]} labels ({listed(labels)})",
            remedy="pass one row for each record and one column for each label",
        )
    numbers = array.astype(np.float64)
    good = np.isfinite(numbers)
    if is_bounded:
        good &= np.isin(numbers, (0, 1)) if kind == "target" else (numbers >= 0) & (numbers <= 1)
    if kind == "target":
        good |= np.isnan(numbers)
    if not good.all():
        row, column = np.argwhere(~good)[0]
        limit = "0, 1 or NaN" if kind == "target" else "a number from 0 to 1"
        limit = limit if is_bounded else "a finite number"
        raise EvaluationError(
            f"{kind} of label {labels[column]} for record {records[row]} is {array[row, column]}, "
            f"expected {limit}; {int((~good).sum())} values are wrong",
            remedy="pass probabilities after the sigmoid, and targets of 0 and 1, NaN if unknown"
            if is_bounded
            else "pass finite numbers",
        )
    return numbers


def _is_csv(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".pq", ".csv"):
        raise EvaluationError(
            f"{path}: a predictions table ends in .parquet, .pq or .csv, not in {suffix!r}",
            remedy="name the file predictions.parquet (keeps the metadata) or predictions.csv",
        )
    return suffix == ".csv"


def _read_csv(path: Path) -> pa.Table:
    # Names may look like numbers.
    types = dict.fromkeys(("record", "patient"), pa.string())
    return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=types))


def _check_columns(
    table: pa.Table, labels: Sequence[str], targets: Sequence[str], path: Path, predicted: str
) -> None:
    every = dict.fromkeys([*labels, *targets] or ["LABEL"])
    kinds = (predicted, TARGET) if targets else (predicted,)
    expected = ["record", "patient", *(kind + label for kind in kinds for label in every)]
    missing = [name for name in expected if name not in table.column_names]
    if missing:
        raise EvaluationError(
            f"{path}: the columns {listed(missing)} are missing",
            remedy="add a probability column for every label, target columns for all labels or "
            "none, and record and patient (empty if unknown)",
        )
    _refuse_repeats(table.column_names, "column")


def _matrix(table: pa.Table, kind: str, labels: Sequence[str], path: Path) -> NDArray[np.float64]:
    columns = {kind + label: table[kind + label].to_numpy() for label in labels}
    texts = [name for name, values in columns.items() if values.dtype.kind not in "biuf"]
    if texts:
        raise EvaluationError(
            f"{path}: the columns {listed(texts)} hold values that are not numbers",
            remedy="fill empty cells and remove text from these columns",
        )
    return np.column_stack(list(columns.values())).astype(np.float64)
