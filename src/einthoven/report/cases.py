"""Single records of a run: example ECGs, and every wrong call.

A label is called present where its probability, calibrated if temperatures were fitted, reaches
its threshold. Out-of-fold predictions are calibrated, and called, as in the evaluation of the run:
by a calibration that was fitted on the other folds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError, EvaluationError, PreparationError, RecordError
from einthoven.evaluate.reliability import calibrated, is_recalibrated
from einthoven.files import CONFIG_FILE, Json, read_json, replacing
from einthoven.predictions import Calibration, Predictions
from einthoven.predictions.table import run_table
from einthoven.records import read_record
from einthoven.records.quality import findings, warnings
from einthoven.records.record import Record
from einthoven.report.format import without_folder

if TYPE_CHECKING:
    from einthoven.explain import Attribution, Shares

EXAMPLES = 2
"""Example ECGs of each kind."""
MOST_DRAWINGS = 24
"""Most records with wrong calls that a page draws."""
FEWEST_LABELS = 6
"""Labels of an example with the highest probabilities; called and true ones are always shown."""
MISSED, FALSE_ALARM, HIT = "missed", "false alarm", "hit"
WRONG, RIGHT = "wrong class", "right class"
OVER, UNDER, CLOSE = "overestimate", "underestimate", "close estimate"
_MARGIN = 1e-9  # probabilities and thresholds of 0 and 1 have no logit

Reader = Callable[[int], Record | None]
"""Function from a row of a table to its record; None where it cannot be read."""
Explain = Callable[[Record, str], "tuple[Attribution, Shares]"]
"""Function from a record and a label to the attribution of the label, and its shares."""


@dataclass(frozen=True, eq=False)
class Calls:
    """Calls of a run on its test records.

    Attributes
    ----------
    table : Predictions
        As the calls are made by, with targets.
    thresholds : array of float64, shape (records, labels)
        NaN for labels without a threshold, which are neither right nor wrong.
    is_recalibrated : bool
        Whether the probabilities are calibrated ones; False if only thresholds were fitted.
    """

    table: Predictions
    thresholds: NDArray[np.float64]
    is_recalibrated: bool

    @property
    def called(self) -> NDArray[np.bool_]:
        """Labels that are called present, shape (records, labels)."""
        return np.asarray(self.table.probabilities >= self.thresholds)

    def of_kind(self, kind: str) -> list[tuple[int, int]]:
        """Record and label of every call of a kind, the most confident of each label first.

        Confidence is the distance of the probability from the threshold, on the logit scale. The
        first calls of all labels come before the second ones, so that a common label leaves room
        for rare ones.
        """
        truth, called = self.table.require_targets() == 1, self.called
        absent = self.table.require_targets() == 0
        calls = {MISSED: truth & ~called, FALSE_ALARM: absent & called, HIT: truth & called}[kind]
        rows, columns = np.nonzero(calls & np.isfinite(self.thresholds))
        inside = np.clip([self.table.probabilities, self.thresholds], _MARGIN, 1 - _MARGIN)
        distance = np.abs(np.subtract(*logit(inside)))[rows, columns]
        frame = pd.DataFrame({"row": rows, "column": columns, "distance": -distance})
        frame = frame.sort_values(["distance", "row"], kind="stable")
        frame["place"] = frame.groupby("column").cumcount()
        frame = frame.sort_values(["place", "distance", "row"], kind="stable")
        return list(zip(frame["row"].tolist(), frame["column"].tolist(), strict=True))

    def names(self, row: int) -> Json:
        """Row of the table, and names of its record and patient; a path loses its folders."""
        return _names(self.table, row)

    def describe(self, row: int, column: int) -> Json:
        """One call, in numbers and words."""
        target = self.table.require_targets()[row, column]
        truth = bool(target == 1)
        threshold = float(self.thresholds[row, column])
        has_threshold, called = np.isfinite(threshold), bool(self.called[row, column])
        words = {(True, True): HIT, (True, False): MISSED, (False, True): FALSE_ALARM}
        return {
            "label": self.table.labels[column],
            "call": words.get((truth, called), "correct")
            if has_threshold and not np.isnan(target)
            else None,
            "probability": float(self.table.probabilities[row, column]),
            "threshold": threshold if has_threshold else None,
            "predicted": _word(called) if has_threshold else None,
            "truth": "not known" if np.isnan(target) else _word(truth),
        }


def calls_of(folder: Path, table: Predictions) -> Calls | None:
    """Calls of a run, by its predictions; None without a model that has thresholds."""
    file = folder / "model" / CONFIG_FILE
    calibration = read_json(file).get("calibration") if file.is_file() else None
    if calibration is None or table.form != "labels":
        return None
    folds: NDArray[np.intp] | None = None
    if "folds" in table.metadata:
        tables = sorted(folder.glob("folds/*/predictions/test.parquet"))
        parts = [
            np.isin(table.records, run_table(part.parent.parent, "test").records) for part in tables
        ]
        if not parts or not np.any(parts, axis=0).all():
            return None  # the folds were deleted, and with them the fold of each record
        folds = np.argmax(parts, axis=0)
    values, thresholds = calibrated(table, Calibration(**calibration), folds)
    return Calls(replace(table, probabilities=values), thresholds, is_recalibrated(table, values))


def reader_of(cohort: Cohort | None, records: NDArray[np.str_]) -> Reader:
    """Reader of the records of a table; without a cohort it reads none.

    A record cannot be read where only the store holds its signal. Raises CohortError if a record is
    not in the cohort.
    """
    if cohort is None:
        return lambda row: None
    paths = dict(zip(cohort.ids(), cohort.paths(), strict=True))
    if absent := [str(name) for name in records if name not in paths]:
        raise CohortError(
            f"record {absent[0]} of the predictions is not in {cohort.name}",
            remedy="use the cohort that the run was tested on",
        )

    def read(row: int) -> Record | None:
        try:
            return read_record(paths[records[row]], root=cohort.root)
        except RecordError:
            return None

    return read


class _Pick(NamedTuple):
    """Candidate for an example: its kind, row, the label to explain, and a title."""

    kind: str
    row: int
    label: str
    title: str


def examples_of(table: Predictions, calls: Calls | None, read: Reader) -> list[tuple[Json, Record]]:
    """Example ECGs, the most telling ones of each kind.

    Of labels, missed ones first, then false alarms and hits, the most confident of each; of
    classes, wrong ones and right ones, the most confident of each; of numbers, the largest
    overestimates and underestimates, and the closest estimates.
    """
    if table.form == "classes":
        picks, answers = _class_picks(table), _class_answers
    elif table.form == "values":
        picks, answers = _value_picks(table), _value_answers
    elif calls is None:
        return []
    else:
        picks = [
            _Pick(kind, row, label := table.labels[column], f"{kind.capitalize()}: {label}")
            for kind in (MISSED, FALSE_ALARM, HIT)
            for row, column in calls.of_kind(kind)
        ]
    examples: dict[int, tuple[Json, Record]] = {}
    count: Counter[str] = Counter()
    for kind, row, label, title in picks:
        if count[kind] == EXAMPLES or row in examples or (record := read(row)) is None:
            continue
        count[kind] += 1
        if calls is not None:
            rows = [calls.describe(row, place) for place in _columns(calls, row)]
        else:
            rows = answers(table, row)
        entry = example(record, title, _names(table, row), rows)
        examples[row] = entry | {"kind": kind, "label": label}, record
    return list(examples.values())


def _class_picks(table: Predictions) -> list[_Pick]:
    """Wrong classes, then right ones, the most confident first; the predicted one is explained."""
    targets, shares = table.require_targets(), table.probabilities
    predicted = shares.argmax(axis=1)
    is_right = np.asarray(targets.argmax(axis=1) == predicted)
    is_known = np.asarray(np.isfinite(targets).all(axis=1))
    picks = []
    for row in np.argsort(-shares.max(axis=1), kind="stable").tolist():
        if is_known[row]:
            label = table.labels[predicted[row]]
            truth = table.labels[int(targets[row].argmax())]
            title = f"Right class: {label}" if is_right[row] else f"{label} in place of {truth}"
            picks.append(_Pick(RIGHT if is_right[row] else WRONG, row, label, title))
    return sorted(picks, key=lambda pick: pick.kind == RIGHT)


def _class_answers(table: Predictions, row: int) -> list[Json]:
    """The most probable classes of a record, and the true one."""
    order = np.argsort(-table.probabilities[row], kind="stable").tolist()
    target = table.require_targets()[row]
    return [
        {
            "label": table.labels[column],
            "probability": float(table.probabilities[row, column]),
            "predicted": _word(place == 0),
            "truth": _word(bool(target[column] == 1)),
        }
        for place, column in enumerate(order)
        if place < FEWEST_LABELS or target[column] == 1
    ]


def _value_picks(table: Predictions) -> list[_Pick]:
    """Records by their error, relative to the spread of the target."""
    targets = table.require_targets()
    errors = (table.probabilities - targets) / np.nanstd(targets, axis=0).clip(_MARGIN)
    orders = {OVER: -errors, UNDER: errors, CLOSE: np.abs(errors)}
    picks = []
    for kind, values in orders.items():
        places = np.argsort(values, axis=None, kind="stable")  # NaN last
        for row, column in zip(*np.unravel_index(places, values.shape), strict=True):
            sign = errors[row, column]
            if np.isfinite(sign) and (kind == CLOSE or (sign > 0) == (kind == OVER)):
                label = table.labels[column]
                picks.append(_Pick(kind, int(row), label, f"{kind.capitalize()}: {label}"))
    return picks


def _value_answers(table: Predictions, row: int) -> list[Json]:
    """Every number of a record, predicted and true."""
    values, truths = table.probabilities[row].tolist(), table.require_targets()[row].tolist()
    return [
        {"label": label, "value": value, "truth": truth, "error": value - truth}
        for label, value, truth in zip(table.labels, values, truths, strict=True)
    ]


def explain_examples(
    examples: Sequence[Json], records: Sequence[Record], explain: Explain
) -> dict[int, Attribution]:
    """Explain the first example of each kind, and return the attributions by row.

    An example gets `explanation`, or `not_explained` with the reason.
    """
    attributions: dict[int, Attribution] = {}
    kinds: set[str] = set()
    for entry, record in zip(examples, records, strict=False):  # records of the gallery follow
        if entry["kind"] in kinds:
            continue
        kinds.add(entry["kind"])
        try:
            attribution, shares = explain(record, entry["label"])
        except (EvaluationError, PreparationError) as error:
            entry["not_explained"] = f"{error.problem} ({error.remedy})"
            continue
        attributions[entry["row"]] = attribution
        entry["explanation"] = {
            "label": entry["label"],
            "method": attribution.method,
            "words": shares.in_words(),
            "against": shares.against,
            "by_lead": shares.by_lead,
            "completeness_error": attribution.completeness_error,
        }
    return attributions


def example(record: Record, title: str, names: Json, labels: Sequence[Json]) -> Json:
    """Describe an ECG with the calls of some labels, classes or numbers, and `Calls.names`."""
    return names | {
        "title": title,
        "rate": record.rate,
        "seconds": record.duration,
        "leads": list(record.leads),
        "source_hash": record.source_hash,
        "quality": "; ".join(warnings(findings(record))),
        "labels": list(labels),
    }


def gallery_of(
    calls: Calls, read: Reader, examples: Container[int] = ()
) -> tuple[Json, list[Record]]:
    """Every wrong call, missed labels first, and the ECGs of the first records with one.

    Records in the rows of `examples` are not drawn again. The signal quality is None where an ECG
    is not read.
    """
    errors: list[Json] = []
    errors_by_row: dict[int, list[Json]] = {}
    for kind in (MISSED, FALSE_ALARM):
        for row, column in calls.of_kind(kind):
            errors.append(calls.names(row) | calls.describe(row, column) | {"quality": None})
            errors_by_row.setdefault(row, []).append(errors[-1])
    drawings: list[Json] = []
    records: list[Record] = []
    for row, entries in errors_by_row.items():
        if (record := read(row)) is None:
            continue
        quality = "; ".join(warnings(findings(record)))
        for entry in entries:
            entry["quality"] = quality
        if row not in examples and len(drawings) < MOST_DRAWINGS:
            drawings.append(calls.names(row) | {"quality": quality, "errors": entries})
            records.append(record)
    has_threshold = np.isfinite(calls.thresholds)
    gallery = {
        "labels": int(has_threshold.any(axis=0).sum()),
        "pairs": int(has_threshold.sum()),
        "missed": sum(error["call"] == MISSED for error in errors),
        "false_alarms": sum(error["call"] == FALSE_ALARM for error in errors),
        "records": len(errors_by_row),
        "errors": errors,
        "drawn": drawings,
    }
    return gallery, records


def wrong_classes(table: Predictions) -> list[Json]:
    """Records whose most probable class is not the true one, the most confident ones first."""
    targets, shares = table.require_targets(), table.probabilities
    rows = np.flatnonzero(~np.isnan(targets).any(axis=1))
    truth, predicted = targets.argmax(axis=1), shares.argmax(axis=1)
    wrong = rows[truth[rows] != predicted[rows]]
    order = np.argsort(-shares[wrong, predicted[wrong]], kind="stable")
    return [
        _names(table, row)
        | {
            "truth": table.labels[truth[row]],
            "predicted": table.labels[predicted[row]],
            "probability": float(shares[row, predicted[row]]),
            "probability_of_truth": float(shares[row, truth[row]]),
        }
        for row in wrong[order].tolist()
    ]


def _names(table: Predictions, row: int) -> Json:
    record, patient = str(table.records[row]), str(table.patients[row])
    if patient == record:
        patient = without_folder(patient)
    return {"row": row, "record": without_folder(record), "patient": patient}


CALL_COLUMNS = (
    "record", "patient", "label", "call", "truth", "probability", "threshold", "quality",
)  # fmt: skip
CLASS_COLUMNS = ("record", "patient", "truth", "predicted", "probability", "probability_of_truth")


def write_errors(file: Path, errors: Sequence[Json], columns: Sequence[str] = CALL_COLUMNS) -> None:
    """Write every wrong call, or with `CLASS_COLUMNS` every wrong class, as CSV."""
    with replacing(file) as temporary:
        pd.DataFrame(errors, columns=list(columns)).to_csv(temporary, index=False)


def _columns(calls: Calls, row: int) -> list[int]:
    """Columns of an example, by probability: the most probable labels, called and true ones."""
    is_present = calls.called[row] | (calls.table.require_targets()[row] == 1)
    order = np.argsort(-calls.table.probabilities[row], kind="stable")
    return [int(x) for place, x in enumerate(order) if place < FEWEST_LABELS or is_present[x]]


def _word(present: bool) -> str:
    return "present" if present else "absent"
