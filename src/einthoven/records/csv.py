"""Delimited text (.csv, .tsv), with a sidecar: a column a lead, or a row a lead.

A comma is the decimal point where it does not separate columns, as spreadsheets write it in most of
Europe.
"""

from __future__ import annotations

import codecs
import io
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import RecordError
from einthoven.records.file import EcgFile
from einthoven.records.lead_codes import lead_of_text
from einthoven.records.record import Record, canonical_lead
from einthoven.records.sidecar import (
    Sidecar,
    complete_sidecar,
    record_of,
    sidecar_of,
    sidecar_path,
    source_hash,
)

_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "milliseconds"), 1e3),
    **dict.fromkeys(("us", "\N{MICRO SIGN}s", "\N{GREEK SMALL LETTER MU}s", "microseconds"), 1e6),
    **dict.fromkeys(("ns", "nanoseconds"), 1e9),
}  # of time, in a second
_UNIT = "|".join(_UNITS)
_TIME = re.compile(
    rf"(elapsed )?((time|t)([ _.]({_UNIT}))?|samples?|index|n|no|{_UNIT}|#)?", re.IGNORECASE
)
_SIGNAL = re.compile(r"(ecg|ekg|signal|voltage|amplitude|lead|ch|channel)[ _]?\w*", re.IGNORECASE)
_BRACKETS = re.compile(r"\s*[\[(](.*)[\])]\s*$")
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
_DECIMAL = {
    mark: re.compile(
        rf"(?<!\d)0*[{mark}]|\d{{4}}[{mark}]|[{mark}]\d{{0,2}}(?!\d)|[{mark}]\d{{4}}|\d[eE][-+]?\d"
    )
    for mark in ",."
}  # numbers whose comma or point separates no thousands
_MARKS = ("", "nan", "NaN", "NAN")  # of a missing sample in any file
_DELIMITERS = (";", "\t", ",", "|")
_WIDE = 512  # columns; more are slow in pandas
_CELLS = 1 << 16
_AROUND = " \t\"'"  # characters that may surround a cell
_STEP = 0.01  # relative deviation of a time column from the rate
_JITTER = 0.25  # of a step, of a single time, beside its rounding
_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16"}
_ENCODINGS[codecs.BOM_UTF16_BE] = "utf-16"


def read(file: EcgFile) -> Record:
    """Read a text of numbers, whose rate, unit and leads a sidecar states.

    A header line with names of leads states the leads. Empty cells, `NaN` and the values of
    `missing` are missing samples; an empty column is no lead of the record. A column of times is
    compared with the rate.

    Raises
    ------
    RecordError
        If something is not stated, a cell is no number, or a line has fewer cells than the others.
    """
    text = _text(file)
    stated = sidecar_of(file)
    layout = _layout(text, stated)
    if layout.is_table:
        raise file.refusal(
            "columns",
            layout.names[:8],
            "are those of a table of ECG files",
            remedy="name an ECG file, or use the table as a cohort",
        )
    sidecar = complete_sidecar(file, columns=[lead for lead in layout.leads if lead])
    columns = _columns(file, layout, sidecar)
    values = _numbers(file, text, layout, sidecar, columns)
    values = _checked_times(file, values, layout, sidecar, columns)
    if columns is not None:
        sidecar = replace(sidecar, leads_in="columns")
    return record_of(
        file,
        values,
        sidecar,
        digest=source_hash(file),
        statements={"left_out": _left_out(layout, columns)} if not stated.leads else None,
    )


def _left_out(layout: _Layout, columns: list[int] | None) -> str:
    """Names of columns that are neither leads nor times."""
    places = set(range(len(layout.names))) - {*(columns or ()), *layout.times}
    return ", ".join(layout.names[x] for x in sorted(places) if columns and layout.names[x])


