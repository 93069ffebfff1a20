"""Sidecars: what an array file leaves unsaid (rate, unit, leads), and the Record of an array.

A sidecar is a TOML file: `name.toml` beside the ECG file, else `ecg.toml` for all files of its
folder. `described` states its keys for all files that are read meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from einthoven.records.file import FOLDER_SIDECAR, EcgFile, read_file
from einthoven.records.metadata import KEYS, metadata, sex_of
from einthoven.records.quality import refuse_unit
from einthoven.records.record import MILLIVOLTS, Record, sampling_rate

if TYPE_CHECKING:
    from pydantic import TypeAdapter

OPTION = "--sidecar"
_LARGEST_SIDECAR = 1 << 20  # bytes
_LONGEST_HEADER = 1000  # lines
_ANY_FILE, _PACKED = 64 << 20, 20  # bytes, and multiple of its size, that a file may unpack to
_UNIT = re.compile(r"(?:(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*)?(mV|uV|µV|μV|V)")

SIDECAR_KEYS = {
    "rate": "samples a second, such as 500",
    "unit": '"mV", "uV", "V", or the size of one count, such as "4.88 uV"',
    "leads": 'lead of each column or row, such as ["I", "II", "V1"]; "" for one that is none',
    "leads_in": '"columns" or "rows"',
    "array": "the name of the variable, dataset or array that holds the samples",
    "samples": "the number of samples of each lead",
    "missing": "a number or text that marks missing samples, or a list of them",
    "header": "the number of lines in front of the first sample",
    "delimiter": "the text between two columns",
    "patient": "the patient's identifier, in quotes",
    "metadata": f"a table with keys such as {', '.join(list(KEYS)[:3])}",
}
"""Keys of a sidecar, and what each of them states."""
_PLACEHOLDERS = {"rate": "HZ", "unit": "UNIT", "leads": "LEAD,LEAD,..."}


@dataclass(frozen=True)
class Sidecar:
    """Description of an array; None for what it leaves out.

    Attributes
    ----------
    rate : float
        Samples a second (Hz).
    unit : str
        `mV`, `uV` or `V`, or the size of one count: `4.88 uV`.
    leads : list of str
        Lead of each column or row, empty for one that is none; or the columns to read, where the
        file names its columns.
    leads_in : {"columns", "rows"}
        Where the leads lie, if their number does not show it.
    array : str
        Name of the variable, dataset or array that holds the samples.
    samples : int
        Number of samples of each lead; another number is refused.
    missing : number, str, or list of them
        Values that mark missing samples.
    header : int or bool
        Number of lines of a text file in front of the first sample.
    delimiter : str
        Text between two columns of a text file.
    patient : str
        Patient identifier.
    metadata : dict
        Further statements, by the names of `einthoven.records.metadata.KEYS`.
    """

    rate: float | None = None
    unit: str | None = None
    leads: list[str] | None = None
    leads_in: Literal["columns", "rows"] | None = None
    array: str | None = None
    samples: int | None = None
    missing: float | str | list[float | str] | None = None
    header: int | bool | None = None
    delimiter: str | None = None
    patient: str | None = None
    metadata: dict[str, float | str] = field(default_factory=dict)

    # Strictly: "500" is no number. Read by pydantic.
    __pydantic_config__: ClassVar[Any] = {
        "strict": True,
        "extra": "forbid",
        "allow_inf_nan": False,
    }

    @property
    def missing_values(self) -> list[float | str]:
        """Values that mark missing samples, as a list."""
        if self.missing is None:
            return []
        return self.missing if isinstance(self.missing, list) else [self.missing]


# ---------------------------------------------------------------------- statements of a caller


_DESCRIPTION: ContextVar[Sidecar | None] = ContextVar("description", default=None)


@contextmanager
def described(sidecar: Sidecar | None) -> Iterator[None]:
    """Describe the array files that are read meanwhile, in this thread.

    A key that the sidecar beside a file states with another value is refused there.
    """
    token = _DESCRIPTION.set(sidecar)
    try:
        yield
    finally:
        _DESCRIPTION.reset(token)


def description() -> Sidecar | None:
    """Return the sidecar of the enclosing `described`; None without one."""
    return _DESCRIPTION.get()


def described_array(
    rate: float | None, unit: str | None, leads: Sequence[str] | None
) -> Sidecar | None:
    """Sidecar of these values of a caller, numbers and names of any type; None without any.

    Raises
    ------
    RecordError
        For a value of another kind.
    """
    values = {
        "rate": None if rate is None else sampling_rate(rate),
        "unit": unit,
        "leads": None if leads is None else [str(lead) for lead in leads],
    }
    stated = {key: value for key, value in values.items() if value is not None}
    return sidecar_from(stated, "arguments") if stated else None


def sidecar_from_texts(texts: Sequence[str]) -> Sidecar | None:
    """Sidecar of the option `--sidecar`: a TOML file, or KEY=VALUE; None without any.

    A value is written as in TOML, or as text without quotes; leads are separated by commas.

    Raises
    ------
    RecordError
        For a file that cannot be read, and a key that is unknown, repeated or has a value of
        another kind.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        is_file = not equals or os.path.isfile(text)
        more = _toml(text) if is_file else {key.strip(): _value(key.strip(), value.strip())}
        repeated = [key for key in more if key in values]
        if repeated:
            raise EcgFile(OPTION).refusal(
                repeated[0], None, "is stated twice", remedy="state every key once"
            )
        sidecar_from(more, text if is_file else OPTION)  # names the one at fault
        values |= more
    return sidecar_from(values, OPTION) if values else None


