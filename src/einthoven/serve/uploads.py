"""An uploaded ECG: the body of a request, received into memory and never written to disk."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, FormParser

from einthoven.records import Record
from einthoven.records.file import EcgFile
from einthoven.records.formats import read_excerpt
from einthoven.records.sidecar import described, described_array
from einthoven.serve.limits import RequestError

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")
_FORM = "multipart/form-data"


@dataclass(frozen=True)
class Upload:
    """An ECG file in memory, with what its sender states about it.

    Attributes
    ----------
    content : bytes
    name : str
        File name, without folders; only its suffix is used. Empty for a body without one.
    rate, unit, leads : optional
        What an array file does not state, as for `read_record`.
    """

    content: bytes
    name: str = ""
    rate: float | None = None
    unit: str | None = None
    leads: tuple[str, ...] | None = None

    @property
    def file(self) -> EcgFile:
        """The file for a reader; its name is `upload` and the suffix, a path of nothing."""
        suffix = os.path.splitext(self.name)[1]
        return EcgFile(f"upload{suffix if _SUFFIX.fullmatch(suffix) else ''}", data=self.content)

    def read(self) -> Record:
        """The record, or the middle 10 minutes of a longer one. RecordError as `read_record`."""
        with described(described_array(self.rate, self.unit, self.leads)):
            return read_excerpt(self.file)


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


def file_of(body: bytes, content_type: str, disposition: str = "") -> tuple[bytes, str]:
    """Content and name of the one file in a body: a form's, or the body itself.

    Raises
    ------
    RequestError
        If the form is malformed, or has no file or several.
    """
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != _FORM:
        return body, _file_name(disposition)
    files: list[tuple[bytes, str]] = []

    def keep(file: File) -> None:
        file.file_object.seek(0)
        files.append((file.file_object.read(), (file.file_name or b"").decode("utf-8", "replace")))

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
    return _single(files)


def _single(files: Sequence[tuple[bytes, str]]) -> tuple[bytes, str]:
    if len(files) != 1:
        raise RequestError(
            400,
            f"the form has {len(files) or 'no'} files",
            remedy="send one ECG in each request, as curl -F file=@ECG does",
        )
    return files[0][0], os.path.basename(files[0][1].replace("\\", "/"))


def _file_name(disposition: str) -> str:
    """File name of the header Content-Disposition of a raw body."""
    found = re.search(r"filename\*?=(?:UTF-8'')?\"?([^\";]+)\"?", disposition, re.IGNORECASE)
    return os.path.basename(unquote(found[1]).replace("\\", "/")) if found else ""
