"""Catalogue of file formats, and the one function that reads an ECG file.

A format is added by one reader and one line, `register_format(Format(...))`, in a module that a
package declares as an entry point (`einthoven.extensions`). Prediction, embedding, packing, table
cohorts, folder cohorts and `doctor` then take its files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from einthoven.errors import RecordError
from einthoven.extensions import import_extensions
from einthoven.files import files_below
from einthoven.records.file import FOLDER_SIDECAR, SEPARATOR, EcgFile, PathLike, exists
from einthoven.records.record import Record, frozen


def _one_record(file: EcgFile) -> list[str]:
    return [""]


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    name : str
        Name of the format, such as `WFDB`.
    suffixes : tuple of str
        Suffixes of its files, in lower case, with the dot. A hint: content decides where it can.
    read : callable
        Read an EcgFile as a Record; raise RecordError for a file that is damaged or ambiguous.
    recognises : callable, optional
        Whether the first 4,096 bytes of a file are of this format. Without it, the suffix decides.
    members : callable, optional
        Names of the records in an EcgFile; `[""]` (the default) if it is one record, and empty
        if it is none, such as a table with this suffix.
    read_part : callable, optional
        Read the samples from one time to another (seconds, the end excluded), as `read_record`
        defines them, without reading the rest. For formats of long recordings.
    duration : callable, optional
        Seconds that an EcgFile lasts, without reading its samples; needed with `read_part`.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[EcgFile], Record]
    recognises: Callable[[bytes], bool] | None = None
    members: Callable[[EcgFile], list[str]] = _one_record
    read_part: Callable[[EcgFile, float, float], Record] | None = None
    duration: Callable[[EcgFile], float] | None = None


EXCERPT = 600.0
"""Seconds of a long recording that are examined or predicted."""

FORMATS: list[Format] = []
"""Registered formats; the last one registered for a suffix is used."""


def register_format(new: Format) -> None:
    """Add a format to the catalogue."""
    FORMATS.append(new)


def format_of(source: PathLike | bytes | EcgFile) -> Format:
    """Format of an ECG file: by its content, else by its suffix.

    A WFDB record may be named by its header, by its signal file, or without suffix.

    Raises
    ------
    RecordError
        If the file cannot be read, or has the content and suffix of no format.
    """
    import_extensions()
    file = EcgFile.of(source)
    if _is_wfdb(file):
        return WFDB
    entry = _recognised(file) or _by_suffix(file.suffix)
    if entry is None:
        names = ", ".join(dict.fromkeys(entry.name for entry in FORMATS))
        raise file.refusal(
            "format",
            file.suffix,
            "neither content nor suffix is of a known format",
            remedy="save the table as CSV" if file.suffix in _SHEETS else f"use one of {names}",
        )
    return entry


_SHEETS = (".xlsx", ".xls", ".ods", ".numbers")


def suffixes() -> list[str]:
    """Suffixes of all formats."""
    import_extensions()
    return sorted({suffix for entry in FORMATS for suffix in entry.suffixes})


def read_record(
    source: PathLike | bytes | EcgFile,
    *,
    rate: float | None = None,
    unit: str | None = None,
    leads: Sequence[str] | None = None,
    start: float = 0,
    stop: float = math.inf,
    root: PathLike | None = None,
) -> Record:
    """Read one ECG file of any registered format.

    Parameters
    ----------
    source : path-like, bytes or EcgFile
        The file. A WFDB record may be named by its header, by its signal file, or without suffix;
        a record in a file of many by `FILE::NAME`. Bytes are the content of a file, of a format
        whose records are one file; `EcgFile(name, data=...)` gives them a suffix.
    rate, unit, leads : optional
        Sampling rate (Hz), unit (`mV`, `uV`, `V` or the size of one count, `4.88 uV`) and lead
        names of an array file (CSV, NumPy, MATLAB, HDF5), as a sidecar states them; what file or
        sidecar state otherwise is refused. Files of other formats state them.
    start, stop : float, optional
        Part of a long recording, in seconds from its first sample: the samples at or after `start`
        and before `stop`.
    root : path-like, optional
        Folder of the cohort: symbolic links of signal files may lead anywhere within it.

    Returns
    -------
    Record
        Millivolts, hertz, lead names.

    Raises
    ------
    RecordError
        If there is no such file, it is of no known format, it is unreadable, damaged or ambiguous,
        or the part has no samples.
    """
    if not (rate is None and unit is None and leads is None):
        sidecar = import_module("einthoven.records.sidecar")
        with sidecar.described(sidecar.described_array(rate, unit, leads)):
            return read_record(source, start=start, stop=stop, root=root)
    file, entry = _existing(source, root)
    if start <= 0 and stop == math.inf:
        return entry.read(file)
    if entry.read_part is not None:
        return entry.read_part(file, start, stop)
    return part_of_record(entry.read(file), start, stop)


def _existing(source: PathLike | bytes | EcgFile, root: PathLike | None) -> tuple[EcgFile, Format]:
    file = EcgFile.of(source, root)
    if file.data is None and not any(map(exists, (file.name, *_headers(file.name)))):
        raise file.refusal("", None, "no such ECG file", remedy="check the path")
    return file, format_of(source)


def part_of_record(record: Record, start: float, stop: float) -> Record:
    """Samples of a record from one time to another, in seconds; see `read_record`."""
    if start <= 0 and stop == math.inf:
        return record
    file = EcgFile(record.source or record.name)
    first, last = part_of(file, record.rate, record.signal.shape[1], start, stop)
    return replace(record, signal=frozen(record.signal[:, first:last].copy()))


class Stretches(NamedTuple):
    """A recording of `duration` seconds, or stretches of it that begin at `starts` (s)."""

    duration: float
    starts: tuple[float, ...]
    records: tuple[Record, ...]


def read_stretches(
    source: PathLike | bytes | EcgFile, count: int, *, root: PathLike | None = None
) -> Stretches:
    """Read a recording, or of one that is longer than 10 minutes so much in equal stretches.

    This bounds memory and time: a Holter recording of a day may have 4 GB of samples.

    Parameters
    ----------
    source, root
        As for `read_record`.
    count : int
        Number of stretches, spread from beginning to end; a single one lies in the middle. Their
        `metadata["excerpt"]` states the part.

    Raises
    ------
    RecordError
        As `read_record`.
    """
    file, entry = _existing(source, root)
    if entry.read_part is not None and entry.duration is not None:
        duration, read_part = entry.duration(file), partial(entry.read_part, file)
    else:
        whole = entry.read(file)
        duration, read_part = whole.duration, partial(part_of_record, whole)
    if duration <= EXCERPT:
        return Stretches(duration, (0.0,), (read_part(0, math.inf),))
    seconds, starts = EXCERPT / count, stretch_starts(duration, count)
    records = []
    for start in starts:
        stop = start + seconds
        part = read_part(start, stop)
        excerpt = f"{start:.10g} to {stop:.10g} s of {duration:.10g} s"
        records.append(replace(part, metadata={**part.metadata, "excerpt": excerpt}))
    return Stretches(duration, starts, tuple(records))


def stretch_starts(duration: float, count: int) -> tuple[float, ...]:
    """Beginnings (s) of equal stretches of `EXCERPT` seconds in all, from beginning to end."""
    places = [place / (count - 1) for place in range(count)] if count > 1 else [0.5]
    return tuple(float(math.floor(place * (duration - EXCERPT / count))) for place in places)


def read_excerpt(source: PathLike | bytes | EcgFile, *, root: PathLike | None = None) -> Record:
    """Read a recording, or the middle 10 minutes of a longer one (`read_stretches`)."""
    return read_stretches(source, 1, root=root).records[0]


def part_of(file: EcgFile, rate: float, samples: int, start: float, stop: float) -> tuple[int, int]:
    """First sample, and the one after the last, of a part in seconds. RecordError if it is empty.

    A time within a millionth of a sample of one counts as that sample.
    """
    first, last = (
        min(max(math.ceil(time * rate - 1e-6), 0), samples) if time < math.inf else samples
        for time in (start, stop)
    )
    if first >= last:
        raise file.refusal(
            "part",
            (start, stop),
            f"has no samples; the recording lasts {samples / rate:g} s",
            remedy="choose a part of the recording, in seconds",
        )
    return first, last


def is_record(path: PathLike) -> bool:
    """Whether a path names an existing file, a record in one, or a WFDB record without suffix."""
    name = EcgFile.of(path).name
    return os.path.isfile(name) or os.path.isfile(f"{name}.hea")


def is_table_of_samples(path: PathLike) -> bool:
    """Whether a `.csv` file holds the samples of an ECG, not a table of ECG files and labels."""
    file = EcgFile.of(path)
    if file.suffix != ".csv" or not os.path.isfile(file.name):
        return False
    try:
        return bool(import_module("einthoven.records.csv").members(file))
    except RecordError:
        return True  # its sidecar is at fault


def files_of(path: PathLike) -> list[Path]:
    """Existing files of a record: its file and sidecars, or header and signal files for WFDB."""
    name = EcgFile.of(path).name
    stem, suffix = os.path.splitext(name)
    stem = stem if suffix.lower() in WFDB.suffixes else name
    shared = os.path.join(os.path.dirname(name), FOLDER_SIDECAR)
    sidecars = (os.path.splitext(name)[0] + ".toml", shared)
    names = [name, *(stem + suffix for suffix in WFDB.suffixes), *sidecars]
    return [Path(name) for name in dict.fromkeys(names) if os.path.isfile(name)]


def find_records(folder: Path, unreachable: list[Path] | None = None) -> list[Path]:
    """Paths of all records below a folder, sorted.

    WFDB records have no suffix, and a record in a file of many is `FILE::NAME`. A file without a
    known suffix counts if its content is of a known format. Hidden files are left out. Links are
    followed, and `unreachable` filled, as in `einthoven.files.files_below`.
    """
    import_extensions()
    files = files_below(folder, unreachable)
    return sorted(path for file in files for path in _records_in(file))


def records_of(path: PathLike) -> list[Path]:
    """Paths of the records in a file: `FILE::NAME` of each if there are several, else the path.

    A file that cannot be read is one path, so that its reader refuses it.
    """
    import_extensions()
    file = EcgFile.of(path)
    try:
        is_whole = not file.member and not _is_wfdb(file) and os.path.isfile(file.name)
        members = format_of(path).members(file) if is_whole else []
    except RecordError:
        members = []
    return [_member_path(Path(path), member) for member in members or [""]]


def _member_path(path: Path, member: str) -> Path:
    return path.with_name(path.name + SEPARATOR + member) if member else path


def _records_in(path: Path) -> Iterator[Path]:
    if path.name.startswith("."):
        return
    file = EcgFile(os.fspath(path))
    if _is_wfdb(file):
        if file.suffix == ".hea":
            yield path.with_suffix("")
        return
    try:
        entry = _recognised(file) or _by_suffix(file.suffix)
        members = entry.members(file) if entry and entry is not WFDB else []
    except RecordError:
        members = [""]  # named in the quarantine
    for member in members:
        yield _member_path(path, member)


def _headers(name: str) -> tuple[str, str]:
    """Headers that may belong to the name of a WFDB record: with and without a suffix."""
    return f"{name}.hea", f"{os.path.splitext(name)[0]}.hea"


def _is_wfdb(file: EcgFile) -> bool:
    if file.data is not None:
        return False
    whole, stem = _headers(file.name)
    if file.suffix in WFDB.suffixes:
        return file.suffix == ".hea" or os.path.isfile(stem)
    return not os.path.isfile(file.name) and os.path.isfile(whole)


def _recognised(file: EcgFile) -> Format | None:
    """Format by content; with several, the one that has the file's suffix."""
    fitting = [
        entry
        for entry in reversed(FORMATS)
        if entry.recognises is not None and entry.recognises(file.head)
    ]
    fitting.sort(key=lambda entry: file.suffix not in entry.suffixes)
    return fitting[0] if fitting else None


