"""Sections of an SCP-ECG file: pointers, lengths and checksums (EN 1064, 5.2 and 5.3)."""

from __future__ import annotations

import struct
from binascii import crc_hqx
from dataclasses import dataclass
from typing import Any

from einthoven.errors import RecordError
from einthoven.records.file import EcgFile

AGAIN = "export the ECG again from the device"
_MARK = b"SCPECG"
_HEADER = struct.Struct("<HHIBB6s")  # checksum, number, length, versions of section and protocol
_POINTER = struct.Struct("<HII")  # number, length, place from 1
_LAST_DEFINED = 11  # the sections after it are the manufacturers', or of later versions


@dataclass(frozen=True)
class Section:
    """A section whose length and checksum are right.

    Attributes
    ----------
    file : EcgFile
        Its file, for messages.
    number : int
        Number of the section in the standard.
    protocol : int
        Version of the protocol, times ten.
    body : bytes
        Its data, without the header.
    """

    file: EcgFile
    number: int
    protocol: int
    body: bytes

    def unpack(self, layout: str, offset: int = 0) -> tuple[Any, ...]:
        """Little-endian fields at an offset of the body. RecordError if it ends before them."""
        try:
            return struct.unpack_from("<" + layout, self.body, offset)
        except struct.error:
            reason = f"has {len(self.body)} bytes and announces fields behind them"
            raise self.refusal("", None, reason) from None

    def refusal(self, field: str, value: object, reason: str) -> RecordError:
        """RecordError about a field of this section."""
        name = f"{field} of section {self.number}" if field else f"section {self.number}"
        return self.file.refusal(name, value, reason, remedy=AGAIN)


def recognises(head: bytes) -> bool:
    """Whether a file begins with a pointer section, by its mark or by its pointer to itself.

    Early versions of the standard do not have the mark.
    """
    if len(head) < 32 or head[8:10] != b"\0\0":
        return False
    return head[16:22] == _MARK or _POINTER.unpack_from(head, 22) == (0, *_length_and_place(head))


def _length_and_place(head: bytes) -> tuple[int, int]:
    return _HEADER.unpack_from(head, 6)[2], 7


@dataclass(frozen=True)
class Sections:
    """Sections of a file that are not empty, by number."""

    file: EcgFile
    numbered: dict[int, Section]

    @classmethod
    def of(cls, file: EcgFile) -> Sections:
        """Read the sections that the standard defines.

        Raises
        ------
        RecordError
            If the file is shorter than it announces, a checksum fails, or a pointer leads to no
            section of its number and length.
        """
        content = file.content
        if not recognises(content):
            raise file.refusal("pointer section", content[:22], "is missing", remedy=AGAIN)
        checksum, length = struct.unpack_from("<HI", content)
        if not 32 <= length <= len(content):
            reason = f"the file has {len(content)} bytes"
            raise file.refusal("length of the record", length, reason, remedy=AGAIN)
        record = content[:length]
        _check(file, "the record", checksum, record[2:])
        pointers = _section(file, 0, *_length_and_place(record), record).body
        numbered = {}
        last = len(pointers) // _POINTER.size * _POINTER.size
        for number, size, place in _POINTER.iter_unpack(pointers[:last]):
            if size > _HEADER.size and 0 < number <= _LAST_DEFINED:
                numbered[number] = _section(file, number, size, place, record)
        return cls(file, numbered)

    def get(self, number: int) -> Section | None:
        """Section of a number; None if the file does not have it."""
        return self.numbered.get(number)

    def required(self, number: int) -> Section:
        """Section without which there is no signal. RecordError if it is missing."""
        section = self.get(number)
        if section is None:
            reason = "is missing" + (": the file has no resting ECG" if number == 6 else "")
            raise self.file.refusal(f"section {number}", None, reason, remedy=AGAIN)
        return section


def _section(file: EcgFile, number: int, length: int, place: int, content: bytes) -> Section:
    data = content[place - 1 : place - 1 + length] if place else b""
    if len(data) < max(length, _HEADER.size):
        reason = f"the record has {len(content)} bytes"
        raise file.refusal(f"end of section {number}", place - 1 + length, reason, remedy=AGAIN)
    checksum, own_number, own_length, _, protocol, _ = _HEADER.unpack_from(data)
    if (own_number, own_length) != (number, length):
        reason = f"its header is that of section {own_number} with {own_length} bytes"
        raise file.refusal(f"length of section {number}", length, reason, remedy=AGAIN)
    _check(file, f"section {number}", checksum, data[2:])
    return Section(file, number, protocol, data[_HEADER.size :])


def _check(file: EcgFile, part: str, stored: int, content: bytes) -> None:
    """Refuse data whose CRC-CCITT is not the stored one."""
    actual = crc_hqx(content, 0xFFFF)
    if stored != actual:
        reason = f"the checksum of the data is {actual}: they are damaged"
        raise file.refusal(f"checksum of {part}", stored, reason, remedy=AGAIN)
