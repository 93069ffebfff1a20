"""Which reader opens which file: the catalogue of formats."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from einthoven.errors import RecordError
from einthoven.records.record import Record

Reader = Callable[[str | os.PathLike[str]], Record]


def _wfdb(path: str | os.PathLike[str]) -> Record:
    # Imported here so that a format costs nothing until a file of it is opened.
    from einthoven.records.wfdb import read_wfdb

    return read_wfdb(path)


READERS: dict[str, Reader] = {
    ".hea": _wfdb,
    ".dat": _wfdb,
    ".mat": _wfdb,
}
"""Suffix, in lower case, to the function that reads such a file into a Record."""


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read one ECG file; its suffix says how.

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
        If no reader knows the suffix, or the reader does not trust the file.
    """
    text = os.fspath(path)
    reader = READERS.get(Path(text).suffix.lower())
    if reader is None and os.path.isfile(f"{text}.hea"):
        reader = _wfdb
    if reader is None:
        raise RecordError(
            text,
            "suffix",
            Path(text).suffix,
            f"no reader for it, and no {Path(text).name}.hea beside it",
            remedy=f"give a file of a format that is known: {', '.join(sorted(READERS))}; another "
            "one can be written as WFDB (einthoven.records.wfdb.write_wfdb)",
        )
    return reader(text)