def members(file: EcgFile) -> list[str]:
    """One record; none for a table that is no ECG, as its first line shows."""
    whole_lines, newline, _ = file.head.rpartition(b"\n")
    head = _decoded(whole_lines if newline else file.head)
    if _layout(head, Sidecar()).is_table:
        return []  # a file beside it may describe the table
    path, sidecar = sidecar_path(file), sidecar_of(file)
    own = path is not None and os.path.splitext(path)[0] == os.path.splitext(file.name)[0]
    return [""] if own or _layout(head, sidecar).is_signal(sidecar) else []


# ---------------------------------------------------------------------- layout


@dataclass(frozen=True)
class _Layout:
    """Layout of a text: delimiter (None: blanks), lines before the samples, names of columns.

    `units` are those in brackets behind the names, in lower case.
    """

    delimiter: str | None
    header: int
    names: tuple[str, ...]
    units: tuple[str, ...] = ()

    @property
    def leads(self) -> list[str]:
        """Lead of each column by its name; empty for a column that is none."""
        return [lead_of_text(name) or "" for name in self.names]

    @property
    def times(self) -> list[int]:
        """Columns of times or sample numbers by their names."""
        return [place for place, name in enumerate(self.names) if _TIME.fullmatch(name)]

    @property
    def is_table(self) -> bool:
        """Whether the columns are those of a table of ECG files (`cohorts.table`)."""
        return "path" in self.names

    def is_signal(self, sidecar: Sidecar) -> bool:
        """Whether the columns may be leads: by their names, those of a sidecar, or without any."""
        if self.is_table or not self.names:
            return not self.is_table
        stated = {canonical_lead(lead) for lead in sidecar.leads or ()} - {""}
        leads = [
            lead or canonical_lead(name) in stated or _SIGNAL.fullmatch(name)
            for lead, name in zip(self.leads, self.names, strict=True)
        ]
        signals = len(list(filter(None, leads)))
        return 2 * (signals + len(self.times)) >= len(self.names) and signals > 0

    def pieces(self, line: str) -> Iterator[list[str]]:
        """Cells of a line, without blanks and quotes, at most 65,536 at a time."""
        rest: list[str] = [line]
        is_plain = not any(mark in line for mark in _AROUND)
        while rest:
            cells = rest[0].split(self.delimiter, _CELLS)
            cells, rest = cells[:_CELLS], cells[_CELLS:]
            yield cells if is_plain else [cell.strip(_AROUND) for cell in cells]

    def cells(self, line: str) -> list[str]:
        """Cells of a line, or the first 65,536 of them."""
        return next(self.pieces(line))

    def width(self, line: str) -> int:
        """Number of cells of a line."""
        if self.delimiter is not None:
            return line.count(self.delimiter) + 1
        return sum(map(len, self.pieces(line)))


def _text(file: EcgFile) -> str:
    text = _decoded(file.content)
    if "\0" in text or not text.strip():
        raise file.refusal(
            "content",
            None,
            "is no text of numbers" if text.strip() else "is empty",
            remedy="export it again as CSV",
        )
    return text


def _decoded(content: bytes) -> str:
    """Text with `\\n` as the end of lines; in Latin-1 if it is neither UTF-8 nor UTF-16."""
    encoding = next((name for bom, name in _ENCODINGS.items() if content.startswith(bom)), "utf-8")
    try:
        even = len(content) // 2 * 2 if encoding == "utf-16" else None  # the head may be cut
        text = content[:even].decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _layout(text: str, sidecar: Sidecar) -> _Layout:
    """Layout of a text: as its sidecar states, else by its first two lines."""
    lines = text.lstrip("\n").split("\n", int(sidecar.header or 1) + 1)
    marks = {*_MARKS, *map(str, sidecar.missing_values)}
    header = sidecar.header
    if header is None:
        first = _Layout(_delimiter(lines[0], sidecar), 0, ()).cells(lines[0])
        # A line with numbers and something else is a damaged one.
        header = any(first) and not any(cell and _is_number(cell, marks) for cell in first)
    sample = lines[header] if int(header) < len(lines) else ""
    layout = _Layout(_delimiter(sample, sidecar), int(header), ())
    width = len(layout.cells(sample))
    rows = (layout.cells(line) for line in lines[: layout.header])
    names = next((cells for cells in rows if len(cells) == width), [])
    if header and not names:
        numbers = sum(not cell or _is_number(cell, marks) for cell in layout.cells(sample))
        if 2 * numbers < width:
            # No samples: a table of texts, in which delimiters are quoted.
            names = _Layout(_delimiter(lines[0], sidecar), 0, ()).cells(lines[0])
    return replace(
        layout,
        names=tuple(map(_without_brackets, names)),
        units=tuple(
            bracket[1].strip().lower() if (bracket := _BRACKETS.search(name)) else ""
            for name in names
        ),
    )


