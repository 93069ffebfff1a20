"""SCP-ECG files: structure, coding, compression by beats and by decimation, refusals."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from scp_files import (
    compressed_bodies,
    leads_body,
    scp_bytes,
    section,
    simple_bodies,
    waveforms,
    with_checksum,
)

from einthoven.errors import RecordError
from einthoven.records import Record, read_record


@pytest.fixture
def counts() -> np.ndarray:
    """Three leads of 500 samples whose differences need codes of every length."""
    steps = np.random.default_rng(0).integers(-9, 10, (3, 500))
    steps[:, ::50] = 300
    steps[:, 25::50] = -300
    return np.cumsum(steps, axis=1)


def refused(bodies: dict[int, bytes], protocol: int = 20) -> str:
    with pytest.raises(RecordError) as caught:
        read_record(scp_bytes(bodies, protocol))
    return caught.value.field


def read(bodies: dict[int, bytes]) -> Record:
    return read_record(scp_bytes(bodies))


# ------------------------------------------------------------------ coding


@pytest.mark.parametrize("differences", [0, 1, 2])
@pytest.mark.parametrize("huffman", [True, False])
def test_every_coding_is_exact(counts: np.ndarray, differences: int, huffman: bool) -> None:
    bodies = simple_bodies(counts, differences=differences)
    if not huffman:
        del bodies[2]
        bodies[6] = waveforms(list(counts), differences=differences, code=None)
    record = read(bodies)
    np.testing.assert_array_equal(record.signal, (counts * 2500 / 1e6).astype(np.float32))
    assert (record.rate, record.leads, record.patient) == (500, ("I", "II", "V1"), "P-17")


def test_section_2_without_tables_means_no_coding(counts: np.ndarray) -> None:
    bodies = simple_bodies(counts)
    bodies |= {2: struct.pack("<H", 0), 6: waveforms(list(counts), code=None)}
    np.testing.assert_allclose(read(bodies).signal, counts * 0.0025, rtol=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_few_samples(counts: np.ndarray, samples: int) -> None:
    for differences in (1, 2):
        record = read(simple_bodies(counts[:, :samples], differences=differences))
        np.testing.assert_allclose(record.signal, counts[:, :samples] * 0.0025, rtol=1e-6)


def test_the_unit_is_the_files(counts: np.ndarray) -> None:
    np.testing.assert_allclose(
        read(simple_bodies(counts, unit=4880)).signal, counts * 0.00488, rtol=1e-6
    )


def test_the_rate_of_a_rounded_interval(counts: np.ndarray) -> None:
    assert read(simple_bodies(counts, interval=1667)).rate == 600


def test_leads_without_a_name_have_their_number(counts: np.ndarray) -> None:
    assert read(simple_bodies(counts, leads=(0, 11, 200))).leads == ("lead 0", "V3R", "lead 200")


def test_leads_that_were_recorded_in_turn(counts: np.ndarray) -> None:
    ranges = [(11, 210), (111, 310), (311, 410)]
    rows = [row[first - 1 : last] for row, (first, last) in zip(counts, ranges, strict=True)]
    bodies = simple_bodies(counts) | {3: leads_body((1, 2, 3), ranges), 6: waveforms(rows)}
    expected = np.full((3, 400), np.nan)
    for row, values, (first, last) in zip(expected, rows, ranges, strict=True):
        row[first - 11 : last - 10] = values * 0.0025
    np.testing.assert_allclose(read(bodies).signal, expected, rtol=1e-6)


# ------------------------------------------------------------------ compression

REFERENCE = np.array([[5, 20, 80, 200, 90, 10, -40, -10], [2, -7, -60, 110, 40, 9, 6, 3]])
BEATS = [(21, 24, 28), (62, 64, 68), (101, 104, 108)]


def test_the_reference_beat_is_added(counts: np.ndarray) -> None:
    counts = counts[:2, :130]
    for kinds in ([0, 0, 0], [0, 1, 0]):
        bodies = compressed_bodies(counts, REFERENCE, BEATS, fiducial=4, kinds=kinds)
        np.testing.assert_allclose(read(bodies).signal, counts * 0.005, rtol=1e-5, atol=1e-6)


def test_beats_and_residual_have_their_own_units(counts: np.ndarray) -> None:
    counts = counts[:2, :130]
    bodies = compressed_bodies(counts, REFERENCE, BEATS, fiducial=4)
    halved = waveforms(list(REFERENCE), unit=2500)
    difference = read(bodies).signal - read(bodies | {5: halved}).signal
    expected = np.zeros((2, 130))
    for first, middle, last in BEATS:
        expected[:, first - 1 : last] += REFERENCE[:, first - middle + 3 :][:, : last - first + 1]
    np.testing.assert_allclose(difference, expected * 0.0025, atol=1e-6)


def test_beats_at_the_ends_of_a_lead(counts: np.ndarray) -> None:
    counts = counts[:2, :60]
    beats = [(1, 2, 6), (56, 58, 60)]
    bodies = compressed_bodies(counts, REFERENCE, beats, fiducial=4)
    np.testing.assert_allclose(read(bodies).signal, counts * 0.005, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decimation", [2, 4])
def test_bimodal_compression(decimation: int) -> None:
    """Zones are exact; between them, with samples left over, the residual is interpolated."""
    time = np.arange(500)
    residual = np.stack([40 * np.sin(time / 40), 25 * np.cos(time / 55)]).round().astype(int)
    beats = [(40, 60, 90), (230, 250, 280), (425, 445, 475)]
    zones = [(51, 70), (241, 261), (436, 455)]
    shape = np.exp(-(((np.arange(60) - 24) / 6.0) ** 2))
    reference = (np.array([[200], [-150]]) * shape).astype(int)
    counts = residual.copy()
    for first, middle, last in beats:
        begin = first - middle + 24
        counts[:, first - 1 : last] += reference[:, begin : begin + last - first + 1]
    rough = np.random.default_rng(2).integers(-50, 50, (2, 500))
    protected = np.zeros(500, bool)
    for first, last in zones:
        protected[first - 1 : last] = True
    counts[:, protected] += rough[:, protected]
    bodies = compressed_bodies(
        counts, reference, beats, fiducial=25, zones=zones, decimation=decimation
    )
    record = read(bodies)
    assert (record.rate, record.signal.shape) == (500, (2, 500))
    error = np.abs(record.signal - counts * 0.005)
    assert error[:, protected].max() < 1e-5
    assert error.max() < 0.015  # 3 counts, of a slope of 1 count a sample
    assert len(bodies[6]) < len(compressed_bodies(counts, reference, beats, fiducial=25)[6])


def test_bimodal_compression_keeps_constant_voltages() -> None:
    counts = np.repeat([[10], [-20]], 103, axis=1)
    zones = [(1, 4), (50, 60)]
    arguments = {"fiducial": 4, "zones": zones, "decimation": 4}
    bodies = compressed_bodies(counts, REFERENCE * 0, [(1, 4, 4), (50, 52, 55)], **arguments)
    np.testing.assert_allclose(read(bodies).signal, counts * 0.005, rtol=1e-6)


def test_version_3_has_no_bimodal_compression(counts: np.ndarray) -> None:
    bodies = simple_bodies(counts, bimodal=1)
    assert refused(bodies) == "section 4"
    assert read_record(scp_bytes(bodies, protocol=30)).signal.shape == (3, 500)


# ------------------------------------------------------------------ refusals


def test_damage_fails_a_checksum(counts: np.ndarray) -> None:
    content = scp_bytes(simple_bodies(counts))
    for place in (40, 160, 300, len(content) - 9):
        damaged = bytearray(content)
        damaged[place] ^= 4
        with pytest.raises(RecordError) as whole:
            read_record(bytes(damaged))
        assert whole.value.field == "checksum of the record"
        with pytest.raises(RecordError) as part:
            read_record(with_checksum(bytes(damaged[2:])))
        assert part.value.field.startswith("checksum of section ")


def test_a_pointer_that_leads_elsewhere(counts: np.ndarray) -> None:
    content = scp_bytes(simple_bodies(counts))
    later = bytearray(content[6:142])
    struct.pack_into("<I", later, 16 + 36, struct.unpack_from("<I", later, 16 + 36)[0] + 2)
    moved = content[2:6] + section(0, bytes(later[16:])) + content[142:]
    with pytest.raises(RecordError) as caught:
        read_record(with_checksum(moved))
    assert caught.value.field == "length of section 3"


@pytest.mark.parametrize("number", [3, 6])
def test_a_section_that_is_missing(counts: np.ndarray, number: int) -> None:
    bodies = simple_bodies(counts)
    del bodies[number]
    assert refused(bodies) == f"section {number}"


@pytest.mark.parametrize(
    ("options", "field"),
    [({"unit": 0}, "amplitude"), ({"interval": 0}, "sample interval")],
)
def test_no_unit_no_rate(counts: np.ndarray, options: dict[str, int], field: str) -> None:
    assert refused(simple_bodies(counts, **options)).startswith(field)


def test_kinds_of_differences(counts: np.ndarray) -> None:
    bodies = simple_bodies(counts)
    body = bytearray(bodies[6])
    body[4] = 3
    assert refused(bodies | {6: bytes(body)}).startswith("kind of differences")


@pytest.mark.parametrize("huffman", [True, False])
def test_fewer_samples_than_announced(counts: np.ndarray, huffman: bool) -> None:
    bodies = simple_bodies(counts) | {3: leads_body((1, 2, 3), [(1, 500), (1, 520), (1, 500)])}
    if not huffman:
        del bodies[2]
        bodies[6] = waveforms(list(counts), code=None)
    assert refused(bodies) == "samples of lead 2 of section 6"
    assert refused(bodies | {3: leads_body((1,), [(1, 1 << 31)])}).startswith("samples of lead 1")


@pytest.mark.parametrize("samples", [(0, 9), (9, 3)])
def test_samples_that_are_no_range(counts: np.ndarray, samples: tuple[int, int]) -> None:
    assert refused(simple_bodies(counts) | {3: leads_body((1,), [samples])}).startswith("samples")


def test_a_gap_between_leads(counts: np.ndarray) -> None:
    ranges = [(1, 500), (1, 500), (10_000_001, 10_000_500)]
    assert refused(simple_bodies(counts) | {3: leads_body((1, 2, 3), ranges)}).startswith("samples")


@pytest.mark.parametrize("number", [4, 5])
def test_subtraction_without_its_sections(counts: np.ndarray, number: int) -> None:
    bodies = compressed_bodies(counts[:2, :130], REFERENCE, BEATS, fiducial=4)
    del bodies[number]
    assert refused(bodies) == f"section {number}"


def test_a_beat_of_another_rate(counts: np.ndarray) -> None:
    bodies = compressed_bodies(counts[:2, :130], REFERENCE, BEATS, fiducial=4)
    other = waveforms(list(REFERENCE), interval=1000)
    assert refused(bodies | {5: other}).startswith("sample interval")


def test_a_lead_longer_than_the_section(counts: np.ndarray) -> None:
    bodies = simple_bodies(counts)
    assert refused(bodies | {6: bodies[6][:-40]}).startswith("end of the samples")
    assert refused(bodies | {6: bodies[6][:7]}) == "section 6"


# ------------------------------------------------------------------ real files


def test_the_real_example_equals_its_twin_in_dicom(shared: Path) -> None:
    folder = shared / "data" / "formats"
    record = read_record(folder / "scp" / "ecgtoolkit_Example.scp")
    twin = read_record(folder / "dicom" / "ecgtoolkit_Example.dcm")
    assert (record.signal.shape, record.rate) == ((12, 5000), 500)
    np.testing.assert_array_equal(record.select(twin.leads).signal, twin.signal)
    assert (record.signal.min(), record.signal.max()) == pytest.approx((-1.9275, 0.9725), abs=1e-6)


def test_real_files_at_600_hz(shared: Path) -> None:
    files = sorted((shared / "data" / "formats" / "scp").glob("*.SCP"))
    records = [read_record(file) for file in files]
    assert [record.signal.shape for record in records] == [(8, 6000)] * 2
    assert [record.rate for record in records] == [600, 600]
    assert records[0].leads == ("I", "II", "V3R", "V1", "V2", "V4", "V6", "V7")
    assert records[0].metadata["heart_rate_bpm"] == "82"
    assert records[1].metadata["statements"].startswith("sinusrytm (långsam)\n")
