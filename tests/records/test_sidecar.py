"""Sidecars, and what they say of an array."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_files import (
    LEADS,
    SIDECAR,
    sound_csv,
    sound_npy,
    sound_npz,
    three_leads,
    with_sidecar,
)

from einthoven.cohorts import open_cohort
from einthoven.errors import RecordError, StoreError
from einthoven.records import read_record
from einthoven.records.formats import files_of, find_records
from einthoven.records.sidecar import Sidecar, described, sidecar_from_texts
from einthoven.signals import pack as pack_module
from einthoven.signals.pack import pack


def test_a_sidecar_of_the_folder(tmp_path: Path) -> None:
    path = sound_npy(tmp_path)
    path.with_suffix(".toml").rename(tmp_path / "ecg.toml")
    assert read_record(path).rate == 250
    with_sidecar(path, SIDECAR.replace("250", "500"))  # its own comes first
    assert read_record(path).rate == 500


STATED: dict[str, Any] = {"rate": np.float32(250), "unit": "mV", "leads": np.array(LEADS)}


@pytest.mark.parametrize("write", [sound_npy, sound_npz, sound_csv])
def test_values_of_the_caller(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    beside = read_record(path)
    path.with_suffix(".toml").unlink()
    sources = [path] if path.suffix == ".csv" else [path, path.read_bytes()]
    for source in sources:
        record = read_record(source, **STATED)
        np.testing.assert_array_equal(record.signal, beside.signal)
        assert (record.rate, record.leads) == (250, LEADS)
    other = read_record(path, **STATED | {"rate": 500})
    assert len({beside.source_hash, record.source_hash, other.source_hash}) == 3
    with pytest.raises(RecordError):  # they hold for one call
        read_record(path)


def test_a_value_of_the_caller_that_the_sidecar_contradicts(tmp_path: Path) -> None:
    path = with_sidecar(sound_npy(tmp_path), 'rate = 250\nunit = "mV"\n')
    assert read_record(path, leads=LEADS, rate=250).rate == 250
    with pytest.raises(RecordError) as caught:
        read_record(path, leads=LEADS, rate=500)
    assert (caught.value.field, caught.value.value) == ("rate", 500)


@pytest.mark.parametrize("values", [{"rate": "x"}, {"rate": -1}, {"unit": 5}])
def test_values_of_the_caller_that_are_wrong(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(sound_npy(tmp_path), **values)
    assert caught.value.field in values


def test_texts_of_the_option(tmp_path: Path) -> None:
    file = tmp_path / "a=b.toml"
    file.write_text('unit = "uV"\nmissing = -32768\n')
    texts = [str(file), "rate=500", "leads=I, II,V1", "header=0", "patient=007", "delimiter=;"]
    assert sidecar_from_texts(texts) == Sidecar(
        rate=500,
        unit="uV",
        leads=["I", "II", "V1"],
        header=0,
        patient="007",
        delimiter=";",
        missing=-32768,
    )
    assert sidecar_from_texts(["unit=4.88 uV"]) == Sidecar(unit="4.88 uV")
    assert sidecar_from_texts([]) is None
    for text, field in {
        "rate=x": "rate",
        "rte=1": "rte",
        "unit=uV": "unit",
        "b.toml": "sidecar",
    }.items():
        with pytest.raises(RecordError) as caught:
            sidecar_from_texts([*texts, text])
        assert caught.value.field == field


def test_a_store_is_packed_with_the_values_of_the_caller(tmp_path: Path) -> None:
    """In other processes too, and not from the parts of an earlier call with other values."""
    np.save(tmp_path / "a.npy", three_leads())
    (tmp_path / "table.csv").write_text("path\na.npy\n")
    cohort = open_cohort(tmp_path / "table.csv", labels=())
    folder = tmp_path / "store"
    with pytest.raises(StoreError):
        pack(cohort, folder, leads=LEADS)
    with described(Sidecar(rate=250, unit="mV", leads=[*LEADS])):
        (job,) = pack_module._jobs(cohort, tmp_path, {"leads": LEADS})
        assert pack(cohort, folder, leads=LEADS).index["rate"].tolist() == [250]
    Context().run(pack_module._pack_shard, job)  # as a fresh process, without the block's values
    assert pack_module._read_part(pack_module._part(tmp_path, 0))["rate"].tolist() == [250]


def test_a_sidecar_belongs_to_the_record(tmp_path: Path) -> None:
    """It is part of the hash, and of the files of a record in a store."""
    path = sound_npy(tmp_path)
    before = read_record(path)
    assert path.with_suffix(".toml") in files_of(path)
    with_sidecar(path, SIDECAR.replace("250", "500"))
    assert read_record(path).source_hash != before.source_hash
    path.with_suffix(".toml").rename(tmp_path / "ecg.toml")
    assert tmp_path / "ecg.toml" in files_of(path)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('rate = "250"', "rate"),
        ("rate = nan", "rate"),
        ("rate = true", "rate"),
        ("rate = 2024-01-01", "rate"),
        ("rate = -250", "rate"),
        ("header = -1", "header"),
        ("header = 99999999999999999999", "header"),
        ("leads = 3", "leads"),
        ('leads_in = "depth"', "leads_in"),
        ("samples = 200.5", "samples"),
        ("units = 1", "units"),
        ("metadata.years = 70", "metadata.years"),
        ("metadata.age = [70]", "metadata"),
    ],
)
def test_a_key_that_is_wrong_is_named(tmp_path: Path, line: str, field: str) -> None:
    path = sound_npy(tmp_path)
    kept = [x for x in SIDECAR.splitlines() if x.split()[0] != field]
    with_sidecar(path, "\n".join([*kept, line]))
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.file == str(path.with_suffix(".toml"))
    assert caught.value.field == field


def test_an_absurd_rate(tmp_path: Path) -> None:
    path = with_sidecar(sound_npy(tmp_path), SIDECAR.replace("250", "1e32"))
    assert read_record(path).rate == 1e32


@pytest.mark.parametrize("text", ["rate =", "rate = 1\nrate = 2", "\x00", "a" * 100, "[" * 5000])
def test_a_sidecar_that_is_no_toml(tmp_path: Path, text: str) -> None:
    path = with_sidecar(sound_npy(tmp_path), text)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.file == str(path.with_suffix(".toml"))


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("mV", 1), ("uV", 1e-3), ("µV", 1e-3), ("V", 1e3), ("4.88 uV", 4.88e-3), ("1e-3V", 1)],
)
def test_units(tmp_path: Path, unit: str, factor: float) -> None:
    np.save(tmp_path / "a.npy", three_leads() / factor)
    path = with_sidecar(tmp_path / "a.npy", SIDECAR.replace("mV", unit))
    np.testing.assert_allclose(read_record(path).signal, three_leads(), rtol=1e-6)


@pytest.mark.parametrize("unit", ["", "mm", "0 uV", "-5 uV", "5 counts", "9e999 mV", "mv"])
def test_unknown_units(tmp_path: Path, unit: str) -> None:
    path = with_sidecar(sound_npy(tmp_path), SIDECAR.replace("mV", unit))
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.field == "unit"


@pytest.mark.parametrize("unit", ["uV", "V", "2 uV", "5 V"])
def test_a_unit_that_the_values_contradict(tmp_path: Path, unit: str) -> None:
    path = with_sidecar(sound_npy(tmp_path), SIDECAR.replace("mV", unit))
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.field == "unit"


def test_statements_of_a_sidecar(tmp_path: Path) -> None:
    text = 'patient = "007"\n[metadata]\nage = 63\nsex = "F"\ntime = "2024-05-17T09:30:00"\n'
    record = read_record(with_sidecar(sound_npy(tmp_path), SIDECAR + text))
    assert record.patient == "007"
    assert record.metadata == {"age": "63", "sex": "female", "time": "2024-05-17T09:30:00"}


@pytest.mark.parametrize("transposed", [False, True])
def test_the_number_of_leads_shows_where_they_lie(tmp_path: Path, transposed: bool) -> None:
    values = three_leads().astype(np.float16)
    np.save(tmp_path / "a.npy", values.T if transposed else values)
    np.testing.assert_array_equal(read_record(with_sidecar(tmp_path / "a.npy")).signal, values)


@pytest.mark.parametrize("shape", [(200,), (4, 200), (1, 3, 200, 1), (0, 3), (3, 0), (3, 199)])
def test_shapes_that_do_not_fit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.ones(shape))
    with pytest.raises(RecordError):
        read_record(with_sidecar(tmp_path / "a.npy"))


@pytest.mark.parametrize("kind", [complex, bool, "U3", "S3", "M8[s]", "O"])
def test_values_that_are_no_numbers(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 200), kind), allow_pickle=True)
    with pytest.raises(RecordError):
        read_record(with_sidecar(tmp_path / "a.npy"))


class Trap:
    """Object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickles_are_never_loaded(tmp_path: Path, suffix: str) -> None:
    path, written = with_sidecar(tmp_path / f"a{suffix}"), tmp_path / "written"
    objects = np.array([Trap(written)], object)
    np.save(tmp_path / "a.npy", objects) if suffix == ".npy" else np.savez(path, ecg=objects)
    for content in (path.read_bytes(), pickle.dumps(Trap(written))):
        path.write_bytes(content)
        with pytest.raises(RecordError):
            read_record(path)
    assert not written.exists()