def _without_brackets(name: str) -> str:
    """Name of a column without its unit; the whole of `V4 (V4R)`, which is not V4."""
    plain = _BRACKETS.sub("", name)
    return plain if lead_of_text(plain) == lead_of_text(name) else name


def _delimiter(line: str, sidecar: Sidecar) -> str | None:
    delimiter = next((delimiter for delimiter in _DELIMITERS if delimiter in line), "")
    return (sidecar.delimiter or delimiter).strip(" ") or None


def _is_number(cell: str, marks: set[str]) -> bool:
    return cell in marks or _NUMBER.fullmatch(cell) is not None


def _columns(file: EcgFile, layout: _Layout, sidecar: Sidecar) -> list[int] | None:
    """Columns of the leads; None for all of them.

    Columns are chosen by name where one of the leads is a column, else by their order, without
    columns of times. RecordError if some leads are columns and others are not.
    """
    leads = [canonical_lead(lead) for lead in sidecar.leads or ()]
    names = [lead or name for lead, name in zip(layout.leads, layout.names, strict=True)]
    places = {canonical_lead(name): place for place, name in enumerate(names)}
    absent = [lead for lead in leads if lead not in places]
    twice = [lead for lead in leads if names.count(lead) > 1]
    if twice:
        raise file.refusal(
            "leads", twice, "are several columns each", remedy="give each column another name"
        )
    if not layout.names or sidecar.leads_in == "rows":
        return None
    if not absent:
        return [places[lead] for lead in leads]
    if len(absent) < len(leads):
        raise file.refusal(
            "leads",
            absent,
            f"are no columns; the columns are {', '.join(layout.names[:16])}",
            remedy="name columns in the sidecar, or leave `leads` out",
        )
    return [place for place in range(len(layout.names)) if place not in layout.times]


# ---------------------------------------------------------------------- numbers


def _numbers(
    file: EcgFile, text: str, layout: _Layout, sidecar: Sidecar, columns: list[int] | None
) -> NDArray[Any]:
    """Cells as float64, (lines, columns); of all columns, or of these and of times.

    RecordError for a cell that is no number, or a line with another number of cells.
    """
    body = text.lstrip("\n").split("\n", layout.header)[layout.header :]
    first = body[0].lstrip("\n").partition("\n")[0] if body else ""
    marks = {*_MARKS, *(mark for mark in sidecar.missing_values if isinstance(mark, str))}
    width = layout.width(first)
    _refuse_thousands(file, body[0] if body else "", layout, marks, columns)
    if width > _WIDE:
        return _wide(file, body[0], layout, marks)
    # Imported here because pandas takes 0.5 s.
    import pandas as pd

    selection = sorted(
        range(width) if columns is None else {*columns, *_numeric_times(first, layout)}
    )
    try:
        table = pd.read_csv(
            io.StringIO("".join(body)),
            sep=layout.delimiter or r"\s+",
            header=None,
            usecols=selection,
            dtype=np.float64,
            na_values=list(marks),
            keep_default_na=False,
            decimal="," if layout.delimiter != "," and "," in body[0] else ".",
            skipinitialspace=True,
        )
    except (ValueError, OverflowError, IndexError) as error:
        raise _fault(file, "".join(body), layout, marks, str(error)) from None
    if layout.delimiter is None:
        cells = sum(map(layout.width, filter(None, body[0].split("\n"))))
    else:
        cells = body[0].count(layout.delimiter) + len(table)
    if cells != len(table) * width:  # pandas fills short lines up
        raise _fault(file, body[0], layout, marks)
    values = np.full((len(table), width), np.nan)
    values[:, selection] = table.to_numpy()
    return values


