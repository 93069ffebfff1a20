"""Labels of a table of reports, by a pattern file (`einthoven.cohorts.report_patterns`).

A record has the best of its report's phrases, and what they imply: a positive phrase of a label
before an uncertain one, and an uncertain before a negated one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from einthoven.cohorts.mimic_iv_ecg import RECORDS
from einthoven.cohorts.report_patterns import Hit, Patterns, spelt
from einthoven.cohorts.table import NOT_LABELS
from einthoven.errors import CohortError
from einthoven.files import read_table, write_text

UNCERTAIN = ("positive", "unknown", "negative")
"""What an uncertain phrase counts as."""
LONGEST = 10_000
"""Characters of a line."""
_STATES = ("positive", "uncertain", "negated")  # of a phrase, the best first

# Names of the same columns in published tables.
_COLUMNS = {
    "path": ("filename_lr", "filename_hr"),
    "patient": ("patient_id", "subject_id"),
    "record": ("ecg_id", "study_id"),
    "fold": ("strat_fold",),
}
_LINES = re.compile(r"report_\d+")
_TEXTS = ("report", "text")


@dataclass(frozen=True)
class ReportLabels:
    """Labels of the records of a table.

    Attributes
    ----------
    table : DataFrame
        The table's columns of a cohort (`path`, `patient`, ...) and a column a label: 1, 0, or NaN
        where it is not known. A record without a report has no known label.
    counts : DataFrame
        By label, the number of records in which it is `positive`, `uncertain` or `negated`.
    phrases : DataFrame
        A row for each label that a record mentions: `record`, `label`, `state`, the `phrase` that
        fired, the `cue` that made it uncertain or negated, and the `line`.
    unmatched : DataFrame
        `phrase` without a label, and the number of `records` with it, most frequent first.
    texts, without_match : int
        Records with a report, and those of them that mention no label.
    """

    table: pd.DataFrame
    counts: pd.DataFrame
    phrases: pd.DataFrame
    unmatched: pd.DataFrame
    texts: int
    without_match: int

    def write(self, out: Path, reports: Path) -> list[Path]:
        """Write the table, and `.phrases.csv` and `.unmatched.csv` beside it.

        Paths of ECG files are relative to the table that holds them: they are rewritten if `out` is
        in another folder than `reports`.

        Raises
        ------
        CohortError
            If `out` is no .csv file, or is `reports`.
        """
        if out.suffix != ".csv" or out.resolve() == reports.resolve():
            raise CohortError(
                f"{out}: the labels are written to a .csv file of their own",
                remedy="name another file, `out=labels.csv`",
            )
        table, source, folder = self.table, reports.parent.resolve(), out.parent.resolve()
        if "path" in table and source != folder:
            paths = [
                path if pd.isna(path) else _moved(path, source, folder) for path in table["path"]
            ]
            table = table.assign(path=paths)
        files = {
            out: table,
            out.with_suffix(".phrases.csv"): self.phrases,
            out.with_suffix(".unmatched.csv"): self.unmatched,
        }
        for file, frame in files.items():
            write_text(file, frame.to_csv(index=False))
        return list(files)


def _moved(path: str, source: Path, folder: Path) -> str:
    return path if Path(path).is_absolute() else os.path.relpath(source / path, folder)


def read_reports(file: Path) -> pd.DataFrame:
    """Read a table of reports, with the names of a cohort's columns.

    `patient_id` and `subject_id` are `patient`, `ecg_id` and `study_id` are `record`, `strat_fold`
    is `fold`; `filename_lr` is `path`, or `filename_hr` if only its files are there. The paths of
    MIMIC-IV-ECG are in `record_list.csv` beside its reports.

    Raises
    ------
    CohortError
        If the table cannot be read.
    """
    names = [name for names in _COLUMNS.values() for name in names]
    text = ["path", "patient", "record", *names[:-1]]
    frame = read_table(file, CohortError, text=text)
    listing = file.parent / RECORDS
    if "study_id" in frame and "path" not in frame and listing.is_file():
        paths = read_table(listing, CohortError, text=text)
        if {"study_id", "path"} <= set(paths) and paths["study_id"].is_unique:
            frame = frame.merge(paths[["study_id", "path"]], on="study_id", how="left")
    for name, others in _COLUMNS.items():
        present = [other for other in others if other in frame]
        if name == "path":
            present.sort(key=lambda other: not _has_file(file.parent, frame[other]))
        if name not in frame and present:
            frame = frame.rename(columns={present[0]: name})
    return frame


def _has_file(folder: Path, paths: Any) -> bool:
    """Whether the first record of a column of WFDB's names has its header."""
    return any((folder / f"{path}.hea").is_file() for path in paths.head(1))


