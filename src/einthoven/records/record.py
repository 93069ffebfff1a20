"""One ECG in memory: millivolts, hertz, lead names, and the file that it was read from."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from einthoven.errors import RecordError

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Standard twelve leads, in the order of every array in this package."""

MILLIVOLTS = {"mV": 1.0, "uV": 1e-3, "V": 1e3}
"""Units of voltage, in millivolts."""

LOWEST_RATE = 20.0
"""Hz. A lower rate holds no QRS complex, and resampling would need many times the file's memory."""

_CANONICAL = {name.lower(): name for name in STANDARD_LEADS}
_WHOLE = re.compile(r"([+-]?\d+)[.,]0+")  # a whole number that a program wrote as a decimal one
# A number as spreadsheets and R write it; `1e5` that somebody typed may be a name.
_ROUNDED_POWER = 11  # of ten, from which spreadsheets round what they show
_EXPONENT = re.compile(r"(\d(?:[.,]\d+)?)[eE]\+(\d{2})")
# Characters without a glyph besides those of category Cf: joiners, fillers, variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\U000e0000-\U000e0fff]"
)


def canonical_lead(name: str) -> str:
    """Spell a lead as the field does: `AVR`, `avr` and `aVR` are one lead.

    Parameters
    ----------
    name : str
        A lead name as a file spells it.

    Returns
    -------
    str
        The standard spelling of the twelve leads; any other name (`MLII`, `X`) as it stands,
        without surrounding blanks. No name is guessed from its position.
    """
    name = name.strip()
    return _CANONICAL.get(name.lower(), name)


def canonical_patient(value: object) -> str:
    """Spell a patient identifier in one way: `17`, `17.0`, `1.7E+01` and `17 ` are one patient.

    Tables that were joined or passed through a spreadsheet write whole numbers as decimal ones,
    and add blanks; text that was copied from another program brings marks of direction, soft
    hyphens and full-width letters. Leading zeros and the case of letters are kept: `007` is not
    `7`.

    Parameters
    ----------
    value : object
        Identifier as a file or table holds it, text or number.

    Returns
    -------
    str
        Unicode normal form KC, without surrounding blanks, invisible characters, a decimal part of
        zeros and the exponent of a whole number, all digits of which are there; empty if nothing is
        left.
    """
    if isinstance(value, float | np.floating) and value.is_integer():
        return str(int(value))
    text = visible_text(str(value))
    if exponent := _EXPONENT.fullmatch(text):
        digits, _, decimals = exponent[1].replace(",", ".").partition(".")
        power, significant = int(exponent[2]), decimals.rstrip("0")
        if len(significant) <= power and (len(decimals) >= power or power < _ROUNDED_POWER):
            return digits + significant.ljust(power, "0")
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def visible_text(text: str) -> str:
    """Text without surrounding blanks and invisible characters, in the Unicode normal form KC."""
    if not text.isascii():
        text = _visible(unicodedata.normalize("NFKC", _visible(text)))
    return text.strip()


def _visible(text: str) -> str:
    return _INVISIBLE.sub("", "".join(c for c in text if unicodedata.category(c) != "Cf"))


def sampling_rate(value: object) -> float:
    """Sampling rate in Hz of a number of any type, or of an array of one, as `loadmat` gives it.

    NaN for anything else, which no check of a rate accepts.
    """
    array = np.asarray(value)
    return (
        float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "iuf" else math.nan
    )