def _refuse_thousands(
    file: EcgFile, body: str, layout: _Layout, marks: set[str], columns: list[int] | None
) -> None:
    """Refuse numbers whose commas or points may separate thousands: `1,234` beside `567`.

    A cell with a leading zero, or another number of digits than three behind its comma, shows that
    commas are decimal. Points are those of thousands only beside whole numbers.
    """
    for mark in ",.":
        if mark == layout.delimiter or mark not in body or re.search(_DECIMAL[mark], body):
            continue
        separated, whole = "", ""
        for line in filter(str.strip, body.split("\n")):
            cells = [cell for piece in layout.pieces(line) for cell in piece]
            selection = cells if columns is None else [cells[x] for x in columns if x < len(cells)]
            for cell in selection:
                if mark in cell:
                    separated = separated or cell
                elif cell not in marks:
                    whole = whole or cell
            if separated and (whole or mark == ","):
                raise file.refusal(
                    "samples",
                    separated,
                    f"beside {whole}: not certain whether {mark!r} separates thousands or decimals"
                    if whole
                    else f"every {mark!r} has three digits behind it: thousands or decimals",
                    remedy="export the numbers without separators of thousands",
                )


def _numeric_times(line: str, layout: _Layout) -> Iterator[int]:
    """Columns of times that are numbers, not clock times, in a line."""
    cells = layout.cells(line)
    return (place for place in layout.times if _NUMBER.fullmatch(cells[place]))


def _wide(file: EcgFile, body: str, layout: _Layout, marks: set[str]) -> NDArray[Any]:
    """Cells of a text with a row a lead: few lines of many cells, slow in pandas."""
    letters = set(f"0123456789+-.,eE{_AROUND}").union(layout.delimiter or "", *marks)
    has_commas = layout.delimiter != ","  # for decimal points
    dotted = {mark.replace(",", ".") for mark in marks} if has_commas else marks
    letterless = dict.fromkeys(map(ord, letters))
    rows = []
    for line in filter(None, body.split("\n")):
        try:
            if line.translate(letterless):  # float() would read `1_0` and `inf` as well
                raise ValueError
            decimals = line.replace(",", ".") if has_commas else line
            rows.append(np.concatenate([_floats(x, dotted) for x in layout.pieces(decimals)]))
        except ValueError:
            raise _fault(file, body, layout, marks) from None
    if len({len(row) for row in rows}) > 1:
        raise _fault(file, body, layout, marks)
    return np.stack(rows)


def _floats(cells: list[str], marks: set[str]) -> NDArray[np.float64]:
    """Numbers of cells, NaN for marks of missing samples. ValueError for anything else."""
    if not any(_NUMBER.fullmatch(mark) for mark in marks):
        try:
            return np.array([float(cell or "nan") for cell in cells])
        except ValueError:
            pass  # there are other marks
    return np.array([np.nan if x in marks else float(x) for x in cells])