def label_reports(
    reports: pd.DataFrame,
    patterns: Patterns,
    *,
    columns: Sequence[str] = (),
    uncertain: str | None = None,
) -> ReportLabels:
    """Label reports by a pattern file.

    Parameters
    ----------
    reports : DataFrame
        One row for each record.
    patterns : Patterns
    columns : sequence of str
        Columns of text. Default: `report_0`, `report_1`, ..., else `report` or `text`.
    uncertain : {"positive", "unknown", "negative"}, optional
        Instead of that of the pattern file.

    Raises
    ------
    CohortError
        For missing columns, a line of more than 10,000 characters, or if no report mentions any
        label.
    """
    meaning = uncertain or patterns.uncertain
    if meaning not in UNCERTAIN:
        raise CohortError(f"uncertain = {meaning!r}", remedy=f"use {', '.join(UNCERTAIN)}")
    texts = _text_columns(reports, columns)
    key = next((name for name in ("record", "path") if name in reports), None)
    keys = list(reports.index + 1 if key is None else reports[key])
    tally = _Tally([label.name for label in patterns.labels], meaning, len(reports))
    read, lines_of = cache(patterns.read), cache(spelt)  # statements of machines repeat
    for row, cells in enumerate(zip(*(reports[name] for name in texts), strict=True)):
        lines = [line for cell in cells if isinstance(cell, str) for line in lines_of(cell)]
        if not lines:
            continue
        _check_lengths(lines, row)
        best = _best({line: read(line)[0] for line in lines}, patterns)
        tally.add(row, keys[row], best, {part for line in lines for part in read(line)[1]})
    if not tally.phrases:
        raise CohortError(
            f"no phrase of the {len(tally.names)} labels occurs in {tally.texts:,} reports of the "
            f"columns {', '.join(texts)}",
            remedy="use patterns of the language of the reports, and name their columns: "
            "`columns=...`",
        )
    records = reports[[name for name in NOT_LABELS if name in reports]]
    return tally.labels(records, key or "row")


class _Tally:
    """Labels and phrases of the reports read so far.

    Parameters
    ----------
    names : list of str
        Labels.
    uncertain : {"positive", "unknown", "negative"}
        What an uncertain phrase counts as.
    records : int
        Rows of the table of reports.
    """

    def __init__(self, names: list[str], uncertain: str, records: int) -> None:
        self.names = names
        self.uncertain = uncertain
        self.values = np.full((records, len(names)), np.nan, dtype=np.float32)
        self.phrases: list[tuple[object, ...]] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.unmatched: Counter[str] = Counter()
        self.texts = 0
        self.without_match = 0

    def add(
        self, row: int, key: object, best: Mapping[str, tuple[Hit, str]], unmatched: set[str]
    ) -> None:
        """Count a report: its best phrases by label (`_best`), and its parts that have none."""
        self.texts += 1
        self.without_match += not best
        self.unmatched.update(unmatched)
        states = [best[name][0].state if name in best else "" for name in self.names]
        self.values[row] = [_value(state, self.uncertain) for state in states]
        for name, (hit, line) in best.items():
            self.counts[name, hit.state] += 1
            self.phrases.append((key, name, hit.state, hit.phrase, hit.cue, line))

    def labels(self, records: pd.DataFrame, key: str) -> ReportLabels:
        """Result, with the columns of `records`; `key` names the column of the phrases' records."""
        values = pd.DataFrame(self.values, columns=self.names).astype("Int8")
        return ReportLabels(
            table=pd.concat([records.reset_index(drop=True), values], axis=1),
            counts=pd.DataFrame(
                [[self.counts[name, state] for state in _STATES] for name in self.names],
                index=pd.Index(self.names, name="label"),
                columns=list(_STATES),
            ),
            phrases=pd.DataFrame(
                self.phrases, columns=[key, "label", "state", "phrase", "cue", "line"]
            ),
            unmatched=pd.DataFrame(
                # Equal numbers in alphabetical order: `most_common` keeps the dictionary's order.
                Counter(dict(sorted(self.unmatched.items()))).most_common(),
                columns=["phrase", "records"],
            ),
            texts=self.texts,
            without_match=self.without_match,
        )


def _check_lengths(lines: Sequence[str], row: int) -> None:
    for line in lines:
        if len(line) > LONGEST:
            raise CohortError(
                f"row {row + 1}: a line of {len(line):,} characters; a report has at most "
                f"{LONGEST:,}",
                remedy="name the column of the report: `columns=['NAME']`",
            )


def _text_columns(reports: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    if missing := [name for name in columns if name not in reports]:
        raise CohortError(
            f"columns {missing} are missing; the table has {list(reports.columns[:12])}",
            remedy="name a column of the table",
        )
    if columns:
        return list(columns)
    lines = [str(name) for name in reports if _LINES.fullmatch(str(name))]
    if lines:
        return sorted(lines, key=lambda name: int(name.rpartition("_")[2]))
    if texts := [name for name in _TEXTS if name in reports]:
        return texts[:1]
    raise CohortError(
        f"no column of text: the table has {list(reports.columns[:12])}",
        remedy="name the column of the reports: `columns=['NAME']`",
    )


def _best(hits: Mapping[str, Sequence[Hit]], patterns: Patterns) -> dict[str, tuple[Hit, str]]:
    """By label, the most certain phrase of a record, with its line; `hits` are those by line."""
    best: dict[str, tuple[Hit, str]] = {}
    for line, hits_of_line in hits.items():
        for hit in hits_of_line:
            above = patterns.implied[hit.label] if hit.state != "negated" else ()
            for name in (hit.label, *above):
                former = best.get(name)
                if former is None or _STATES.index(hit.state) < _STATES.index(former[0].state):
                    best[name] = hit, line
    return best


def _value(state: str, uncertain: str) -> float:
    if state != "uncertain":
        return float(state == "positive")
    return {"positive": 1.0, "unknown": np.nan, "negative": 0.0}[uncertain]
