"""The predictions table: record, patient, targets and probabilities, in named columns.

Metrics, comparisons and reports read this table and never see a model. On disk it has the columns
`record` and `patient`, then `target:LABEL` for every label and `probability:LABEL` for every label,
in the order of the labels. Any Parquet or CSV reader opens it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError
from einthoven.files import replacing

TARGET = "target:"
PROBABILITY = "probability:"
METADATA_KEY = b"einthoven.predictions"
SHOWN_NAMES = 5  # in a message


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities of every label for every record, with targets where known.

    Lists and other dtypes are converted and checked once, at construction; the arrays are then
    read-only.

    Parameters
    ----------
    labels : tuple of str
        Label names, in the order of the columns of `targets` and `probabilities`.
    records : array of str, shape (records,)
        Unique record names.
    patients : array of str, shape (records,)
        Patient of each record; the empty string where it is unknown.
    targets : array of uint8, shape (records, labels), or None
        1 where the label holds, 0 where it does not; None if unknown.
    probabilities : array of float64, shape (records, labels)
        In [0, 1].
    metadata : mapping of str to str
        Origin of the predictions. Parquet keeps it, CSV does not.

    Raises
    ------
    EvaluationError
        If shapes disagree, labels or records repeat, a target is not 0 or 1, or a probability is
        not finite or outside [0, 1]; the message names label and record.
    """

    labels: tuple[str, ...]
    records: NDArray[np.str_]
    patients: NDArray[np.str_]
    targets: NDArray[np.uint8] | None
    probabilities: NDArray[np.float64]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = checked_labels(self.labels)
        records = _names(self.records, "records")
        _refuse_repeats(records.tolist(), "record")
        patients = _names(self.patients, "patients")
        _refuse_length(patients, records.size, "patients")
        probabilities = checked_probabilities(self.probabilities, labels, records.tolist())
        _refuse_length(probabilities, records.size, "rows of probabilities")
        targets = self.targets
        if targets is not None:
            targets = checked_targets(targets, labels, records.tolist())
            _refuse_length(targets, records.size, "rows of targets")
        checked = (labels, records, patients, targets, probabilities, dict(self.metadata))
        for name, value in zip(self.__dataclass_fields__, checked, strict=True):
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return int(self.records.size)

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

    def require_targets(self) -> NDArray[np.uint8]:
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
        counts = self.require_targets().sum(axis=0, dtype=np.int64)
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

        Both formats keep every bit of a probability; CSV loses the metadata.

        Raises
        ------
        EvaluationError
            If the suffix is not .parquet, .pq or .csv.
        """
        path = Path(path)
        suffix = _suffix(path)
        with replacing(path) as temporary:
            if suffix == ".csv":
                pd.DataFrame(self._columns()).to_csv(temporary, index=False)
            else:
                table = pa.table(self._columns())
                stored = {METADATA_KEY: json.dumps(dict(self.metadata)).encode()}
                pq.write_table(table.replace_schema_metadata(stored), temporary)

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read a table written by `save` or by another program.

        The order of the labels is that of the probability columns. The table has targets for all
        labels or for none.

        Raises
        ------
        EvaluationError
            If the file is missing or has another suffix, or columns are missing, repeated or not
            numeric; the message names them.
        """
        path = Path(path)
        reader = _read_csv if _suffix(path) == ".csv" else _read_parquet
        if not path.is_file():
            raise EvaluationError(f"{path}: no such predictions table", remedy="check the path")
        columns, metadata = reader(path)
        labels, has_targets = _labels_of(columns, path)
        return cls(
            labels=labels,
            records=_names(columns["record"].to_numpy(), "records"),
            patients=_names(columns["patient"].to_numpy(), "patients"),
            targets=_matrix(columns, TARGET, labels, path) if has_targets else None,  # type: ignore[arg-type]
            probabilities=_matrix(columns, PROBABILITY, labels, path),
            metadata=metadata,
        )

    def _columns(self) -> dict[str, list[str] | NDArray[np.generic]]:
        columns: dict[str, list[str] | NDArray[np.generic]] = {
            "record": self.records.tolist(),
            "patient": self.patients.tolist(),
        }
        if self.targets is not None:
            columns |= {TARGET + s: self.targets[:, i] for i, s in enumerate(self.labels)}
        return columns | {
            PROBABILITY + s: self.probabilities[:, i] for i, s in enumerate(self.labels)
        }


