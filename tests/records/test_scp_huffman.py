"""Huffman coding of SCP-ECG files: the standard's table, own tables, switches, damage."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
import pytest
from scp_files import DEFAULT_TABLE, coded, default_code

from einthoven.records.scp_huffman import decode, tables_of


def table(codes: Mapping[str, tuple[int, int, int]]) -> bytes:
    """Table in section 2: prefix, then bits behind it, value, and 0 for a switch."""
    rows = [
        struct.pack("<BBBhI", len(bits), len(bits) + extra, kind, value, int(bits[::-1], 2))
        for bits, (extra, value, kind) in codes.items()
    ]
    return struct.pack("<H", len(rows)) + b"".join(rows)


def section(*tables: Mapping[str, tuple[int, int, int]]) -> bytes:
    return struct.pack("<H", len(tables)) + b"".join(map(table, tables))


COARSE = {"0": (0, 0, 1), "10": (0, 100, 1), "110": (0, -100, 1), "111": (0, 2, 0)}
FINE = {"1": (0, 1, 1), "01": (0, -1, 1), "001": (12, 0, 1), "0001": (0, 1, 0)}


def test_the_table_of_the_standard() -> None:
    values = [*range(-130, 131), 0, -32768, 32767, 0, 1, -1]
    decoded = decode(coded(values), len(values), tables_of(DEFAULT_TABLE))
    np.testing.assert_array_equal(decoded, values)


def test_many_random_samples() -> None:
    values = np.random.default_rng(0).standard_t(1, 3000).clip(-32768, 32767).astype(int)
    decoded = decode(coded(values.tolist()), 3000, tables_of(DEFAULT_TABLE))
    np.testing.assert_array_equal(decoded, values)


def test_tables_of_the_file_with_switches() -> None:
    bits = "100110111101001" + format(-1234 & 0xFFF, "012b") + "0001100"
    content = int(bits.ljust(48, "0"), 2).to_bytes(6, "big")
    decoded = decode(content, 8, tables_of(section(COARSE, FINE)))
    np.testing.assert_array_equal(decoded, [100, 0, -100, 1, -1, -1234, 100, 0])


def test_a_switch_to_a_table_that_is_missing_ends_the_samples() -> None:
    content = int("1011100000000000", 2).to_bytes(2, "big")
    np.testing.assert_array_equal(decode(content, 9, tables_of(section(COARSE))), [100])


@pytest.mark.parametrize("cut", range(1, 5))
def test_samples_that_are_cut_off(cut: int) -> None:
    values = [5, -700, 3, 20000]
    content = coded(values)
    tables = tables_of(DEFAULT_TABLE)
    whole = [len("".join(map(default_code, values[:number]))) for number in range(5)]
    kept = sum(bits <= 8 * (len(content) - cut) for bits in whole[1:])
    decoded = decode(content[:-cut], 4, tables)
    np.testing.assert_array_equal(decoded[:kept], values[:kept])
    assert len(decoded) == kept < 4


def test_bits_that_are_no_code_end_the_samples() -> None:
    tables = tables_of(section({"0": (0, 7, 1), "10": (0, 8, 1)}))
    np.testing.assert_array_equal(decode(b"\x5f\xff", 9, tables), [7, 8])
    assert len(decode(b"", 5, tables)) == 0


def test_switches_without_samples_end() -> None:
    tables = tables_of(section({"0": (0, 1, 0), "1": (0, 1, 1)}))
    assert len(decode(bytes(60_000), 60_000, tables)) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1",
        section(COARSE)[:-1],
        section(COARSE, FINE)[:40],
        section({"0": (0, 1, 1), "01": (0, 2, 1)}),
        section({"0": (0, 1, 1), "0" * 17: (0, 2, 1)}),
        section({"0": (8, 5, 1)}),
        section({"0": (200, 0, 1)}),
        struct.pack("<HHBBBhI", 1, 1, 0, 0, 1, 0, 0),
        struct.pack("<HHBBBhI", 1, 1, 4, 2, 1, 0, 0),
        struct.pack("<H", 60_000),
    ],
)
def test_tables_that_cannot_be_used(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        tables_of(content)