def _by_suffix(suffix: str) -> Format | None:
    return next((entry for entry in reversed(FORMATS) if suffix in entry.suffixes), None)


def _reader(module: str, function: str = "read") -> Callable[..., Any]:
    """Function of a module in `records` that is imported when the first file is opened.

    A catalogue of many formats then costs no start-up time.
    """

    def call(*arguments: Any) -> Any:
        return getattr(import_module(f"einthoven.records.{module}"), function)(*arguments)

    return call


def _register(name: str, suffixes: tuple[str, ...], module: str, **modules: str) -> None:
    """Register a format of `module`; `modules` are those of its optional functions, by name."""
    functions = {function: _reader(place, function) for function, place in modules.items()}
    register_format(Format(name, suffixes, _reader(module), **functions))


WFDB = Format(
    "WFDB",
    (".hea", ".dat", ".mat"),
    _reader("wfdb", "read_wfdb"),
    read_part=_reader("wfdb", "read_part"),
    duration=_reader("wfdb", "duration"),
)
register_format(WFDB)
_register("DICOM", (".dcm",), "dicom", recognises="dicom_head", members="dicom_head")
_register(
    "ISHNE Holter", (".ecg",), "ishne", recognises="ishne", read_part="ishne", duration="ishne"
)
_register("EDF", (".edf", ".bdf"), "edf", recognises="edf_header", read_part="edf", duration="edf")
_register("GE CardioSoft", (".xml",), "cardiosoft", recognises="cardiosoft")
_register("GE MUSE", (".xml",), "muse", recognises="muse")
_register("Philips Sierra", (".xml",), "philips", recognises="philips")
_register("HL7 aECG", (".xml",), "aecg", recognises="aecg", members="aecg")
_register("SCP-ECG", (".scp",), "scp", recognises="scp_sections")
_register("HDF5", (".h5", ".hdf5"), "hdf5", recognises="hdf5", members="hdf5")
_register("MATLAB", (".mat",), "matlab", recognises="matlab", members="matlab")
_register("NumPy", (".npy", ".npz"), "npy", recognises="npy", members="npy")
_register("CSV", (".csv", ".tsv"), "csv", members="csv")
