"""Huffman coding of the samples in SCP-ECG files (EN 1064, section 2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

DEFAULT = 19999  # number of tables that stands for the table of the standard
_LONGEST_PREFIX, _MOST_BITS, _MOST_TABLES = 16, 32, 64
_NO_CODE = -1


@dataclass(frozen=True)
class Code:
    """A code of a table.

    Attributes
    ----------
    prefix : int
        Number of bits that identify it.
    length : int
        Number of all its bits. Those behind the prefix are the sample, in two's complement.
    value : int
        Sample of a code without bits behind the prefix; the next table, from 1, of a switch.
    bits : int
        The prefix, its first bit the lowest.
    switch : bool
        Whether it switches to another table, and is no sample.
    """

    prefix: int
    length: int
    value: int
    bits: int
    switch: bool = False


def default_codes() -> list[Code]:
    """Codes of the standard: 0 to 8 of either sign, then samples of 8 and 16 bits."""
    codes = [Code(1, 1, 0, 0)]
    for size in range(1, 9):
        ones = (1 << size) - 1
        codes.append(Code(size + 2, size + 2, size, ones))
        codes.append(Code(size + 2, size + 2, -size, ones | 1 << size + 1))
    return [*codes, Code(10, 18, 0, 0x1FF), Code(10, 26, 0, 0x3FF)]


class Table:
    """Codes of a table, by the next bits of the data.

    Raises ValueError for codes that are ambiguous or of a length that is not supported.
    """

    def __init__(self, codes: list[Code]) -> None:
        self.codes = codes
        self.width = max((code.prefix for code in codes), default=1)
        self.lookup = np.full(1 << min(self.width, _LONGEST_PREFIX), _NO_CODE, np.int32)
        for number, code in enumerate(codes):
            extra = code.length - code.prefix
            if not 1 <= code.prefix <= _LONGEST_PREFIX or not 0 <= extra <= _MOST_BITS:
                raise ValueError(f"a code of {code.prefix} and {extra} bits is not supported")
            if extra and code.value:
                raise ValueError("a code has a value in the table and another behind its prefix")
            first = int(f"{code.bits % (1 << code.prefix):0{code.prefix}b}"[::-1], 2)
            unused = self.width - code.prefix
            places = self.lookup[first << unused : first + 1 << unused]
            if (places != _NO_CODE).any():
                raise ValueError("a code begins with another one")
            places[:] = number
        # A switch and bits that are no code have no step: they end a run of samples.
        self.steps = np.array([0 if code.switch else code.length for code in codes] + [0], np.uint8)
        self.samples = np.array(
            [(code.value, code.prefix, code.length - code.prefix) for code in codes], np.int64
        ).reshape(-1, 3)

    def numbers(self, octets: NDArray[np.int32]) -> NDArray[np.int32]:
        """Number of the code at every bit of the data, which are followed by two octets."""
        window = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]
        shifts = (24 - self.width - np.arange(8)).astype(np.int32)
        places = window[:, None] >> shifts & (1 << self.width) - 1
        numbers: NDArray[np.int32] = self.lookup[places].ravel()
        return numbers


@cache
def _default_table() -> Table:
    return Table(default_codes())


def tables_of(content: bytes) -> list[Table]:
    """Tables of section 2; none if its data are not coded. ValueError if they are damaged."""
    try:
        (number,) = struct.unpack_from("<H", content)
        if number == DEFAULT:
            return [_default_table()]
        if number > _MOST_TABLES:
            raise ValueError(f"{number} tables; {_MOST_TABLES} are supported")
        tables, offset = [], 2
        for _ in range(number):
            (size,) = struct.unpack_from("<H", content, offset)
            layout = struct.Struct("<BBBhI")
            end = offset + 2 + size * layout.size
            rows = layout.iter_unpack(content[offset + 2 : end])
            codes = [Code(row[0], row[1], row[3], row[4], switch=row[2] == 0) for row in rows]
            if len(codes) != size:
                raise ValueError("the tables are cut off")
            tables.append(Table(codes))
            offset = end
    except struct.error:
        raise ValueError("the tables are cut off") from None
    return tables


def decode(content: bytes, count: int, tables: list[Table]) -> NDArray[np.int64]:
    """Samples of one lead, in the order of their bits.

    Parameters
    ----------
    content : bytes
        Codes, their first bit the highest of the first byte.
    count : int
        Most samples to decode.
    tables : list of Table
        The first one is used until a code switches to another.

    Returns
    -------
    NDArray, int64
        `count` samples; fewer if the content ends, or its bits are no code.
    """
    numbers: dict[int, NDArray[np.int32]] = {}
    starts, spans = _starts(content, count, tables, numbers)
    used = np.repeat([table for table, _ in spans], [samples for _, samples in spans])
    samples = np.empty((len(starts), 3), np.int64)
    for table in set(used.tolist()):
        rows = used == table
        samples[rows] = tables[table].samples[numbers[table][starts[rows]]]
    values, prefixes, extras = samples.T
    long = np.flatnonzero(extras)
    values[long] = _integers(content, starts[long] + prefixes[long], extras[long])
    return values


def _starts(
    content: bytes, count: int, tables: list[Table], numbers: dict[int, NDArray[np.int32]]
) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """First bit of each sample; spans (table, samples) of one table each.

    `numbers` is filled with the number of the code at every bit, by table.
    """
    octets = np.frombuffer(content + bytes(2), np.uint8).astype(np.int32)
    bits = 8 * len(content)
    steps: dict[int, bytes] = {}
    starts: list[int] = []
    spans: list[tuple[int, int]] = []
    table = position = 0
    while 0 <= table < len(tables) and position < bits and len(starts) < count:
        if table not in steps:
            numbers[table] = tables[table].numbers(octets)
            steps[table] = tables[table].steps[numbers[table]].tobytes() + bytes(256)
        before, step_at = len(starts), steps[table]
        # The only loop over samples: 12 leads of 5,000 take 4 ms.
        for _ in range(count - before):
            step = step_at[position]
            if not step:
                break
            starts.append(position)
            position += step
        if position > bits:  # the last code is cut off
            starts.pop()
        spans.append((table, len(starts) - before))
        number = numbers[table][position] if position < bits else _NO_CODE
        if number == _NO_CODE or not tables[table].codes[number].switch:
            break
        position += tables[table].codes[number].length
        table = tables[table].codes[number].value - 1
    return np.array(starts, np.int64), spans


def _integers(
    content: bytes, position: NDArray[np.int64], bits: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Integers of some bits at some positions of the content, in two's complement."""
    octets = np.frombuffer(content + bytes(5), np.uint8).astype(np.int64)
    window = np.zeros(len(position), np.int64)
    for place in range(5):
        window = window << 8 | octets[(position >> 3) + place]
    values = window >> 40 - (position & 7) - bits & (1 << bits) - 1
    return values - (values >> bits - 1 << bits)
