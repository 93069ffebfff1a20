"""Values that WFDB files hold, against the wfdb package and against the bytes."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.records.wfdb_header import Header, parse_header

wfdb = pytest.importorskip("wfdb")


def read_header(path: Path) -> Header:
    return parse_header(path.read_bytes(), str(path))


def microvolts(path: Path) -> np.ndarray:
    return np.rint(read_record(path).signal * np.float64(1000))


def assert_agrees_with_package(path: Path) -> None:
    theirs = wfdb.rdrecord(str(path.with_suffix("")))
    ours = read_record(path)
    np.testing.assert_array_equal(ours.signal, theirs.p_signal.T.astype(np.float32))
    assert ours.rate == theirs.fs
    assert [lead.lower() for lead in ours.leads] == [lead.lower() for lead in theirs.sig_name]


def test_ptbxl_agrees_with_the_wfdb_package(ptbxl_60: Path) -> None:
    headers = sorted(ptbxl_60.glob("records100/*/*.hea"))
    assert len(headers) == 60
    for path in headers:
        assert_agrees_with_package(path)


def test_ptbxl_is_lossless_in_integer_microvolts(ptbxl_60: Path) -> None:
    path = ptbxl_60 / "records100" / "00000" / "00001_lr.hea"
    stored = np.fromfile(path.with_suffix(".dat"), "<i2").reshape(1000, 12).T
    np.testing.assert_array_equal(microvolts(path), stored)
    assert read_record(path).leads == STANDARD_LEADS


@pytest.mark.slow
def test_all_of_ptbxl_reads(shared: Path, tmp_path: Path) -> None:
    unpack = shared / "data" / "ptbxl" / "unpack.py"
    subprocess.run([sys.executable, unpack, tmp_path], check=True, capture_output=True)
    headers = sorted(tmp_path.glob("records100/*/*.hea"))
    assert len(headers) == 21799
    for path in headers:
        assert read_record(path).signal.shape == (12, 1000)
    for path in headers[:: len(headers) // 300]:
        assert_agrees_with_package(path)


def test_records_of_other_sources_match_their_bytes(shared: Path) -> None:
    headers = sorted((shared / "data" / "samples").glob("*/*.hea"))
    assert len(headers) == 19
    for path in headers:
        raw = np.fromfile(path.with_suffix(".mat"), "<i2", offset=24).reshape(-1, 12).T
        record = read_record(path)
        np.testing.assert_array_equal(record.signal, (raw / 1000.0).astype(np.float32))
        assert record.leads == STANDARD_LEADS
        assert record.rate == (1000.0 if path.parent.name == "ptb" else 500.0)
        assert record.metadata["Dx"]


def test_hash_is_of_header_then_signal_and_comments_become_metadata(record: Path) -> None:
    expected = hashlib.sha256(record.read_bytes() + record.with_suffix(".dat").read_bytes())
    assert read_record(record).source_hash == expected.hexdigest()
    assert read_record(record).metadata == {"Age": "85", "Sex": "F"}


@pytest.mark.parametrize(
    ("units", "factor"),
    [("MV", 1), ("uV", 1e-3), ("UV", 1e-3), ("\u00b5V", 1e-3), ("\u03bcV", 1e-3), ("V", 1e3)],
)
def test_units_become_millivolts(
    edit: Callable[[str, str], Path], samples: np.ndarray, units: str, factor: float
) -> None:
    record = read_record(edit("1000(0)/mV", f"50(7)/{units}"))
    expected = (samples[0].astype(np.float64) - 7) / 50 * factor
    np.testing.assert_allclose(record.signal[0], expected, rtol=2e-7)
    np.testing.assert_allclose(record.signal[1], samples[1] / 1000, rtol=2e-7)


def test_defaults_of_the_format(edit: Callable[[str, str], Path]) -> None:
    """A baseline that is left out is the ADC zero, a gain without units is in millivolts."""
    lead = read_header(edit("1000(0)/mV 16 0", "1000 16 12")).leads[0]
    assert (lead.baseline, lead.units) == (12, "mV")


@pytest.mark.parametrize(
    "line",
    [
        "demo 3 100/500 50",
        "demo 3 100/500(2) 50",
        "demo 3 100 50 12:33:59 12-May-2020",
        "demo 3 100.0 50 23:59:59.5 01/02/1990",
        "  demo 3 1e2 50 whenever",
    ],
)
def test_record_line_forms(edit: Callable[[str, str], Path], line: str) -> None:
    header = read_header(edit("demo 3 100 50", line))
    assert (header.name, header.rate, header.samples) == ("demo", 100.0, 50)


@pytest.mark.parametrize(
    "convert",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: "# made by hand\n" + text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace(" 0 V1", " 0 v1  "),
    ],
)
def test_headers_of_other_editors(record: Path, convert: Callable[[str], str]) -> None:
    record.write_bytes(convert(record.read_text()).encode())
    assert read_record(record).leads == ("I", "II", "V1")


def test_a_latin_1_header_is_text(record: Path, edit: Callable[[str, str], Path]) -> None:
    edit("1000(0)/mV", "1(0)/\u00b5V")
    record.write_bytes(record.read_text().encode("latin-1"))
    assert read_header(record).leads[0].units == "uV"


def test_a_signed_checksum_is_the_same_checksum(record: Path, samples: np.ndarray) -> None:
    total = int(samples[0].sum(dtype=np.int64)) % 65536
    record.write_text(record.read_text().replace(f" {total} 0 I\n", f" {total - 65536} 0 I\n"))
    assert read_header(record).leads[0].checksum == total - 65536
    assert read_record(record).leads[0] == "I"


def test_checks_that_the_header_leaves_out_are_skipped(record: Path, samples: np.ndarray) -> None:
    lines = [f"demo.dat 16 1000/mV 16 0 {lead}" for lead in ("I", "II", "V1")]
    record.write_text("\n".join(["demo 3 100 50", *lines]))
    assert read_header(record).leads[0].checksum is None
    np.testing.assert_array_equal(microvolts(record), samples)


def test_invalid_samples_are_nan(record: Path, samples: np.ndarray) -> None:
    samples[1, 4] = -32768
    lines = [f"demo.dat 16 1000/mV 16 0 {lead}" for lead in ("I", "II", "V1")]
    record.write_text("\n".join(["demo 3 100 50", *lines]))
    record.with_suffix(".dat").write_bytes(samples.T.astype("<i2").tobytes())
    assert np.argwhere(np.isnan(read_record(record).signal)).tolist() == [[1, 4]]
    assert_agrees_with_package(record)


@pytest.mark.parametrize("line", ["demo 3 100", "demo 3 100 0"])
def test_a_length_that_is_left_out_follows_from_the_file(
    record: Path, edit: Callable[[str, str], Path], samples: np.ndarray, line: str
) -> None:
    np.testing.assert_array_equal(microvolts(edit("demo 3 100 50", line)), samples)
    content = record.with_suffix(".dat").read_bytes()
    record.with_suffix(".dat").write_bytes(content[:-1])
    with pytest.raises(RecordError) as caught:
        read_record(record)
    assert caught.value.field == "size of the signal file"


@pytest.mark.parametrize("fmt", ["24", "32", "80", "212"])
def test_a_length_that_is_left_out_follows_in_other_formats(tmp_path: Path, fmt: str) -> None:
    write_by_package(tmp_path, np.arange(-51, 51).reshape(51, 2), fmt)
    whole = read_record(tmp_path / "other").signal
    header = tmp_path / "other.hea"
    header.write_text(header.read_text().replace(" 100 51", " 100", 1))
    np.testing.assert_array_equal(read_record(header).signal, whole)


def test_a_folder_in_the_names_may_be_lost(record: Path) -> None:
    """PTB-XL+ names `ge/00001_medians.dat` in a header that lies beside the file."""
    whole = read_record(record)
    record.write_text(record.read_text().replace("demo", "ge/demo"))
    read = read_record(record)
    assert read.name == "demo"
    np.testing.assert_array_equal(read.signal, whole.signal)


@pytest.mark.parametrize(
    "line",
    [
        "{file} 16 20(-1600)/mmHg 16 0 {first} 5 0 ABP",
        "{file} 16 0(0)/mV 16 0 {first} 5 0 ECG1",
        "{file} 16 1000(x)/mV 16 0 {first} 5 0 ECG1",
        "{file} 16x2 1000/mV 16 0 {first} 5 0 ECG1",
        "{file} 16x3 2000/Ohm",
        "gone.dat 311 12/NU 16 0 0 5 0 PLETH",
        "~ 0 12/NU 16 0 0 5 0 PLETH",
    ],
)
def test_what_lies_beside_the_leads_does_not_matter(
    record: Path, samples: np.ndarray, line: str
) -> None:
    """Another signal's unit, gain, rate or file; it is named, and the leads are read."""
    count = 2 if "16x2" in line else 3 if "16x3" in line else 1 if line.startswith("{") else 0
    frames = np.concatenate([samples[:1], np.full((count, 50), 9), samples[1:]]).T
    record.with_suffix(".dat").write_bytes(frames.astype("<i2").tobytes())
    lines = record.read_text().replace("demo 3", "demo 4").split("\n")
    lines.insert(2, line.format(file="demo.dat", first=9))
    record.write_text("\n".join(lines))
    read = read_record(record)
    assert read.leads == ("I", "II", "V1")
    np.testing.assert_array_equal(np.rint(read.signal * 1000), samples)
    name = next((x for x in ("ABP", "ECG1", "PLETH") if x in line), "demo.dat")
    assert read.metadata["left_out"].startswith(f"{name} (")