def test_an_npz_that_states_everything(tmp_path: Path) -> None:
    leads = ["I", "II", "V6"]
    np.savez(tmp_path / "a.npz", ecg=three_leads(), rate=250, unit="mV", leads=leads)
    for source in (tmp_path / "a.npz", (tmp_path / "a.npz").read_bytes()):
        assert read_record(source).leads == ("I", "II", "V6")


def test_objects_beside_the_samples_are_passed_over(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ecg=three_leads(), note=np.array([{"a": 1}], object))
    assert read_record(with_sidecar(tmp_path / "a.npz")).signal.shape == (3, 200)


def test_several_arrays_that_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", raw=three_leads(), filtered=three_leads())
    path = with_sidecar(tmp_path / "a.npz")
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.value == ["raw", "filtered"]
    with_sidecar(path, SIDECAR + 'array = "raw"\n')
    assert read_record(path).signal.shape == (3, 200)


def test_an_array_of_records_is_packed(tmp_path: Path) -> None:
    """The array of a study, named by row in a folder and in a table."""
    np.save(tmp_path / "study.npy", np.stack([three_leads(), 2 * three_leads()]))
    with_sidecar(tmp_path / "study.npy")
    assert [path.name for path in find_records(tmp_path)] == ["study.npy::0", "study.npy::1"]
    table = tmp_path / "table.csv"
    table.write_text("path,patient,MI\nstudy.npy::0,a,0\nstudy.npy::1,b,1\n")
    store = pack(open_cohort(table), tmp_path / "store", leads=["I", "II", "V6"], workers=1)
    signal = store.record("study.npy::1").signal
    np.testing.assert_allclose(signal, 2 * three_leads(), atol=6e-4)
    for member in ("", "::2", "::x"):
        with pytest.raises(RecordError):
            read_record(f"{tmp_path}/study.npy{member}")
