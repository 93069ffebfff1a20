from __future__ import annotations

import errno
import json
import os
import pickle
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import FileError, StoreError
from einthoven.records import STANDARD_LEADS, EcgFile, Format, Record, formats, read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.signals import pack as packing
from einthoven.signals.pack import CHECKED_SOURCES, REQUEST_FILE, check_sources, excluded, pack
from einthoven.signals.store import Store


@pytest.fixture
def everyone(synthetic_path: Path) -> Cohort:
    return open_cohort(synthetic_path, empty_rows="keep")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARD_RECORDS", 40)


def test_signals_come_back_exactly(synthetic_path: Path, synthetic_store: Store) -> None:
    record = read_record(synthetic_path / "records100/00000/00007_lr")
    stored = synthetic_store.record("7")
    assert np.array_equal(stored.signal, record.signal)
    assert (stored.rate, stored.leads) == (record.rate, record.leads)
    assert stored.source_hash == record.source_hash


def test_rows_are_read_in_the_requested_order(synthetic_store: Store) -> None:
    rows = synthetic_store.rows(["9", "3", "5"])
    (chunk,) = synthetic_store.read(rows)
    for place, name in zip(chunk.places, ["9", "3", "5"], strict=True):
        assert np.array_equal(
            chunk.signals[place] / np.float32(1000), synthetic_store.record(name).signal
        )


def test_the_index_holds_labels_patients_and_splits(
    synthetic_store: Store, everyone: Cohort
) -> None:
    index = synthetic_store.index
    assert index["patient"].tolist() == everyone.patients().tolist()
    assert index["split"].tolist() == everyone.table["split"].tolist()
    row = everyone.targets()[10]
    names = [name for name, value in zip(everyone.labels, row, strict=True) if value]
    assert list(index["labels"].iloc[10]) == names


@pytest.mark.usefixtures("small_shards")
def test_several_processes_write_the_same_store(everyone: Cohort, tmp_path: Path) -> None:
    one = pack(everyone, tmp_path / "one", workers=1)
    written = (tmp_path / "one" / "shard-00000.i16").stat().st_mtime_ns
    pack(everyone, tmp_path / "one", workers=1)  # opens the finished store
    assert (tmp_path / "one" / "shard-00000.i16").stat().st_mtime_ns == written
    two = pack(everyone, tmp_path / "two", workers=2)
    assert one.manifest == two.manifest
    for shard in range(4):
        name = f"shard-{shard:05d}.i16"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    pd.testing.assert_frame_equal(one.index, two.index)