def _value(key: str, text: str) -> Any:
    """Value of a key on the command line: as in TOML, or text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    if key == "leads" and isinstance(value, str):
        return [name.strip() for name in value.split(",")]
    return text if key == "patient" and not isinstance(value, str) else value


# ---------------------------------------------------------------------- reading


def sidecar_path(file: EcgFile) -> str | None:
    """Path of the sidecar beside a file; None without one. Bytes in memory have none."""
    if file.data is not None:
        return None
    own = os.path.splitext(file.name)[0] + ".toml"
    shared = os.path.join(os.path.dirname(file.name), FOLDER_SIDECAR)
    return next((path for path in (own, shared) if os.path.isfile(path)), None)


def sidecar_of(file: EcgFile) -> Sidecar:
    """Sidecar of a file and description of the caller, together; an empty one without either.

    Raises
    ------
    RecordError
        If the sidecar is no TOML, or a key is unknown or has a value of another kind; it names the
        sidecar and the key. Also if the caller has another value for a key.
    """
    path, stated = sidecar_path(file), description()
    beside = Sidecar() if path is None else sidecar_from(_toml(path), path)
    if stated is None:
        return beside
    keys = {key: value for key in SIDECAR_KEYS if (value := getattr(stated, key)) not in (None, {})}
    for key, value in keys.items():
        other = getattr(beside, key)
        if other not in (None, {}, value):
            raise file.refusal(
                key,
                value,
                f"{path} states {other!r}",
                remedy=f"correct one of them, or leave {key} out of the sidecar",
            )
    return replace(beside, **keys)


def _toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(_sidecar_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise EcgFile(path).refusal(
            "",
            None,
            f"is no valid TOML: {error}",
            remedy="fill in every value, text in quotes, and save the file as UTF-8",
        ) from None


def sidecar_from(values: Mapping[str, Any], place: str) -> Sidecar:
    """Sidecar of keys and values, checked; `place` is where they are stated, for messages."""
    from pydantic import ValidationError

    source = EcgFile(place)
    try:
        # As JSON, because strict Python input would have to be a Sidecar already.
        sidecar = _schema().validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = str(fault["loc"][0])
        if key not in SIDECAR_KEYS:
            raise source.refusal(
                key, None, "is not a key of a sidecar", remedy=f"use {', '.join(SIDECAR_KEYS)}"
            ) from None
        raise source.refusal(
            key, fault["input"], fault["msg"].lower(), remedy=f"state {SIDECAR_KEYS[key]}"
        ) from None
    for key, most in {"rate": math.inf, "samples": math.inf, "header": _LONGEST_HEADER}.items():
        if not 0 <= (number := getattr(sidecar, key) or 0) <= most:
            reason = f"must be from 0 to {most}"
            raise source.refusal(key, number, reason, remedy=f"state {SIDECAR_KEYS[key]}")
    unknown = [key for key in sidecar.metadata if key not in KEYS]
    if unknown:
        raise source.refusal(
            f"metadata.{unknown[0]}", None, "is not a key", remedy=f"use {', '.join(KEYS)}"
        )
    return sidecar


@cache
def _schema() -> TypeAdapter[Sidecar]:
    from pydantic import TypeAdapter  # takes 0.1 s to import

    return TypeAdapter(Sidecar)


def _sidecar_bytes(path: str) -> bytes:
    return read_file(path, "sidecar", most=_LARGEST_SIDECAR)


def source_hash(file: EcgFile, content: bytes | memoryview | None = None) -> str:
    """SHA-256 of a file's sidecar and the caller's description, if there are any, and its content.

    `content` is the part that belongs to the member, for a file of many records.
    """
    path, stated = sidecar_path(file), description()
    if path is None and stated is None and content is None:
        return file.sha256
    digest = hashlib.sha256(_sidecar_bytes(path) if path else b"")
    if stated is not None:
        digest.update(json.dumps(asdict(stated)).encode())
    if content is None:
        digest.update(file.sha256.encode())
    else:
        digest.update(content)
        digest.update(file.member.encode())
    return digest.hexdigest()


# ---------------------------------------------------------------------- description


def complete_sidecar(
    file: EcgFile, own: Mapping[str, Any] | None = None, *, columns: Sequence[str] = ()
) -> Sidecar:
    """Complete the sidecar of a file by the statements of the file itself.

    Parameters
    ----------
    own : mapping, optional
        Values of `rate`, `unit` and `leads` that the file holds, as it spells them.
    columns : sequence of str
        Columns whose names are leads, for a file that names its columns.

    Raises
    ------
    RecordError
        If sidecar and file contradict each other, or rate, unit or leads are stated by neither; the
        remedy contains the text of a sidecar to complete.
    """
    sidecar = sidecar_of(file)
    for key, value in (own or {}).items():
        stated = getattr(sidecar, key)
        if stated is not None and stated != value:
            raise file.refusal(
                key,
                value,
                f"the sidecar states {stated!r}",
                remedy="correct the sidecar, leave this key out, or name the array of the samples "
                "in it, which replaces a known layout",
            )
        sidecar = replace(sidecar, **{key: value})
    if sidecar.leads is None and columns:
        sidecar = replace(sidecar, leads=list(columns))
    missing = [key for key in ("rate", "unit", "leads") if getattr(sidecar, key) is None]
    if missing:
        raise file.refusal(
            "description",
            None,
            f"is incomplete: neither the file nor a sidecar states {', '.join(missing)}",
            remedy=_template(file, missing),
        )
    return sidecar


def known_layout(rate: float, leads: Sequence[str]) -> dict[str, Any]:
    """Statements of a data set's documentation, in millivolts (`own` of `complete_sidecar`)."""
    return {"rate": float(rate), "unit": "mV", "leads": list(leads)}


