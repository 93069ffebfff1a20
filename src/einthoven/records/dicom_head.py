"""Recognition of DICOM files by their first bytes, without pydicom, whose import takes 0.2 s."""

from __future__ import annotations

import re
import struct

from einthoven.records.file import EcgFile

PREAMBLE = 132
"""Bytes in front of the data set: 128 of any content, and the mark."""
_MARK = b"DICM"
_DIRECTORY = re.compile(rb"1\.2\.840\.10008\.1\.3\.10(?![\d.])")  # its class
_IDENTIFYING = 8  # group of the first elements of a data set


def has_mark(head: bytes) -> bool:
    """Whether a file has the preamble and mark of DICOM."""
    return head[PREAMBLE - len(_MARK) : PREAMBLE] == _MARK


def recognises(head: bytes) -> bool:
    """Whether a file begins as DICOM: the mark after a preamble, or a data set without one."""
    return has_mark(head) or _is_data_set(head)


def members(file: EcgFile) -> list[str]:
    """One record; none in the directory of a disc (`DICOMDIR`)."""
    return [] if has_mark(file.head) and _DIRECTORY.search(file.head) else [""]


def _is_data_set(head: bytes) -> bool:
    """Whether bytes begin with elements of group 2 or 8, with or without explicit VR."""
    if len(head) < 16:
        return False
    if head[4:6].isalpha() and head[4:6].isupper():
        return head[:2] in (b"\2\0", b"\10\0", b"\0\10")
    group, element, length = struct.unpack_from("<HHI", head)
    following = 8 + length
    if group != _IDENTIFYING or following + 4 > len(head):
        return False
    next_group, next_element = struct.unpack_from("<HH", head, following)
    return bool(next_group == _IDENTIFYING and next_element > element)
