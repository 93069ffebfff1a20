"""An uploaded ECG: the body of a request, received into memory and never written to disk."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, FormParser

from einthoven.records import Record
from einthoven.records.file import EcgFile, held_files
from einthoven.records.formats import read_excerpt
from einthoven.records.sidecar import described, described_array
from einthoven.serve.limits import RequestError

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")
_FORM = "multipart/form-data"
_FOLDER, _HEADER = "upload", ".hea"


@dataclass(frozen=True)
class Upload:
    """An ECG file in memory, with what its sender states about it.

    Attributes
    ----------
    content : bytes
    name : str
        File name, without folders. Empty for a body without one.
    signals : dict of str to bytes
        Signal files of a WFDB record by name; `content` is then its header.
    rate, unit, leads : optional
        What an array file does not state, as for `read_record`.
    """

    content: bytes
    name: str = ""
    signals: dict[str, bytes] = field(default_factory=dict)
    rate: float | None = None
    unit: str | None = None
    leads: tuple[str, ...] | None = None

    @property
    def place(self) -> str:
        """Path that readers see, which is one of nothing; of the name, the suffix is kept."""
        if self.signals:
            return f"{_FOLDER}/{self.name}"
        suffix = os.path.splitext(self.name)[1]
        return f"upload{suffix if _SUFFIX.fullmatch(suffix) else ''}"

    def read(self) -> Record:
        """The record, or the middle 10 minutes of a longer one. RecordError as `read_record`."""
        with described(described_array(self.rate, self.unit, self.leads)):
            if not self.signals:
                return read_excerpt(EcgFile(self.place, data=self.content))
            signals = {f"{_FOLDER}/{name}": data for name, data in self.signals.items()}
            with held_files({self.place: self.content} | signals):
                return read_excerpt(self.place)


async def received(stream: AsyncIterable[bytes], length: str, most: int) -> bytes:
    """The body of a request.

    Parameters
    ----------
    stream : async iterable of bytes
    length : str
        The header Content-Length; empty without one.
    most : int
        Bytes.

    Raises
    ------
    RequestError
        If it is larger, which is noticed before it is received where its length is stated.
    """
    too_large = RequestError(
        413,
        f"the body is larger than {most} bytes",
        remedy="send a shorter recording, or start the server with a larger --max-body",
    )
    if length.isdecimal() and int(length[:20]) > most:
        raise too_large
    body = bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > most:
            raise too_large
    return bytes(body)


def files_of(body: bytes, content_type: str, disposition: str = "") -> dict[str, bytes]:
    """Files in a body by name: those of a form, or the body itself.

    Raises
    ------
    RequestError
        If the form is malformed or has no file, or has several that are no WFDB record.
    """
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != _FORM:
        return {_file_name(disposition): body}
    files: list[tuple[str, bytes]] = []

    def keep(file: File) -> None:
        name = (file.file_name or b"").decode("utf-8", "replace")
        file.file_object.seek(0)
        files.append((_base(name), file.file_object.read()))

    boundary = re.search(r'boundary="?([^";]+)"?', parameters)
    try:
        parser = FormParser(
            _FORM,
            lambda field: None,
            keep,
            boundary=boundary[1] if boundary else None,
            config={"MAX_MEMORY_FILE_SIZE": len(body) + 1},  # a larger file would go to disk
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RequestError(
            400, f"the form cannot be parsed: {error}", remedy="send it as curl -F file=@ECG does"
        ) from None
    headers = [name for name, _ in files if name.lower().endswith(_HEADER)]
    if len(files) != 1 and len(headers) != 1:
        raise RequestError(
            400,
            f"the form has {len(files) or 'no'} files",
            remedy="send one ECG in each request: one file, or a WFDB header and its signal files",
        )
    return dict(sorted(files, key=lambda pair: pair[0] not in headers))


def _file_name(disposition: str) -> str:
    """File name of the header Content-Disposition of a raw body."""
    found = re.search(r"filename\*?=(?:UTF-8'')?\"?([^\";]+)\"?", disposition, re.IGNORECASE)
    return _base(unquote(found[1])) if found else ""


def _base(name: str) -> str:
    """A file name without folders, in either way of writing them."""
    return os.path.basename(name.replace("\\", "/"))