def stated_by_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Values of `rate`, `unit` and `leads` in a file's variables of these names.

    A variable of another kind, such as a number of leads, states none.
    """
    own: dict[str, Any] = {}
    for key, kinds in {"rate": "iuf", "unit": "U", "leads": "U"}.items():
        if key in arrays and arrays[key].dtype.kind in kinds:
            values = np.ravel(arrays[key]).tolist()
            texts = [str(value).strip() for value in values]
            if key == "leads" and values:
                own[key] = texts
            elif len(values) == 1:
                own[key] = float(values[0]) if key == "rate" else texts[0]
    return own


def _template(file: EcgFile, keys: Sequence[str]) -> str:
    """Remedy: the text of a sidecar with the keys that are missing, to be filled in."""
    arguments = ", ".join(f"{key}=..." for key in keys)
    if file.data is not None:
        return f"state them: read_record(..., {arguments}), or name a file with a sidecar beside it"
    options = " ".join(f"{OPTION} {key}={_PLACEHOLDERS[key]}" for key in keys)
    lines = [f"    {key} =    # {SIDECAR_KEYS[key]}" for key in keys]
    path = sidecar_path(file)
    own = os.path.splitext(os.path.basename(file.name))[0] + ".toml"
    place = (
        f"add this text to {path}"
        if path
        else f"save this text as {own} beside the file, or as {FOLDER_SIDECAR} for all files of "
        "its folder"
    )
    text = f"add {options} to the command (in Python: {arguments}), or {place}, and fill it in:"
    return "\n".join([text, "", *lines])


def _unit(file: EcgFile, text: str) -> tuple[float, str]:
    """Millivolts of one count and the unit, of a text such as `uV` or `4.88 uV`.

    RecordError for another text.
    """
    match = _UNIT.fullmatch(text.strip())
    size = float(match[1] or 1) if match else 0.0
    if match is None or not 0 < size < math.inf:
        raise file.refusal("unit", text, "is unknown", remedy=f"state {SIDECAR_KEYS['unit']}")
    unit = match[2].replace("µ", "u").replace("μ", "u")
    return size * MILLIVOLTS[unit], unit


# ---------------------------------------------------------------------- arrays


def refuse_larger(file: EcgFile, field: str, size: int, stored: int) -> None:
    """Refuse an array of `size` bytes that is far larger than what the file stores of it.

    Raises
    ------
    RecordError
        If it exceeds 64 MiB and 20 times the `stored` bytes.
    """
    if size > max(_ANY_FILE, _PACKED * stored):
        raise file.refusal(
            field,
            size,
            f"bytes are claimed by {stored} bytes of the file",
            remedy="fetch the file again from its source",
        )


def chosen_array(file: EcgFile, shapes: Mapping[str, tuple[int, ...]], sidecar: Sidecar) -> str:
    """Name of the array that holds the samples, among the numeric ones of a file.

    Without `array` in the sidecar it is the only one that has as many rows or columns as leads. The
    array of a file that holds a single one has no name.

    Raises
    ------
    RecordError
        If there is no such array, or more than one.
    """
    if list(shapes) == [""]:
        return ""
    name, count = sidecar.array, len(sidecar.leads or ())
    fitting = [key for key, shape in shapes.items() if _fits(shape, count)]
    if name is None and len(fitting) == 1:
        return fitting[0]
    if name is not None and name in shapes:
        return name
    listing = ", ".join(f"{key} {shape}" for key, shape in list(shapes.items())[:12]) or "none"
    raise file.refusal(
        "array",
        name or fitting,
        f"does not name one of its arrays of numbers: {listing}"
        if name
        else f"{len(fitting) or 'none'} of its arrays of numbers fit {count} leads: {listing}",
        remedy='name the array of the samples in the sidecar: array = "NAME"',
    )


def _fits(shape: tuple[int, ...], leads: int) -> bool:
    if len(shape) == 1:
        return leads == 1 and shape[0] > 1
    return len(shape) in (2, 3) and leads in shape[-2:] and max(shape[-2:]) > 1


def member_rows(shape: tuple[int, ...]) -> list[str]:
    """Names of the records in an array: row numbers for (records, ..., ...), else one."""
    return [str(row) for row in range(shape[0])] if len(shape) == 3 else [""]


def member_row(file: EcgFile, shape: tuple[int, ...]) -> int | None:
    """Row of the file's member in an array of records; None for an array of one record.

    Raises
    ------
    RecordError
        If the array holds several records and the member is not one of them, or one record and a
        member is named.
    """
    if len(shape) != 3 and not file.member:
        return None
    count = shape[0] if len(shape) == 3 else 1
    if len(shape) == 3 and file.member.isdecimal() and len(file.member) < 19:
        row = int(file.member)
        if row < count and str(row) == file.member:
            return row
    raise file.unknown_member(count, example="0")


def record_of(
    file: EcgFile,
    values: NDArray[Any],
    sidecar: Sidecar,
    *,
    digest: str,
    statements: Mapping[str, object] | None = None,
    is_documented: bool = False,
) -> Record:
    """Record of an array of one ECG, as its sidecar describes it.

    Parameters
    ----------
    values : np.ndarray
        Numbers, (leads, samples) or (samples, leads); the number of leads decides.
    sidecar : Sidecar
        With rate, unit and leads (`complete_sidecar`).
    digest : str
        `Record.source_hash`.
    statements : mapping, optional
        Further metadata that the file holds, by the names of `KEYS`.
    is_documented : bool
        Whether the unit is that of a data set's documentation, not one that a user has stated.

    Raises
    ------
    RecordError
        If there are no numbers, the shape does not fit the leads or fits them both ways, the number
        of samples is another one, or the amplitude is implausible for the unit.
    """
    assert sidecar.rate is not None
    assert sidecar.unit is not None
    leads = sidecar.leads or []
    if values.dtype.kind not in "iuf":
        raise file.refusal(
            "samples", str(values.dtype), "are no real numbers", remedy="store an array of numbers"
        )
    rows = _lead_rows(file, values, sidecar)
    if sidecar.samples is not None and rows.shape[1] != sidecar.samples:
        raise file.refusal(
            "number of samples",
            rows.shape[1],
            f"the sidecar states {sidecar.samples}",
            remedy="fetch the file again, or correct the sidecar",
        )
    size, unit = _unit(file, sidecar.unit)
    marks = [mark for mark in sidecar.missing_values if not isinstance(mark, str)]
    signal = np.empty(rows.shape, np.float32)
    for lead, row in enumerate(rows):  # one by one: float64 copies of all would take more memory
        physical = row.astype(np.float64)
        physical[np.isin(physical, marks)] = np.nan
        with np.errstate(over="ignore"):  # Record refuses the infinity
            signal[lead] = physical * size
    empty = [lead for lead, row in zip(leads, signal, strict=True) if np.isnan(row).all()]
    places = [place for place, lead in enumerate(leads) if lead.strip() and lead not in empty]
    if not places:
        raise file.refusal("samples", None, "are all missing", remedy="leave out the record")
    signal = signal[places]
    signal.flags.writeable = False
    entries: dict[str, Any] = {**(statements or {}), **sidecar.metadata}
    if any(empty):
        others = entries.get("left_out")
        entries["left_out"] = f"{' '.join(empty)}: empty" + (f", {others}" if others else "")
    if "sex" in entries:
        entries["sex"] = sex_of(entries["sex"])
    record = Record.create(
        signal,
        sidecar.rate,
        leads=[leads[place] for place in places],
        name=file.label,
        patient=sidecar.patient,
        source=file.name,
        source_hash=digest,
        metadata=metadata(**entries),
    )
    if not is_documented:
        refuse_unit(record, unit)
    return record


def _lead_rows(file: EcgFile, values: NDArray[Any], sidecar: Sidecar) -> NDArray[Any]:
    """The array as (leads, samples)."""
    count = len(sidecar.leads or ())
    shape = values.shape
    if values.ndim == 1:
        values = values[None] if count == 1 else values[:, None]
    if values.ndim != 2:
        raise file.refusal(
            "shape of the samples",
            shape,
            "is no table of leads and samples",
            remedy='name the array of the samples in the sidecar: array = "NAME"',
        )
    in_rows, in_columns = values.shape[0] == count, values.shape[1] == count
    if sidecar.leads_in is not None:
        in_rows, in_columns = sidecar.leads_in == "rows", sidecar.leads_in == "columns"
    if in_rows and in_columns:
        raise file.refusal(
            "shape of the samples",
            shape,
            f"{count} leads may lie in rows or in columns",
            remedy='state in the sidecar: leads_in = "columns", or leads_in = "rows"',
        )
    rows = values if in_rows else values.T
    if len(rows) != count:
        raise file.refusal(
            "shape of the samples",
            shape,
            f"does not fit {count} leads",
            remedy="state the leads in the sidecar: one name for each column or row",
        )
    return rows