def listed(names: Sequence[object]) -> str:
    """Join the first few names for a message, with the number of the others."""
    shown = ", ".join(str(name) for name in names[:SHOWN_NAMES])
    more = len(names) - SHOWN_NAMES
    return shown if more <= 0 else f"{shown} and {more} more"


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Check that label names are unique non-empty strings; return them as a tuple."""
    if isinstance(labels, str):
        raise EvaluationError(
            f"labels = {labels!r} is one string, not a sequence of names",
            remedy=f"pass a sequence of label names, for one label [{labels!r}]",
        )
    names = tuple(labels)
    wrong = [name for name in names if not isinstance(name, str) or not name]
    if wrong or not names:
        raise EvaluationError(
            f"label names must be non-empty strings, got {wrong or names!r}",
            remedy="pass the label names in the order of the columns",
        )
    _refuse_repeats(names, "label")
    return tuple(str(name) for name in names)


def checked_targets(
    targets: ArrayLike, labels: Sequence[str], records: Sequence[str] | None = None
) -> NDArray[np.uint8]:
    """Check that targets are 0 or 1; return a new uint8 array of shape (records, labels)."""
    values = _numbers(targets, labels, "targets")
    _refuse_values((values != 0) & (values != 1), values, "target", "0 or 1", labels, records)
    return values.astype(np.uint8)


def checked_probabilities(
    probabilities: ArrayLike, labels: Sequence[str], records: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """Check that probabilities are in [0, 1]; return a new float64 array of the same shape."""
    values = _numbers(probabilities, labels, "probabilities").astype(np.float64)
    # Written so that NaN fails the comparison.
    wrong = ~((values >= 0) & (values <= 1))
    _refuse_values(wrong, values, "probability", "a number from 0 to 1", labels, records)
    return values


def _numbers(values: ArrayLike, labels: Sequence[str], kind: str) -> NDArray[np.generic]:
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] != len(labels) or not array.shape[0]:
        raise EvaluationError(
            f"{kind} have shape {array.shape}, expected (records, {len(labels)}) "
            f"for the {len(labels)} labels {listed(list(labels))}",
            remedy="pass one row for each record and one column for each label",
        )
    if array.dtype.kind not in "biuf":
        raise EvaluationError(
            f"{kind} have dtype {array.dtype}, expected numbers",
            remedy="convert them to integers or floats",
        )
    return array


def _refuse_values(
    wrong: NDArray[np.bool_],
    values: NDArray[np.generic],
    kind: str,
    limit: str,
    labels: Sequence[str],
    records: Sequence[str] | None,
) -> None:
    if not wrong.any():
        return
    row, column = np.argwhere(wrong)[0]
    record = f"row {row}" if records is None or len(records) <= row else f"record {records[row]}"
    raise EvaluationError(
        f"{kind} of label {labels[column]} for {record} is {values[row, column]}, expected "
        f"{limit}; {int(wrong.sum())} values are wrong",
        remedy="pass probabilities after the sigmoid, and targets of 0 and 1, without gaps",
    )


def _names(values: ArrayLike, kind: str) -> NDArray[np.str_]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "UOiu":
        raise EvaluationError(
            f"{kind} have shape {array.shape} and dtype {array.dtype}, expected names (records,)",
            remedy="pass one name for each record",
        )
    if array.dtype.kind == "O":  # a missing value is unknown, not a patient called "nan"
        array = np.where(pd.isna(array), "", array)
    return array.astype(np.str_)


def _refuse_length(array: NDArray[np.generic], expected: int, kind: str) -> None:
    if len(array) != expected:
        raise EvaluationError(
            f"there are {expected} records but {len(array)} {kind}",
            remedy="pass one of each for every record, in the same order",
        )


def _refuse_repeats(names: Sequence[str], kind: str) -> None:
    if len(set(names)) == len(names):
        return
    unique, counts = np.unique(np.asarray(names, dtype=np.str_), return_counts=True)
    repeated = unique[counts > 1].tolist()
    raise EvaluationError(
        f"{len(repeated)} {kind} names occur more than once: {listed(repeated)}",
        remedy=f"keep one {'column' if kind == 'label' else 'row'} for each {kind}",
    )


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".pq", ".csv"):
        raise EvaluationError(
            f"{path}: a predictions table ends in .parquet, .pq or .csv, not in {suffix!r}",
            remedy="name the file predictions.parquet (keeps the metadata) or predictions.csv",
        )
    return suffix


def _read_parquet(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    try:
        table = pq.read_table(path)
        metadata = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    except (pa.ArrowException, ValueError, OSError) as error:
        raise EvaluationError(
            f"{path}: not a readable Parquet file: {error}", remedy="write the table again"
        ) from error
    _refuse_columns(table.column_names, path)
    return table.to_pandas(), metadata


def _read_csv(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
    # pandas would rename repeated columns, so the header is checked first.
    _refuse_columns(header, path)
    try:
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(("record", "patient"), str),
            keep_default_na=False,
        )
    except ValueError as error:
        raise EvaluationError(
            f"{path}: not a readable CSV file: {error}", remedy="write the table again"
        ) from error
    return frame, {}


def _refuse_columns(names: Sequence[str], path: Path) -> None:
    missing = [name for name in ("record", "patient") if name not in names]
    if missing:
        raise EvaluationError(
            f"{path}: the columns {listed(missing)} are missing",
            remedy="add them; an unknown patient is an empty string",
        )
    _refuse_repeats(names, "column")


def _labels_of(columns: pd.DataFrame, path: Path) -> tuple[tuple[str, ...], bool]:
    labels = {
        prefix: [
            str(name)[len(prefix) :] for name in columns.columns if str(name).startswith(prefix)
        ]
        for prefix in (TARGET, PROBABILITY)
    }
    missing = [PROBABILITY + name for name in labels[TARGET] if name not in labels[PROBABILITY]]
    if labels[TARGET]:
        missing += [TARGET + name for name in labels[PROBABILITY] if name not in labels[TARGET]]
    if missing or not labels[PROBABILITY]:
        raise EvaluationError(
            f"{path}: the columns {listed(missing or [PROBABILITY + 'LABEL'])} are missing",
            remedy="add a probability column for every label, and target columns for all or none",
        )
    return tuple(labels[PROBABILITY]), bool(labels[TARGET])


def _matrix(
    columns: pd.DataFrame, kind: str, labels: Sequence[str], path: Path
) -> NDArray[np.float64]:
    frame = columns[[kind + label for label in labels]]
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    if texts:
        raise EvaluationError(
            f"{path}: the columns {listed(texts)} hold values that are not numbers",
            remedy="fill empty cells and remove text from these columns",
        )
    return frame.to_numpy(dtype=np.float64)