@dataclass(frozen=True, eq=False)
class Record:
    """One ECG.

    `Record.from_array` takes an array; readers use `Record.create`, which checks the fields.

    Attributes
    ----------
    signal : np.ndarray
        Float32 millivolts, shape (leads, samples), C-contiguous and read-only. NaN marks a sample
        that the file declares invalid.
    rate : float
        Samples a second (Hz).
    leads : tuple of str
        Lead names in the order of the rows; see `canonical_lead`.
    name : str
        Record name.
    patient : str or None
        Patient identifier, where the file holds one; see `canonical_patient`.
    source : str
        Path of the file.
    source_hash : str
        SHA-256 of the file's bytes, hexadecimal (a header first, then its signal files).
    metadata : Mapping of str to str
        Further statements of the file (Age, Sex, Dx, ...).
    """

    signal: np.ndarray
    rate: float
    leads: tuple[str, ...]
    name: str
    patient: str | None
    source: str
    source_hash: str
    metadata: Mapping[str, str]

    @classmethod
    def create(
        cls,
        signal: np.ndarray,
        rate: float,
        *,
        leads: Iterable[str],
        name: str,
        patient: str | None = None,
        source: str = "",
        source_hash: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> Record:
        """Build a Record and check it.

        Parameters are the attributes of the class. A writeable signal is copied.

        Raises
        ------
        RecordError
            If the signal is not float32, not 2-D, empty or holds an infinity; if the rate is not
            a positive finite number; if lead names are empty, repeated, or not one a row.
        """
        file = source or name
        _check_signal(signal, file)
        _check_rate(rate, file)
        rate = sampling_rate(rate)
        names = tuple(canonical_lead(lead) for lead in leads)
        _check_leads(names, len(signal), file)
        return cls(
            signal=frozen(signal),
            rate=rate,
            leads=names,
            name=name,
            patient=None if patient is None else canonical_patient(patient) or None,
            source=source,
            source_hash=source_hash,
            metadata=dict(metadata or {}),
        )

    @classmethod
    def from_array(
        cls,
        signal: ArrayLike,
        *,
        rate: float,
        leads: Iterable[str],
        unit: str = "mV",
        name: str = "array",
        patient: str | None = None,
    ) -> Record:
        """Build a Record from numbers.

        Parameters
        ----------
        signal : array of shape (leads, samples)
            Voltages; NaN marks a missing sample.
        rate : float
            Samples a second (Hz).
        leads : iterable of str
            Lead names in the order of the rows.
        unit : {"mV", "uV", "V"}
            Unit of the voltages.
        name, patient : str, optional
            Record name, and patient identifier.

        Raises
        ------
        RecordError
            If the unit is another one, the signal has another shape (such as the transposed one),
            or its amplitude is implausible for the unit; and as `create`.
        """
        from einthoven.records.quality import refuse_unit

        values, names = np.asarray(signal), tuple(leads)
        if unit not in MILLIVOLTS:
            raise RecordError(
                name, "unit", unit, "is unknown", remedy=f"use {', '.join(MILLIVOLTS)}"
            )
        if values.dtype.kind not in "iuf":
            raise RecordError(name, "signal", str(values.dtype), "holds no numbers", remedy=_SHAPE)
        if values.ndim == 2 and len(values) != len(names) == values.shape[1]:
            raise RecordError(
                name,
                "shape of the signal",
                values.shape,
                f"(samples, leads) of {len(names)} leads",
                remedy="pass (leads, samples): signal.T",
            )
        with np.errstate(over="ignore"):  # create refuses infinities
            millivolts = (values * MILLIVOLTS[unit]).astype(np.float32)
        millivolts.flags.writeable = False
        record = cls.create(millivolts, rate, leads=names, name=name, patient=patient)
        refuse_unit(record, unit)
        return record

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return float(self.signal.shape[1] / self.rate)

    def select(self, leads: Sequence[str]) -> Record:
        """Select leads, in the given order.

        Parameters
        ----------
        leads : sequence of str
            Lead names; case does not matter.

        Returns
        -------
        Record
            This record itself where it already has these leads in this order.

        Raises
        ------
        RecordError
            If a lead is missing or repeated, or `leads` is empty.
        """
        rows = {lead.lower(): row for row, lead in enumerate(self.leads)}
        names = [canonical_lead(lead) for lead in leads]
        missing = [lead for lead in names if lead.lower() not in rows]
        if missing:
            raise RecordError(
                self.source or self.name,
                "leads",
                ", ".join(self.leads),
                f"lead {', '.join(missing)} is not in the record",
                remedy="choose leads that the record has, or leave this record out of the cohort",
            )
        order = [rows[lead.lower()] for lead in names]
        if order == list(range(len(self.leads))):
            return self
        selected = tuple(self.leads[row] for row in order)
        _check_leads(selected, len(order), self.source or self.name)
        signal = self.signal[order]
        signal.flags.writeable = False
        return replace(self, signal=signal, leads=selected)


_SHAPE = "pass float32 millivolts of shape (leads, samples)"


def frozen(signal: np.ndarray) -> np.ndarray:
    """Make a signal C-contiguous and read-only without changing the flags of the caller's array."""
    owned = signal if not signal.flags.writeable else signal.copy(order="C")
    frozen = np.ascontiguousarray(owned)
    frozen.flags.writeable = False
    return frozen


def _check_signal(signal: np.ndarray, file: str) -> None:
    if not isinstance(signal, np.ndarray) or signal.dtype != np.float32:
        kind = getattr(signal, "dtype", type(signal).__name__)
        raise RecordError(file, "signal", str(kind), "not a float32 array", remedy=_SHAPE)
    if signal.ndim != 2 or signal.size == 0:
        reason = "not a 2-D array with at least one lead and one sample"
        raise RecordError(file, "shape of the signal", signal.shape, reason, remedy=_SHAPE)
    if np.isinf(signal).any():
        row = int(np.isinf(signal).any(axis=1).argmax())
        raise RecordError(
            file,
            "signal",
            "inf",
            f"row {row} holds an infinite voltage",
            remedy="check the gain in the file; mark missing samples as NaN",
        )


def _check_rate(rate: float, file: str) -> None:
    if not LOWEST_RATE <= sampling_rate(rate) < math.inf:
        raise RecordError(
            file,
            "sampling rate",
            rate,
            f"must be a finite number of samples a second, at least {LOWEST_RATE:g}",
            remedy="correct the rate; it is never guessed from the number of samples",
        )


def _check_leads(leads: tuple[str, ...], rows: int, file: str) -> None:
    if len(leads) != rows or not rows:
        raise RecordError(
            file,
            "leads",
            leads,
            f"{len(leads)} lead names for {rows} rows of signal",
            remedy="name every lead once, and at least one",
        )
    names: set[str] = set()
    for lead in leads:
        if not lead or lead.lower() in names:
            raise RecordError(
                file,
                "leads",
                lead,
                "a lead name that is repeated" if lead else "a lead without a name",
                remedy="use a different name for each lead; case is ignored",
            )
        names.add(lead.lower())
