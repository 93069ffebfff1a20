"""MATLAB v4, v5 and v7.3."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from array_files import SIDECAR, sound_mat, three_leads, twelve_leads, with_sidecar
from scipy.io import savemat

from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, read_record
from einthoven.records.formats import find_records
from einthoven.records.wfdb import write_wfdb

CODE15 = Path(__file__).resolve().parents[3] / "shared/data/samples/code15"


def test_cpsc_2018(tmp_path: Path) -> None:
    record = read_record(sound_mat(tmp_path))
    assert (record.rate, record.leads) == (500, STANDARD_LEADS)
    assert record.metadata == {"age": "70", "sex": "female"}
    np.testing.assert_array_equal(record.signal, twelve_leads())


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_variable_that_a_sidecar_describes(
    tmp_path: Path, version: str, compressed: bool
) -> None:
    path = with_sidecar(tmp_path / "exam.mat")
    options: dict[str, Any] = {"do_compression": True} if compressed and version == "5" else {}
    values = {"feats": three_leads(), "sample_rate": 250, "id": "a7"}
    savemat(path, values, format=version, **options)
    np.testing.assert_allclose(read_record(path).signal, three_leads(), rtol=1e-6)


def test_a_file_that_states_everything(tmp_path: Path) -> None:
    path = tmp_path / "exam.mat"
    leads = np.array(["I", "II", "V6"], object)
    savemat(path, {"ecg": three_leads(), "rate": 250.0, "unit": "uV", "leads": leads})
    record = read_record(path.read_bytes().replace(b"uV", b"mV"))
    assert (record.rate, record.leads) == (250, ("I", "II", "V6"))
    with pytest.raises(RecordError) as caught:
        read_record(path)  # microvolts of this size are none
    assert caught.value.field == "unit"
    with_sidecar(path, "rate = 500\n")
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert (caught.value.field, caught.value.value) == ("rate", 250.0)


def test_fields_of_structures(tmp_path: Path) -> None:
    path = with_sidecar(tmp_path / "exam.mat", SIDECAR + 'array = "study.ecg.raw"\n')
    ecg = {"raw": three_leads(), "filtered": 0.5 * three_leads()}
    savemat(path, {"study": {"ecg": ecg, "note": "x"}})
    np.testing.assert_allclose(read_record(path).signal, three_leads(), rtol=1e-6)
    with_sidecar(path)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.field == "array"


def test_version_7_3(tmp_path: Path) -> None:
    path = tmp_path / "exam.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["ecg"] = three_leads().T  # MATLAB stores columns first
        file["ecg"].attrs["MATLAB_class"] = np.bytes_("double")
        file["rate"] = [[250.0]]
        file["unit"] = np.array([[ord("m")], [ord("V")]], np.uint16)
        file["unit"].attrs["MATLAB_class"] = np.bytes_("char")
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path.write_bytes(head.ljust(512, b"\0") + path.read_bytes()[512:])
    with_sidecar(path, 'leads = ["I", "II", "V6"]\n')
    record = read_record(path)
    np.testing.assert_allclose(record.signal, three_leads(), rtol=1e-6)
    assert record.rate == 250


def test_records_of_an_array(tmp_path: Path) -> None:
    path = with_sidecar(tmp_path / "all.mat")
    savemat(path, {"x": np.stack([three_leads(), 2 * three_leads()])})
    assert [p.name for p in find_records(tmp_path)] == ["all.mat::0", "all.mat::1"]
    np.testing.assert_allclose(read_record(f"{path}::1").signal, 2 * three_leads(), rtol=1e-6)


def test_samples_with_a_header_stay_wfdb(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "a", three_leads().astype(np.float32), rate=250, leads=["I", "II", "V6"])
    body = (tmp_path / "a.dat").read_bytes()
    matlab = np.array([30, 3, 200, 0, 4], "<i4").tobytes() + b"val\0" + body
    (tmp_path / "a.mat").write_bytes(matlab)
    header = (tmp_path / "a.hea").read_text()
    (tmp_path / "a.hea").write_text(header.replace("a.dat 16", "a.mat 16+24"))
    with_sidecar(tmp_path / "a.mat", "rate = 1\n")
    assert read_record(tmp_path / "a.mat").rate == 250
    (tmp_path / "a.hea").unlink()
    (tmp_path / "a.toml").unlink()
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / "a.mat")
    assert (caught.value.field, caught.value.value) == ("header", "a.hea")


def claims(path: Path, *, shape: tuple[int, int], kind: int) -> None:
    """A matrix of a class and a shape, without values."""
    sizes = struct.pack("<II2i", 5, 8, *shape)
    data = struct.pack("<IIII", 6, 8, kind, 0) + sizes + struct.pack("<HH4s", 1, 1, b"x")
    if kind == 2:
        data += struct.pack("<HHi", 5, 4, 8) + struct.pack("<II8s", 1, 8, b"field")
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(header + struct.pack("<II", 14, len(data)) + data)


@pytest.mark.parametrize("kind", [1, 2, 6], ids=["cells", "structures", "numbers"])
def test_more_values_than_bytes(tmp_path: Path, kind: int) -> None:
    claims(with_sidecar(tmp_path / "bad.mat"), shape=(1 << 15, 1 << 15), kind=kind)
    with pytest.raises(RecordError):
        read_record(tmp_path / "bad.mat")


@pytest.mark.skipif(not CODE15.is_dir(), reason="needs ../shared/data/samples")
def test_samples_of_code_15(tmp_path: Path) -> None:
    path = tmp_path / "code_15_1238362.mat"
    path.write_bytes((CODE15 / path.name).read_bytes())
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.field == "description"
    names = ", ".join(f'"{lead}"' for lead in STANDARD_LEADS)
    (tmp_path / "ecg.toml").write_text(f'rate = 400\nunit = "mV"\nleads = [{names}]\n')
    record = read_record(path)
    assert (record.rate, record.signal.shape) == (400, (12, 2934))
    assert record.signal.min() == np.float32(-4.612309)
