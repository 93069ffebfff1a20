"""HDF5: CODE-15, SPH, and files with a sidecar."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from array_files import (
    CODE_TEST,
    SIDECAR,
    code15,
    sound_h5,
    three_leads,
    twelve_leads,
    with_sidecar,
)

from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, read_record
from einthoven.records.formats import find_records

SPH = Path(__file__).resolve().parents[3] / "shared/data/samples/sph"


def test_an_exam_of_code_15(tmp_path: Path) -> None:
    path = tmp_path / "exams_part0.hdf5"
    tracings = code15(path)
    record = read_record(f"{path}::4")
    assert (record.name, record.rate, record.leads) == ("4", 400, STANDARD_LEADS)
    np.testing.assert_array_equal(record.signal, tracings[1, 581:3515].T)
    assert record.metadata == {"padding_s": "1.4525 1.4525"}
    assert record.source == str(path)
    other = read_record(f"{path}::17")
    assert other.source_hash != record.source_hash


def test_a_part_of_an_exam_begins_after_the_padding(tmp_path: Path) -> None:
    path = tmp_path / "exams_part0.hdf5"
    tracings = code15(path)
    part = read_record(f"{path}::17", start=1, stop=2)
    np.testing.assert_array_equal(part.signal, tracings[0, 981:1381].T)


def test_an_exam_without_padding(tmp_path: Path) -> None:
    code15(tmp_path / "exams.hdf5", samples=4096)
    record = read_record(tmp_path / "exams.hdf5::17")
    assert record.signal.shape == (12, 4096)
    assert record.metadata == {}


def test_the_exams_of_a_folder(tmp_path: Path) -> None:
    """The row of zeros with id 0 is none, and a table among the files is no ECG."""
    code15(tmp_path / "exams_part0.hdf5")
    (tmp_path / "exams.csv").write_text("exam_id,age,AF,trace_file\n17,50,True,exams_part0.hdf5\n")
    names = [path.name for path in find_records(tmp_path)]
    assert names == ["exams_part0.hdf5::17", "exams_part0.hdf5::4"]


@pytest.mark.parametrize("member", ["", "::5", "::0", "::-1", "::x", "::017", "::" + "9" * 400])
def test_an_exam_that_is_not_in_the_file(tmp_path: Path, member: str) -> None:
    code15(tmp_path / "exams.hdf5")
    with pytest.raises(RecordError) as caught:
        read_record(f"{tmp_path}/exams.hdf5{member}")
    assert caught.value.field == "record"


@pytest.mark.parametrize("exams", [(17, 17, 0), (17, 4), (1.5, 2.5, 3.5)])
def test_exam_ids_that_are_not_one_each(tmp_path: Path, exams: Any) -> None:
    code15(tmp_path / "exams.hdf5", exams)
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / "exams.hdf5::17")
    assert caught.value.field == "exam_id"


def test_tracings_without_ids_are_named_by_row(tmp_path: Path) -> None:
    tracings = code15(tmp_path / "exams.hdf5", None)
    assert [path.name for path in find_records(tmp_path)][:2] == ["exams.hdf5::0", "exams.hdf5::1"]
    record = read_record(tmp_path / "exams.hdf5::1")
    np.testing.assert_array_equal(record.signal, tracings[1, 581:3515].T)
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / "exams.hdf5::2")  # zeros
    assert caught.value.field == "samples"
    for absent in ("3", "01"):
        with pytest.raises(RecordError):
            read_record(tmp_path / f"exams.hdf5::{absent}")


def test_the_order_of_leads_of_code_test(tmp_path: Path) -> None:
    """CODE-test has aVL, aVF, aVR: what follows from I and II decides."""
    tracings = code15(tmp_path / "ecg_tracings.hdf5", None, order=CODE_TEST)
    record = read_record(tmp_path / "ecg_tracings.hdf5::0")
    assert record.leads == CODE_TEST
    np.testing.assert_array_equal(record.select(["aVL"]).signal[0], tracings[0, 581:3515, 3])


def test_another_tracing_shows_the_order_where_a_lead_is_off(tmp_path: Path) -> None:
    code15(tmp_path / "ecg.hdf5", None, order=CODE_TEST)
    with h5py.File(tmp_path / "ecg.hdf5", "a") as file:
        file["tracings"][1, :, :6] = 0
    assert read_record(tmp_path / "ecg.hdf5::1").leads == CODE_TEST


def test_an_order_that_no_tracing_shows_is_not_guessed(tmp_path: Path) -> None:
    tracings = code15(tmp_path / "ecg.hdf5", None, order=STANDARD_LEADS[::-1])
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / "ecg.hdf5::0")
    assert caught.value.field == "order of leads"
    names = ", ".join(f'"{lead}"' for lead in STANDARD_LEADS[::-1])
    text = f'array = "tracings"\nrate = 400\nunit = "mV"\nleads = [{names}]\n'
    (tmp_path / "ecg.toml").write_text(text)
    record = read_record(tmp_path / "ecg.hdf5::0")
    np.testing.assert_array_equal(record.signal, tracings[0].T)
    assert record.leads == STANDARD_LEADS[::-1]


def test_sph(tmp_path: Path) -> None:
    record = read_record(sound_h5(tmp_path))
    assert (record.rate, record.leads) == (500, STANDARD_LEADS)
    np.testing.assert_array_equal(record.signal, twelve_leads().astype(np.float16))
    with pytest.raises(RecordError):
        read_record(f"{tmp_path}/sound.h5::1")


def test_a_sidecar_that_contradicts_a_known_layout(tmp_path: Path) -> None:
    path = with_sidecar(sound_h5(tmp_path), "rate = 250\n")
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert (caught.value.field, caught.value.value) == ("rate", 500.0)
    with_sidecar(path, "rate = 500\n")
    assert read_record(path).rate == 500


def test_other_floats_named_ecg_are_not_taken_for_sph(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["ecg"] = twelve_leads()
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / "mine.h5")
    assert caught.value.field == "description"


def test_a_dataset_that_a_sidecar_describes(tmp_path: Path) -> None:
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        file["raw/lead_data"] = (three_leads() * 1000).round().T.astype("i2")
        file["beats"] = np.arange(7)
    text = SIDECAR.replace('"mV"', '"uV"')
    record = read_record(with_sidecar(path, text))
    np.testing.assert_allclose(record.signal, three_leads(), atol=6e-4)
    with_sidecar(path, text + 'array = "raw/lead_data"\n')
    np.testing.assert_array_equal(read_record(path).signal, record.signal)
    with_sidecar(path, text + 'array = "beats"\n')
    with pytest.raises(RecordError):
        read_record(path)


def test_records_of_an_array(tmp_path: Path) -> None:
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.stack([three_leads(), 2 * three_leads()])
    with_sidecar(path)
    assert [p.name for p in find_records(tmp_path)] == ["mine.h5::0", "mine.h5::1"]
    np.testing.assert_allclose(read_record(f"{path}::1").signal, 2 * three_leads(), rtol=1e-6)


def never_written(file: h5py.File) -> None:
    file.create_dataset("ecg", (12, 600), "f2")


def partly_written(file: h5py.File) -> None:
    file.create_dataset("ecg", (12, 600), "f2", chunks=(12, 200))[:, :400] = 1


def in_another_file(file: h5py.File) -> None:
    file.create_dataset("ecg", (12, 600), "f2", external=[("raw.bin", 0, 14400)])


def behind_a_link(file: h5py.File) -> None:
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["ecg"] = twelve_leads().astype("f2")
    file["ecg"] = h5py.ExternalLink("other.h5", "/ecg")


def absurdly_large(file: h5py.File) -> None:
    file.create_dataset("ecg", (12, 1 << 40), "f2", chunks=(12, 1000))


def unpacking_to_more(file: h5py.File) -> None:
    ecg = file.create_dataset("ecg", (12, 600), "f2", chunks=(12, 600), compression="gzip")
    ecg.id.write_direct_chunk((0, 0), zlib.compress(bytes(80 << 20)))


@pytest.mark.parametrize(
    "write",
    [
        unpacking_to_more,
        never_written,
        partly_written,
        in_another_file,
        behind_a_link,
        absurdly_large,
    ],
)
def test_samples_that_are_not_in_the_file(
    tmp_path: Path, write: Callable[[h5py.File], None]
) -> None:
    (tmp_path / "raw.bin").write_bytes(bytes(14400))
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        write(file)
    with pytest.raises(RecordError):
        read_record(tmp_path / "bad.h5")


@pytest.mark.skipif(not SPH.is_dir(), reason="needs ../shared/data/samples")
def test_files_of_sph() -> None:
    lengths = [read_record(path).signal.shape for path in sorted(SPH.glob("*.h5"))]
    assert lengths == [(12, 5000), (12, 6000), (12, 6500), (12, 5000)]
    record = read_record(SPH / "SPH00002.h5")
    assert (record.signal.min(), record.signal.max()) == (-3.09765625, 1.99609375)
