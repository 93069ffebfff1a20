"""Catalogue of file formats, and the one function that reads an ECG file.

A format is added by one reader and one line, `register_format(Format(...))`, in a module that a
package declares as an entry point (`einthoven.extensions`). Prediction, embedding, packing, table
cohorts, folder cohorts and `doctor` then take its files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from einthoven.errors import RecordError
from einthoven.extensions import import_extensions
from einthoven.records.record import Record

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    name : str
        Name of the format, such as `WFDB`.
    suffixes : tuple of str
        Suffixes of its files, in lower case, with the dot.
    read : callable
        Read a file as a Record; raise RecordError for a file that is damaged or ambiguous.
    record_suffixes : tuple of str, optional
        Suffixes of the files that stand for one record each in a folder; all by default.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[PathLike], Record]
    record_suffixes: tuple[str, ...] = ()


FORMATS: list[Format] = []
"""Registered formats; the last one registered for a suffix is used."""


def register_format(new: Format) -> None:
    """Add a format to the catalogue."""
    FORMATS.append(new)


def format_of(path: PathLike) -> Format:
    """Format of an ECG file, by its suffix. A WFDB record may be named without one.

    Raises
    ------
    RecordError
        If no format has this suffix and there is no WFDB header of this name.
    """
    import_extensions()
    suffix = Path(path).suffix.lower()
    for entry in reversed(FORMATS):
        if suffix in entry.suffixes:
            return entry
    if os.path.isfile(f"{os.fspath(path)}.hea"):
        return WFDB
    raise RecordError(
        os.fspath(path),
        "suffix",
        suffix,
        f"no reader for this suffix, and no {Path(path).name}.hea beside the file",
        remedy=f"use one of the formats ({', '.join(suffixes())}), or write the ECG as WFDB "
        "(einthoven.records.wfdb.write_wfdb)",
    )


def suffixes() -> list[str]:
    """Suffixes of all formats."""
    return sorted({suffix for entry in FORMATS for suffix in entry.suffixes})


def read_record(path: PathLike) -> Record:
    """Read one ECG file of any registered format.

    Parameters
    ----------
    path : path-like
        The file. A WFDB record may be named by its header, by its signal file, or without suffix.

    Returns
    -------
    Record
        Millivolts, hertz, lead names.

    Raises
    ------
    RecordError
        If there is no such file, no format has its suffix, or it is damaged or ambiguous.
    """
    text = os.fspath(path)
    if not any(map(os.path.lexists, (text, f"{text}.hea", f"{os.path.splitext(text)[0]}.hea"))):
        raise RecordError(text, "", None, "no such ECG file", remedy="check the path")
    return format_of(path).read(path)


def is_record(path: PathLike) -> bool:
    """Whether a path names an existing file, or a WFDB record without its suffix."""
    return os.path.isfile(path) or os.path.isfile(f"{os.fspath(path)}.hea")


def files_of(path: PathLike) -> list[Path]:
    """Existing files of a record: its file, or header and signal files of one name for WFDB."""
    stem, suffix = os.path.splitext(os.fspath(path))
    stem = stem if suffix.lower() in WFDB.suffixes else os.fspath(path)
    names = [os.fspath(path), *(stem + suffix for suffix in WFDB.suffixes)]
    return [Path(name) for name in dict.fromkeys(names) if os.path.isfile(name)]


def find_records(folder: Path) -> list[Path]:
    """Paths of all records below a folder, sorted; WFDB records without suffix."""
    import_extensions()
    names = {suffix for entry in FORMATS for suffix in entry.record_suffixes or entry.suffixes}
    files = (file for file in folder.rglob("*") if file.suffix.lower() in names)
    return sorted(file.with_suffix("") if format_of(file) is WFDB else file for file in files)


# The reader is imported when the first file is opened, so that a catalogue of many formats costs
# no start-up time.


def _read_wfdb(path: PathLike) -> Record:
    from einthoven.records.wfdb import read_wfdb

    return read_wfdb(path)


WFDB = Format(
    name="WFDB",
    suffixes=(".hea", ".dat", ".mat"),
    read=_read_wfdb,
    record_suffixes=(".hea",),
)
register_format(WFDB)
