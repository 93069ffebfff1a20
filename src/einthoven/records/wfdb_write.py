"""Write WFDB records: format 16, checksums, and never half a record under its name."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from einthoven.errors import RecordError
from einthoven.files import replacing
from einthoven.records.digital import LARGEST, blocks, counts_of
from einthoven.records.record import canonical_lead
from einthoven.records.wfdb_header import PATIENT

_INVALID = -32768
_NAME = re.compile(r"[-\w]+", re.ASCII)


def write_wfdb(
    path: str | os.PathLike[str],
    signal_mv: np.ndarray,
    *,
    rate: float,
    leads: Sequence[str],
    patient: str | None = None,
    comments: Iterable[str] = (),
    microvolts: float = 1.0,
) -> None:
    """Write a WFDB record in format 16 with baseline 0.

    The signal file is put in place first and the header last, each in one step, so a record that
    has a header is complete. An existing record of this name is replaced.

    Parameters
    ----------
    path : path-like
        The record, with or without `.hea`; its folder is created if it does not exist.
    signal_mv : np.ndarray
        Millivolts, shape (leads, samples), rounded to the nearest step. NaN becomes WFDB's mark for
        an invalid sample.
    rate : float
        Hz.
    leads : sequence of str
        Lead names, one a row.
    patient : str, optional
        Patient identifier, for the line `#patient: 17`.
    comments : iterable of str
        Lines for the end of the header, without the `#`: `Age: 85`.
    microvolts : float
        Size of a digital step.

    Raises
    ------
    RecordError
        If a value lies outside +-32,767 steps, or name, leads, comments, shape or rate cannot be
        written to a header.
    FileError
        If the files cannot be written.
    """
    stem = os.fspath(path)
    stem = stem[:-4] if stem.lower().endswith(".hea") else stem
    header, samples = wfdb_content(
        stem,
        signal_mv,
        rate=rate,
        leads=leads,
        patient=patient,
        comments=comments,
        microvolts=microvolts,
    )
    _write(f"{stem}.dat", samples)
    _write(f"{stem}.hea", header)


def wfdb_content(
    stem: str,
    signal_mv: np.ndarray,
    *,
    rate: float,
    leads: Sequence[str],
    patient: str | None = None,
    comments: Iterable[str] = (),
    microvolts: float = 1.0,
) -> tuple[bytes, bytes]:
    """Header and signal file of a record; parameters and errors are those of `write_wfdb`."""
    names = [canonical_lead(lead) for lead in leads]
    # With a blank in front, as in `# patient: ...`, another comment names no patient.
    notes = [f" {text}" if text.startswith(PATIENT) else text for text in comments]
    notes += [PATIENT + patient] if patient else []
    _check_texts(stem, names, notes)
    if not (math.isfinite(rate) and rate > 0):
        raise _refusal(stem, "sampling rate", rate, "must be a positive finite number of hertz")
    if signal_mv.ndim != 2 or signal_mv.size == 0 or len(signal_mv) != len(names):
        reason = f"must be (leads, samples), with one row for each of {len(names)} leads"
        raise _refusal(stem, "shape of the signal", signal_mv.shape, reason)
    digital = _digital(stem, signal_mv, names, microvolts)
    header = _header(os.path.basename(stem), digital, rate, names, notes, 1000 / microvolts)
    return header.encode(), digital.T.astype("<i2", copy=False).tobytes()


def _digital(stem: str, signal_mv: np.ndarray, leads: list[str], microvolts: float) -> np.ndarray:
    digital = np.empty(signal_mv.shape, np.int16)
    for part, stored in zip(blocks(signal_mv), blocks(digital), strict=True):
        steps = counts_of(part, microvolts)
        over = np.abs(steps) > LARGEST
        if over.any():
            row, column = np.argwhere(over)[0]
            raise _refusal(
                stem,
                f"signal of lead {leads[row]}",
                float(part[row, column]),
                f"a sample exceeds the +-{LARGEST * microvolts / 1000:g} mV that 16 bits of "
                f"{microvolts:g} uV hold",
                remedy="check the units of the signal (millivolts), or leave the record out",
            )
        steps[np.isnan(steps)] = _INVALID
        stored[:] = steps
    return digital


def _header(
    name: str,
    digital: np.ndarray,
    rate: float,
    leads: list[str],
    comments: list[str],
    gain: float,
) -> str:
    shown = int(rate) if float(rate).is_integer() else float(rate)
    steps = int(gain) if gain.is_integer() else gain
    lines = [f"{name} {len(leads)} {shown} {digital.shape[1]}"]
    for lead, row in zip(leads, digital, strict=True):
        checksum = int(row.sum(dtype=np.int64)) & 0xFFFF
        lines.append(f"{name}.dat 16 {steps}(0)/mV 16 0 {row[0]} {checksum} 0 {lead}")
    return "\n".join(lines + [f"#{comment}" for comment in comments]) + "\n"


def _check_texts(stem: str, leads: list[str], comments: list[str]) -> None:
    name = os.path.basename(stem)
    if not _NAME.fullmatch(name):
        raise _refusal(stem, "record name", name, "may hold letters, digits, _ and - only")
    if len({lead.lower() for lead in leads}) != len(leads):
        raise _refusal(stem, "leads", leads, "a lead name is repeated")
    for lead in leads:
        if not lead.isprintable() or lead.split() != [lead]:
            raise _refusal(stem, "leads", lead, "a lead name must be one printable word")
    for comment in comments:
        if not comment.isprintable():
            raise _refusal(stem, "comments", comment, "a comment must be one printable line")


def _write(path: str, content: bytes) -> None:
    try:
        with replacing(Path(path), sync=False) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = "cannot be written"
        raise _refusal(path, "file", error.strerror or str(error), reason) from None


def _refusal(
    file: str, field: str, value: object, reason: str, *, remedy: str = "correct it and write again"
) -> RecordError:
    return RecordError(file, field, value, reason, remedy=remedy)