def _fault(
    file: EcgFile, body: str, layout: _Layout, marks: set[str], error: str = ""
) -> RecordError:
    """RecordError that names the first line at fault."""
    width = 0
    for number, line in enumerate(body.split("\n"), layout.header + 1):
        if not line.strip():
            continue
        width = width or layout.width(line)
        if layout.width(line) != width:
            return file.refusal(
                f"line {number}",
                layout.width(line),
                f"cells, and {width} in the lines before: cut off, or several tables in one file",
                remedy="export the ECG again",
            )
        bad = next((x for y in layout.pieces(line) for x in y if not _is_number(x, marks)), None)
        if bad is not None:
            return file.refusal(
                f"line {number}",
                bad[:40],
                "is no number",
                remedy="state in the sidecar: the lines in front of the samples (header), or a "
                "text that marks missing samples (missing)",
            )
    return file.refusal(
        "samples", None, f"cannot be read: {error}", remedy="export the ECG again as CSV"
    )


def _checked_times(
    file: EcgFile,
    values: NDArray[Any],
    layout: _Layout,
    sidecar: Sidecar,
    columns: list[int] | None,
) -> NDArray[Any]:
    """Samples without columns of times, after comparing these with the rate and each other.

    RecordError for sample numbers, or times in s, ms, us or ns, that contradict the rate; for rows
    that are missing, repeated or in another order.
    """
    assert sidecar.rate is not None
    is_checked = columns is not None and sidecar.rate > 0
    for place in layout.times if is_checked else ():
        rows = np.flatnonzero(np.isfinite(values[:, place]))
        if len(rows) < 3:
            continue
        times, name = values[rows, place], layout.names[place]
        step = (times[-1] - times[0]) / (rows[-1] - rows[0])
        _refuse_uneven(file, layout, name, rows, times, step)
        words = (layout.units[place], *re.split(r"[ _.]", name.lower()))
        unit = next((word for word in words if word in _UNITS), "")
        scales = [_UNITS[unit]] if unit else [sidecar.rate, *dict.fromkeys(_UNITS.values())]
        if not any(abs(step * sidecar.rate / scale - 1) <= _STEP for scale in scales):
            raise file.refusal(
                "sampling rate",
                sidecar.rate,
                f"the column {name!r} rises by {step:.6g}{f' {unit}' if unit else ''} a sample",
                remedy="correct the rate in the sidecar",
            )
    if columns is not None:
        return values[:, columns]
    count = len(sidecar.leads or ())
    ends_empty = values.shape[1] == count + 1 and np.isnan(values[:, -1]).all()
    return values[:, :-1] if ends_empty else values  # lines that end with a delimiter


def _refuse_uneven(
    file: EcgFile,
    layout: _Layout,
    name: str,
    rows: NDArray[np.intp],
    times: NDArray[np.float64],
    step: float,
) -> None:
    """Refuse times that do not rise from row to row, by equal steps but for their rounding."""
    backwards = np.flatnonzero(np.diff(times) < 0)
    expected = times[0] + step * (rows - rows[0])
    deviation = np.abs(times - expected)
    limit = _rounding(times) + _JITTER * abs(step)
    if backwards.size:
        place = int(backwards[0]) + 1
    elif (deviation > limit).any():
        steps = np.diff(times) / np.diff(rows)
        place = int(np.abs(steps - np.median(steps)).argmax()) + 1
    else:
        return
    raise file.refusal(
        f"column {name!r}, row {rows[place] + 1} of the samples",
        float(times[place]),
        f"follows {times[place - 1]:.9g}, and steps of {step:.6g} were expected: rows are missing, "
        "repeated or in another order",
        remedy="export the ECG again, with every sample once and in order",
    )


def _rounding(times: NDArray[np.float64]) -> float:
    """Resolution to which times were rounded: of equal decimals, or of six significant digits."""

    def holds(values: NDArray[np.float64], decimals: int) -> bool:
        return np.allclose(np.round(values, decimals), values, rtol=1e-9, atol=1e-12)

    decimals = next((count for count in range(9) if holds(times, count)), 9)
    largest = float(np.abs(times).max())
    digits = 5 - math.floor(math.log10(largest or 1.0))
    if digits < decimals and holds(times[np.abs(times) >= largest / 10], digits):
        decimals = digits
    return float(10.0**-decimals)