def test_a_record_without_ecg_leads_is_refused_with_the_unit(record: Path) -> None:
    text = record.read_text().replace("/mV", "/mmHg")
    for lead, name in {" I\n": " ABP\n", " II\n": " PAP\n", " V1\n": " CVP\n"}.items():
        text = text.replace(lead, name)
    record.write_text(text)
    with pytest.raises(RecordError) as caught:
        read_record(record)
    assert (caught.value.field, caught.value.value) == ("units of lead ABP", "mmHg")


def test_leads_of_two_signal_files(record: Path, samples: np.ndarray) -> None:
    text = record.read_text().split("\n")
    text[2] = text[2].replace("demo.dat", "other.dat")
    record.write_text("\n".join(text))
    record.with_suffix(".dat").write_bytes(samples[[0, 2]].T.astype("<i2").tobytes())
    record.with_name("other.dat").write_bytes(samples[1].astype("<i2").tobytes())
    np.testing.assert_array_equal(microvolts(record), samples)


def write_by_package(folder: Path, digital: np.ndarray, fmt: str) -> None:
    """Write the record `other` of two leads; the package's own writer warns under pandas 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wfdb.wrsamp(
            "other",
            fs=250,
            units=["mV", "mV"],
            sig_name=["I", "II"],
            d_signal=digital,
            fmt=[fmt, fmt],
            adc_gain=[200.0, 10.0],
            baseline=[0, 5],
            write_dir=str(folder),
        )


@pytest.mark.parametrize("fmt", ["24", "32", "80", "212", "508", "516", "524"])
def test_other_formats_agree_with_the_package(tmp_path: Path, fmt: str) -> None:
    bound = {"80": 100, "508": 100, "212": 2000}.get(fmt, 30000)
    digital = np.random.default_rng(3).integers(-bound, bound, (400, 2))
    write_by_package(tmp_path, digital, fmt)
    expected = (digital - [0, 5]) / [200, 10]
    np.testing.assert_allclose(read_record(tmp_path / "other").signal, expected.T, rtol=1e-7)
    assert_agrees_with_package(tmp_path / "other.hea")


@pytest.mark.parametrize("per_frame", [1, 2])
@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212"])
def test_common_formats_are_decoded_as_by_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str, per_frame: int
) -> None:
    """Every bit pattern of a byte, odd numbers of samples, several samples a frame."""
    frames, size = 35, {"16": 2, "24": 3, "32": 4, "80": 1, "212": 1.5}[fmt]
    count = math.ceil(3 * frames * per_frame * size)
    content = np.random.default_rng(1).integers(0, 256, count, np.uint8).tobytes()
    (tmp_path / "a.dat").write_bytes(content)
    code = fmt if per_frame == 1 else f"{fmt}x{per_frame}"
    lines = [f"a.dat {code} 100(3)/mV 16 0 {lead}\n" for lead in ("I", "II", "V1")]
    (tmp_path / "a.hea").write_text(f"a 3 100 {frames}\n" + "".join(lines))
    monkeypatch.setattr("einthoven.records.wfdb_samples._through_package", None)
    ours = read_record(tmp_path / "a")
    assert ours.rate == 100 * per_frame
    theirs = wfdb.rdrecord(str(tmp_path / "a"), smooth_frames=False)
    np.testing.assert_array_equal(ours.signal, np.array(theirs.e_p_signal, np.float32))
    monkeypatch.setattr("einthoven.records.wfdb_samples._BLOCK", 13)
    in_blocks = read_record(tmp_path / "a")
    np.testing.assert_array_equal(in_blocks.signal, ours.signal)
    assert in_blocks.source_hash == ours.source_hash
    for first, last in ((0, 1), (3, 9), (8, 35)):
        part = read_record(tmp_path / "a", start=first / ours.rate, stop=last / ours.rate)
        np.testing.assert_array_equal(part.signal, ours.signal[:, first:last])


def test_a_part_needs_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einthoven.records.wfdb_samples._BLOCK", 1 << 12)
    write_wfdb(tmp_path / "long", np.zeros((2, 300_000)), rate=500, leads=("I", "II"))
    read_record(tmp_path / "long", stop=1)  # imports
    tracemalloc.start()
    try:
        assert read_record(tmp_path / "long", start=300, stop=310).signal.shape == (2, 5000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 600_000  # the samples take 1,200,000 bytes


def test_a_part_is_refused_if_the_rest_is_damaged(record: Path) -> None:
    content = bytearray(record.with_suffix(".dat").read_bytes())
    content[-1] ^= 1
    record.with_suffix(".dat").write_bytes(content)
    with pytest.raises(RecordError, match="checksum"):
        read_record(record, stop=0.1)


@pytest.mark.parametrize(
    ("fmt", "mark"), [("24", b"\0\0\x80"), ("80", b"\0"), ("212", b"\0\x08\0")]
)
def test_the_smallest_value_of_a_format_is_invalid(tmp_path: Path, fmt: str, mark: bytes) -> None:
    write_by_package(tmp_path, np.ones((5, 2), dtype=np.int64), fmt)
    file, header = tmp_path / "other.dat", tmp_path / "other.hea"
    file.write_bytes(mark + file.read_bytes()[len(mark) :])
    lines = [f"other.dat {fmt} 1/mV 16 0 {lead}" for lead in ("I", "II")]
    header.write_text("\n".join(["other 2 100 5", *lines]))
    assert np.argwhere(np.isnan(read_record(header).signal)).tolist() == [[0, 0]]
    assert_agrees_with_package(header)


@pytest.mark.parametrize("size", [4, 7])
def test_format_212_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    """Three samples take five bytes, of which a sixth may follow."""
    (tmp_path / "a.hea").write_text("a 1 100 3\na.dat 212 1/mV 12 0 I\n")
    for allowed in (5, 6):
        (tmp_path / "a.dat").write_bytes(bytes(allowed))
        assert read_record(tmp_path / "a").signal.shape == (1, 3)
    (tmp_path / "a.dat").write_bytes(bytes(size))
    with pytest.raises(RecordError, match=f"file = {size}:"):
        read_record(tmp_path / "a")


def test_leads_of_one_file_in_two_formats_are_refused(record: Path) -> None:
    record.write_text(record.read_text().replace("demo.dat 16", "demo.dat 212", 1))
    with pytest.raises(RecordError) as caught:
        read_record(record)
    assert caught.value.field == "format"


def test_other_formats_are_verified_too(tmp_path: Path) -> None:
    write_by_package(tmp_path, np.arange(-50, 50).reshape(50, 2), "80")
    raw = bytearray((tmp_path / "other.dat").read_bytes())
    raw[41] ^= 4
    (tmp_path / "other.dat").write_bytes(raw)
    with pytest.raises(RecordError, match=r"checksum .*II"):
        read_record(tmp_path / "other")
    (tmp_path / "other.dat").write_bytes(raw[:60])
    with pytest.raises(RecordError, match="file = 60:"):
        read_record(tmp_path / "other")


def segments(folder: Path, **changes: str) -> Path:
    signal = np.linspace(-1, 1, 60, dtype=np.float32).reshape(2, 30)
    write_wfdb(folder / "one", signal, rate=250, leads=["I", "II"])
    write_wfdb(folder / "two", signal * 2, rate=250, leads=["II", "I"])
    lines = {"head": "all/3 2 250 70", "a": "one 30", "b": "~ 10", "c": "two 30"} | changes
    (folder / "all.hea").write_text("\n".join([*lines.values(), "#Age: 3"]))
    return folder / "all.hea"


def test_segments_are_joined_by_lead_name(tmp_path: Path) -> None:
    record = read_record(segments(tmp_path))
    assert (record.leads, record.signal.shape) == (("I", "II"), (2, 70))
    assert np.isnan(record.signal[:, 30:40]).all()
    np.testing.assert_array_equal(record.signal[:, :30], read_record(tmp_path / "one").signal)
    two = read_record(tmp_path / "two").select(["I", "II"])
    np.testing.assert_array_equal(record.signal[:, 40:], two.signal)


def test_parts_of_segments(tmp_path: Path) -> None:
    path = segments(tmp_path)
    whole = read_record(path)
    samples = whole.signal.shape[1]
    for first, last in ((0, 5), (5, samples), (20, 50), (samples - 1, samples)):
        part = read_record(path, start=first / whole.rate, stop=last / whole.rate)
        np.testing.assert_array_equal(part.signal, whole.signal[:, first:last])
        assert (part.leads, part.source_hash) == (whole.leads, whole.source_hash)


def test_segments_may_leave_out_the_length_and_hold_no_ecg(tmp_path: Path) -> None:
    whole = read_record(segments(tmp_path)).signal
    np.testing.assert_array_equal(read_record(segments(tmp_path, head="all/3 2 250")).signal, whole)
    header = tmp_path / "two.hea"
    text = header.read_text().replace("/mV", "/mmHg")
    header.write_text(text.replace(" II\n", " ABP\n").replace(" I\n", " PAP\n"))
    read = read_record(tmp_path / "all").signal
    np.testing.assert_array_equal(read[:, :40], whole[:, :40])
    assert np.isnan(read[:, 40:]).all()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"head": "all/3 2 250 71"}, "number of samples"),
        ({"head": "all/3 2 250 100000060", "b": "~ 100000000"}, "number of samples"),
        ({"b": "one 30", "head": "all/3 2 250 90"}, "segment"),
        ({"head": "all/4 2 250 70"}, "number of segments"),
        ({"head": "all/3 2 500 70"}, "segment one"),
        ({"a": "../one 30"}, "segment"),
        ({"a": "one"}, "segment"),
        ({"c": "all 30"}, "number of segments"),
        ({"c": "gone 30"}, "header"),
    ],
)
def test_segments_that_do_not_hold_together(
    tmp_path: Path, changes: dict[str, str], field: str
) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(segments(tmp_path, **changes))
    assert caught.value.field == field