@pytest.mark.usefixtures("small_shards")
def test_a_stopped_pack_goes_on(
    everyone: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pack(everyone, tmp_path / "whole", workers=1)
    original, seen = packing._pack_record, []

    def stopped(job, name, path):
        if job.shard == 2:
            raise KeyboardInterrupt
        return original(job, name, path)

    monkeypatch.setattr(packing, "_pack_record", stopped)
    with pytest.raises(KeyboardInterrupt):
        pack(everyone, tmp_path / "stopped", workers=1)
    assert not (tmp_path / "stopped" / "store.json").exists()
    assert not list((tmp_path / "stopped").glob("*.tmp"))
    with pytest.raises(StoreError, match=r"store\.json"):
        Store.open(tmp_path / "stopped")

    def counted(job, name, path):
        seen.append(job.shard)
        return original(job, name, path)

    monkeypatch.setattr(packing, "_pack_record", counted)
    resumed = pack(everyone, tmp_path / "stopped", workers=1)
    assert set(seen) == {2, 3}, "finished shards are not read again"
    pd.testing.assert_frame_equal(resumed.index, whole.index)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("shard", [1, 3])
def test_a_full_disk_is_an_error_with_a_remedy_and_loses_nothing(
    everyone: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    original = packing._pack_record

    def full(job, name, path):
        if job.shard == shard:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(job, name, path)

    monkeypatch.setattr(packing, "_pack_record", full)
    with pytest.raises(FileError, match=rf"shard-0000{shard}\.i16") as caught:
        pack(everyone, tmp_path / "store", workers=1)
    assert caught.value.remedy
    assert sorted(f.name for f in (tmp_path / "store").glob("*.i16")) == [
        f"shard-{i:05d}.i16" for i in range(shard)
    ]
    monkeypatch.setattr(packing, "_pack_record", original)
    assert len(pack(everyone, tmp_path / "store", workers=1)) == len(everyone)


def test_bad_records_go_to_quarantine_with_their_reason(
    synthetic_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cohort"
    shutil.copytree(synthetic_path, folder)
    where = folder / "records100" / "00000"
    (where / "00001_lr.dat").unlink()
    truncated = where / "00002_lr.dat"
    truncated.write_bytes(truncated.read_bytes()[:-100])
    header = where / "00003_lr.hea"
    header.write_text(re.sub(r" 16 [0-9.]+", " 16 0", header.read_text()))
    leads = read_record(synthetic_path / "records100/00000/00004_lr").leads
    flat = np.zeros((12, 1000), dtype=np.float32)
    write_wfdb(where / "00004_lr", flat, rate=100, leads=leads)
    missing = flat + np.sin(np.arange(1000) / 9).astype(np.float32)
    missing[7, 100:120] = np.nan
    write_wfdb(where / "00005_lr", missing, rate=100, leads=leads)
    half_flat = np.nan_to_num(missing)
    half_flat[8] = 0
    write_wfdb(where / "00006_lr", half_flat, rate=100, leads=leads)

    cohort = open_cohort(folder, empty_rows="keep")
    store = pack(cohort, tmp_path / "store", workers=1)
    reasons = dict(zip(store.quarantine["record"], store.quarantine["reason"], strict=True))
    assert set(reasons) == {"1", "2", "3", "4", "5"}
    assert "00001_lr" in reasons["1"]
    assert "gain" in reasons["3"]
    assert "'flat'" in reasons["4"]
    assert re.search(r"V2 .*20 .*1000", reasons["5"])
    assert "flat:V3" in store.index.loc["6", "notes"].split()
    assert store.noted()["flat"] == ["6"]
    with pytest.raises(StoreError, match=r"'4' .*'flat'"):
        store.rows(["7", "4"])
    assert store.without_quarantined(["4", "7"]).tolist() == [False, True]

    assert excluded(store) == {}
    strict = pack(cohort, tmp_path / "strict", exclude=["flat", "dropouts"], workers=1)
    assert set(strict.quarantine["record"]) == {*reasons, "6"}
    assert excluded(strict) == {"flat": 1, "dropouts": 0}
    assert len(strict) == len(store) - 1
    check_sources(strict, folder)
    assert len(pack(cohort, tmp_path / "strict", workers=1)) == len(strict)  # as it was packed
    with pytest.raises(StoreError):
        pack(cohort, tmp_path / "store", exclude=["flat"], workers=1)
    with pytest.raises(StoreError, match="'flatt'"):
        pack(cohort, tmp_path / "other", exclude=["flatt"], workers=1)


def test_limb_leads_that_follow_from_others_are_packed(
    synthetic_path: Path, tmp_path: Path
) -> None:
    """Files of eight leads, and a limb lead with invalid samples, as from any export."""
    name = "records100/00000/00007_lr"
    whole = read_record(synthetic_path / name)
    eight = whole.select(["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"])
    gaps = whole.signal.copy()
    gaps[2, :50], gaps[4] = np.nan, np.nan
    write_wfdb(tmp_path / "eight", eight.signal, rate=100, leads=eight.leads)
    write_wfdb(tmp_path / "gaps", gaps, rate=100, leads=whole.leads)
    write_wfdb(tmp_path / "whole", whole.signal, rate=100, leads=whole.leads)
    store = pack(open_cohort(tmp_path), tmp_path / "store", workers=1)
    assert store.leads == STANDARD_LEADS
    (chunk,) = store.read(store.rows(["whole", "eight", "gaps"]))
    for other in chunk.signals[1:]:
        np.testing.assert_allclose(other, chunk.signals[0], atol=2)  # microvolts
    notes = store.index["notes"]
    assert notes["eight"].endswith("derived:III derived:aVR derived:aVL derived:aVF")
    assert "derived:aVL" in notes["gaps"].split()
    assert "derived" not in notes["whole"]


def test_the_folder_of_another_cohort_is_refused(
    everyone: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    part = everyone.select(np.arange(len(everyone)) < 20)
    with pytest.raises(StoreError, match="160 records"):
        pack(part, synthetic_store.root)
    (tmp_path / "x").write_text("mine")
    with pytest.raises(StoreError, match=tmp_path.name):
        pack(part, tmp_path)
    assert (tmp_path / "x").read_text() == "mine"


def test_damaged_stores_are_refused(everyone: Cohort, tmp_path: Path) -> None:
    pack(everyone, tmp_path / "store", workers=1)
    shard = tmp_path / "store" / "shard-00000.i16"
    data = shard.read_bytes()
    shard.write_bytes(data[:-2])
    with pytest.raises(StoreError, match=f"{len(data) - 2} bytes"):
        Store.open(tmp_path / "store")
    shard.unlink()
    with pytest.raises(StoreError, match=shard.name):
        Store.open(tmp_path / "store")
    manifest = json.loads((tmp_path / "store" / "store.json").read_text())
    (tmp_path / "store" / "store.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        Store.open(tmp_path / "store")
    (tmp_path / "store" / "store.json").write_text('{"format')
    for read in (Store.open, lambda folder: pack(everyone, folder)):
        with pytest.raises(FileError, match=r"store\.json") as caught:
            read(tmp_path / "store")
        assert caught.value.remedy


@pytest.mark.parametrize("name", ["store.json", "index.parquet", "quarantine.csv"])
def test_a_store_that_was_changed_is_refused(everyone: Cohort, tmp_path: Path, name: str) -> None:
    """Emptied, cut, or with a flipped bit anywhere; also before it is packed into."""
    folder = tmp_path / "store"
    pack(everyone.select(np.arange(len(everyone)) < 5), folder, workers=1)
    file = folder / name
    sound, manifest = file.read_bytes(), Store.open(folder).manifest
    flips = [bytes([*sound[:i], sound[i] ^ 4, *sound[i + 1 :]]) for i in range(0, len(sound), 97)]
    refused = 0
    for damaged in (b"", sound[:-9], *flips):
        file.write_bytes(damaged)
        try:
            assert {**Store.open(folder).manifest, "digest": ""} == {**manifest, "digest": ""}
        except (StoreError, FileError):
            refused += 1
    assert refused >= len(flips)
    file.unlink()
    with pytest.raises(StoreError, match=name):
        Store.open(folder)


def test_a_damaged_list_of_shards_is_refused(everyone: Cohort, tmp_path: Path) -> None:
    (tmp_path / REQUEST_FILE).write_text('{"records": [')
    with pytest.raises(FileError, match=REQUEST_FILE):
        pack(everyone, tmp_path)


def test_a_store_reads_the_same_from_another_file_system(synthetic_store: Store) -> None:
    memory = fsspec.filesystem("memory")
    for file in Path(synthetic_store.root).iterdir():
        memory.pipe(f"/stores/one/{file.name}", file.read_bytes())
    remote = Store.open("memory://stores/one")
    assert np.array_equal(remote.record("12").signal, synthetic_store.record("12").signal)


def test_an_open_store_can_be_sent_to_another_process(synthetic_store: Store) -> None:
    synthetic_store.record("3")
    copy = pickle.loads(pickle.dumps(synthetic_store))
    assert np.array_equal(copy.record("3").signal, synthetic_store.record("3").signal)


def test_fewer_leads_can_be_packed(everyone: Cohort, tmp_path: Path) -> None:
    store = pack(everyone, tmp_path / "store", leads=("V2", "II"), workers=1)
    whole = read_record(everyone.paths()[0]).select(["V2", "II"])
    assert store.leads == ("V2", "II")
    assert np.array_equal(store.record(everyone.ids()[0]).signal, whole.signal)


def test_a_store_of_other_recordings_is_refused(
    everyone: Cohort, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    """Numbered alike, as in another hospital, or replaced since."""
    check_sources(synthetic_store, synthetic_path)
    check_sources(synthetic_store, tmp_path)  # none of the files is there
    shutil.copytree(synthetic_path, tmp_path / "other")
    other = replace(everyone, root=tmp_path / "other")
    store = pack(other, tmp_path / "store", workers=1)
    headers = sorted((synthetic_path / "records100").rglob("*.hea"))
    for header, next_one in pairwise([*headers, headers[0]]):  # every file is the next one's
        place = tmp_path / "other" / header.relative_to(synthetic_path)
        place.write_text(next_one.read_text().replace(next_one.stem, header.stem))
        place.with_suffix(".dat").write_bytes(next_one.with_suffix(".dat").read_bytes())
    with pytest.raises(StoreError, match=r"record '\w+'"):
        pack(other, store.root)


def test_one_replaced_file_among_many_is_found(everyone: Cohort, tmp_path: Path) -> None:
    shutil.copytree(everyone.root, tmp_path / "ecgs")
    copied = replace(everyone, root=tmp_path / "ecgs")
    store = pack(copied, tmp_path / "store", workers=1)
    looked_at = np.linspace(0, len(store) - 1, CHECKED_SOURCES).astype(int)
    place = next(row for row in range(len(store)) if row not in looked_at)
    file = (copied.root / store.index["path"].iloc[place]).with_suffix("")
    os.utime(file.with_suffix(".dat"), (0, 0))  # another date, as of a copy, and the same content
    check_sources(store, copied.root)
    record = read_record(file)
    write_wfdb(file, record.signal[::-1], rate=record.rate, leads=record.leads)
    with pytest.raises(StoreError, match=re.escape(repr(store.index.index[place]))):
        pack(copied, store.root)
    file.with_suffix(".dat").write_bytes(b"no recording")
    with pytest.raises(StoreError, match=re.escape(repr(store.index.index[place]))):
        pack(copied, store.root)
    file.with_suffix(".dat").unlink()  # a store is enough without the files
    assert len(pack(copied, store.root)) == len(store)


def test_a_repaired_file_leaves_the_quarantine(everyone: Cohort, tmp_path: Path) -> None:
    shutil.copytree(everyone.root, tmp_path / "ecgs")
    few = replace(everyone.select(np.arange(len(everyone)) < 4), root=tmp_path / "ecgs")
    first, second = (path.with_suffix(".dat") for path in few.paths()[:2])
    whole = first.read_bytes()
    first.write_bytes(whole[:-20])
    second.unlink()
    store = pack(few, tmp_path / "store", workers=1)
    assert len(store) == 2
    first.write_bytes(whole[:-22])  # changed, and still damaged
    assert len(pack(few, store.root)) == 2
    first.write_bytes(whole)
    with pytest.raises(StoreError, match="quarantine"):
        pack(few, store.root)


def test_records_of_several_segments_are_packed(tmp_path: Path) -> None:
    signal = np.round(np.random.default_rng(0).standard_normal((2, 60)), 3).astype(np.float32)
    write_wfdb(tmp_path / "one", signal, rate=250, leads=["I", "II"])
    write_wfdb(tmp_path / "two", signal[::-1], rate=250, leads=["II", "I"])
    (tmp_path / "whole.hea").write_text("whole/2 2 250 120\none 60\ntwo 60\n")
    (tmp_path / "gap.hea").write_text("gap/2 2 250 90\none 60\n~ 30\n")
    (tmp_path / "table.csv").write_text("path,patient\nwhole,a\ngap,b\n")
    store = pack(open_cohort(tmp_path / "table.csv"), tmp_path / "store", leads=("I", "II"))
    assert np.array_equal(store.record("whole").signal, np.hstack([signal, signal]))
    assert store.quarantine["record"].tolist() == ["gap"]


def test_records_of_another_format_are_packed_in_whole_microvolts(
    everyone: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A format without stored integers gives millivolts, which are rounded."""

    def read(file: EcgFile) -> Record:
        signal = np.frombuffer(file.content, np.float32).reshape(2, -1)
        return Record(signal, 200.0, ("II", "V1"), "r", None, file.name, "ab" * 32, {})

    monkeypatch.setattr(
        formats, "FORMATS", [*formats.FORMATS, Format("outside", (".outside",), read)]
    )
    signal = np.sin(np.arange(800, dtype=np.float32).reshape(2, 400) / 9)
    whole = np.rint(1000 * signal) / np.float32(1000)
    for name, values in (("a", signal), ("b", whole), ("c", 40 * signal)):
        (tmp_path / f"{name}.outside").write_bytes(values.tobytes())
    table = everyone.table.iloc[:3].assign(path=["a.outside", "b.outside", "c.outside"])
    cohort = replace(everyone.select(np.arange(len(everyone)) < 3), root=tmp_path, table=table)
    store = pack(cohort, tmp_path / "store", leads=("V1", "II"), workers=1)
    (chunk,) = store.read(np.arange(2))
    assert chunk.rate == 200
    for stored in chunk.signals:
        assert np.array_equal(stored, np.rint(1000 * signal[::-1]))
    assert store.index["notes"].tolist() == ["rounded", ""]
    assert "32.7 mV" in store.quarantine["reason"].item()
    check_sources(store, tmp_path)
