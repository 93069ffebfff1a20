"""The store: a cohort's signals, packed once and memory-mapped.

A store is a folder (or an fsspec URL) of plain files::

    store.json            leads, shards, label names, digest of the packed cohort
    index.parquet         one row a record: id, patient, split, labels, rate, samples, place, hash
    shard-00000.i16       int16 microvolts, little-endian, `(leads, samples)` a record
    quarantine.csv        records that could not be packed, with the reason

`store.json` is written last; a folder without it is an unfinished store, which `pack` continues.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from einthoven.errors import StoreError
from einthoven.files import STORE_FILE, parse_json
from einthoven.records import Record
from einthoven.records.formats import EXCERPT
from einthoven.records.quality import Finding, cohort_amplitude

FORMAT_VERSION = 1
INDEX, QUARANTINE = "index.parquet", "quarantine.csv"
# Pages of a shard that were read count as memory of this process until they are released.
_RELEASE_AFTER = 16 * 1024 * 1024
_MEASURED = 64
_MILLIVOLTS = "correct the gain or the unit of the files, or pass millivolts"


@dataclass(frozen=True)
class Chunk:
    """Records of one rate and length.

    Attributes
    ----------
    places : numpy.ndarray
        Places of the records among the requested rows.
    rate : float
        Hz.
    signals : numpy.ndarray
        (records, leads, samples) int16 microvolts; float32 from an `ArrayStore`.
    """

    places: NDArray[np.intp]
    rate: float
    signals: NDArray[np.int16]


@dataclass(eq=False, repr=False)
class Store:
    """A packed cohort, open for reading.

    Attributes
    ----------
    root : str
        Folder or fsspec URL.
    leads : tuple of str
        Lead names, in the order of the rows of every signal.
    index : pandas.DataFrame
        One row a record (index: record id); columns `patient`, `split`, `labels`, `path`, `rate`
        (Hz), `samples`, `shard`, `offset` (int16 values), `source_hash`, `notes`, `files` (names,
        sizes and dates).
    quarantine : pandas.DataFrame
        Records that could not be packed: `record`, `path`, `reason`, `files`.
    manifest : dict
        The contents of `store.json`.
    """

    root: str
    leads: tuple[str, ...]
    index: pd.DataFrame
    quarantine: pd.DataFrame
    manifest: dict[str, Any]
    _filesystem: Any = field(repr=False)
    _maps: dict[int, mmap.mmap] = field(default_factory=dict, repr=False)
    _touched: int = 0

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.root}: {len(self.index)} records, leads "
            f"{' '.join(self.leads)}, {len(self.quarantine)} in quarantine>"
        )

    @classmethod
    def open(cls, root: str | Path) -> Store:
        """Open a finished store.

        Raises
        ------
        StoreError
            If there is none, it is unfinished, or a file is missing, is damaged or has another
            size.
        """
        filesystem, path = fsspec.url_to_fs(str(root))
        if not filesystem.exists(f"{path}/{STORE_FILE}"):
            raise StoreError(
                f"{root} is not a finished store: {STORE_FILE} is missing",
                remedy=f"pack it, or let an interrupted run finish: einthoven pack SOURCE {root}",
            )
        manifest = read_manifest(
            filesystem.cat_file(f"{path}/{STORE_FILE}"), f"{root}/{STORE_FILE}"
        )
        tables: list[Any] = []
        for name, read in (
            (INDEX, pd.read_parquet),
            (QUARANTINE, partial(pd.read_csv, dtype=str, na_filter=False)),
        ):
            try:
                content = filesystem.cat_file(f"{path}/{name}")
                if manifest.get("files", {}).get(name, digest_of(content)) != digest_of(content):
                    raise ValueError(f"its digest is not the one in {STORE_FILE}")
                tables.append(read(BytesIO(content)))
            except Exception as error:  # pandas and pyarrow raise whatever they run into
                raise _damaged(f"{root}/{name}", error) from error
        index = tables[0].set_index("record")
        store = cls(path, tuple(manifest["leads"]), index, tables[1], manifest, filesystem)
        store._check_sizes()
        return store

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, ids: Sequence[str] | NDArray[np.str_]) -> NDArray[np.intp]:
        """Row numbers of records, in the requested order.

        Raises
        ------
        StoreError
            If a record is not in the store; with the reason if it was quarantined.
        """
        rows = self.index.index.get_indexer(pd.Index(np.asarray(ids, dtype=str)))
        if (rows < 0).any():
            missing = np.asarray(ids, dtype=str)[rows < 0].tolist()
            reasons = dict(zip(self.quarantine["record"], self.quarantine["reason"], strict=True))
            raise StoreError(
                f"{self.root}: {len(missing)} records are not in the store, first {missing[0]!r}"
                + (f" (quarantined: {reasons[missing[0]]})" if missing[0] in reasons else ""),
                remedy="pack the cohort of the training, or leave these records out",
            )
        return rows

    def without_quarantined(self, ids: Sequence[str] | NDArray[np.str_]) -> NDArray[np.bool_]:
        """True for every id that was packed, false for quarantined records."""
        return ~np.isin(np.asarray(ids, dtype=str), self.quarantine["record"].to_numpy(dtype=str))

    def read(self, rows: NDArray[np.intp]) -> list[Chunk]:
        """Read the signals of some rows, copied and grouped by rate and length."""
        shards = self.index["shard"].to_numpy()[rows]
        offsets = self.index["offset"].to_numpy()[rows]
        chunks = []
        for rate, length, places in self.groups(rows):
            signals = np.empty((len(places), len(self.leads), length), dtype="<i2")
            for i, place in enumerate(places):
                signals[i] = self._signal(int(shards[place]), int(offsets[place]), length)
            chunks.append(Chunk(places, rate, signals))
        self._release_pages()
        return chunks

    def noted(self) -> dict[str, list[str]]:
        """Records by kind of their notes, such as `limb-leads`; the most frequent kind first."""
        kinds: dict[str, list[str]] = {}
        for record, notes in self.index.loc[self.index["notes"] != "", "notes"].items():
            for kind in dict.fromkeys(note.partition(":")[0] for note in notes.split()):
                kinds.setdefault(kind, []).append(str(record))
        return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))

    def groups(self, rows: NDArray[np.intp]) -> list[tuple[float, int, NDArray[np.intp]]]:
        """Rates and lengths among some rows, each with its places, in the order of `read`.

        No signal is read.
        """
        rates = self.index["rate"].to_numpy()[rows]
        samples = self.index["samples"].to_numpy()[rows]
        return [
            (float(rate), int(length), np.flatnonzero((rates == rate) & (samples == length)))
            for rate, length in sorted(set(zip(rates, samples, strict=True)))
        ]

    def record(self, name: str) -> Record:
        """Read one record, in millivolts."""
        row = self.rows([name])[0]
        entry = self.index.iloc[row]
        signal = self.read(np.array([row]))[0].signals[0].astype(np.float32) / np.float32(1000)
        return Record(
            signal=signal,
            rate=float(entry["rate"]),
            leads=self.leads,
            name=name,
            patient=str(entry["patient"]),
            source=str(entry["path"]),
            source_hash=str(entry["source_hash"]),
            metadata={},
        )

    def _signal(self, shard: int, offset: int, samples: int) -> NDArray[np.int16]:
        count = len(self.leads) * samples
        if not isinstance(self._filesystem, LocalFileSystem):
            name = f"{self.root}/{shard_name(shard)}"
            data = self._filesystem.cat_file(name, start=2 * offset, end=2 * (offset + count))
            return np.frombuffer(data, dtype="<i2").reshape(len(self.leads), samples)
        if shard not in self._maps:
            with open(os.path.join(self.root, shard_name(shard)), "rb") as handle:
                self._maps[shard] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        self._touched += 2 * count
        flat = np.frombuffer(self._maps[shard], dtype="<i2", count=count, offset=2 * offset)
        return flat.reshape(len(self.leads), samples)

    def _release_pages(self) -> None:
        """Release mapped pages, so that memory does not grow with the number of records read."""
        if self._touched > _RELEASE_AFTER and hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps.values():
                mapped.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def _check_sizes(self) -> None:
        for shard, expected in enumerate(self.manifest["shard_bytes"]):
            name = f"{self.root}/{shard_name(shard)}"
            size = self._filesystem.size(name) if self._filesystem.exists(name) else None
            if size != expected:
                raise StoreError(
                    f"{name}: {'missing' if size is None else f'{size} bytes'}, "
                    f"{expected} bytes were packed",
                    remedy="delete the store and pack it again",
                )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}, "_touched": 0}


@dataclass(eq=False, repr=False)
class ArrayStore(Store):
    """A store over records that are in memory: nothing is written, rounded or held twice.

    Attributes
    ----------
    array : numpy.ndarray or list of numpy.ndarray
        (records, leads, samples) millivolts of any real type, also memory-mapped; or one
        (leads, samples) array a record.
    """

    array: Any = None

    @classmethod
    def over(cls, array: NDArray[Any], *, leads: Sequence[str], rate: float) -> ArrayStore:
        """Open an array in millivolts at one rate in Hz; record ids are row numbers.

        Raises
        ------
        StoreError
            If the array has another shape.
        """
        if array.ndim != 3 or array.shape[1] != len(leads):
            raise StoreError(
                f"an array of shape {array.shape} for the leads {', '.join(leads)}",
                remedy="use the shape (records, leads, samples)",
            )
        return cls._over(array, leads, float(rate), array.shape[2])

    @classmethod
    def of(cls, records: Sequence[Record], *, leads: Sequence[str]) -> ArrayStore:
        """Open Records of any rates and lengths; record ids are row numbers.

        Raises
        ------
        RecordError
            If a record lacks one of the leads.
        """
        signals = [record.select(leads).signal for record in records]
        rates = [record.rate for record in records]
        return cls._over(signals, leads, rates, [signal.shape[1] for signal in signals])

    @classmethod
    def _over(cls, array: Any, leads: Sequence[str], rate: Any, samples: Any) -> ArrayStore:
        ids = pd.RangeIndex(len(array)).astype(str)
        index = pd.DataFrame({"rate": rate, "samples": samples}, index=ids)
        quarantine = pd.DataFrame({"record": [], "path": [], "reason": []}, dtype=str)
        return cls("", tuple(leads), index, quarantine, {}, LocalFileSystem(), array=array)

    def read(self, rows: NDArray[np.intp]) -> list[Chunk]:
        """Read records as float32 microvolts, without rounding."""
        chunks = []
        for rate, _, places in self.groups(rows):
            signals: Any = (
                np.stack([self.array[row] for row in rows[places]])
                if isinstance(self.array, list)
                else self.array[rows[places]]
            )
            chunks.append(Chunk(places, rate, signals.astype(np.float32) * np.float32(1000)))
        return chunks


class AmplitudeWarning(UserWarning):
    """Warning about the amplitude of a cohort as a whole: a wrong gain, or standardised signals."""


def store_amplitude(store: Store, rows: NDArray[np.intp] | None = None) -> Finding | None:
    """Judge the amplitude of up to 64 records together, of some rows or of all; None if plausible.

    It is that of `einthoven.records.quality.cohort_amplitude`, of a long recording in its middle.
    """

    def middle(signal: NDArray[np.int16], rate: float) -> NDArray[np.float32]:
        samples = round(EXCERPT * rate)
        start = max(0, (signal.shape[1] - samples) // 2)
        return signal[:, start : start + samples].astype(np.float32) / np.float32(1000)

    rows = np.arange(len(store)) if rows is None else rows
    measured = rows[np.linspace(0, len(rows) - 1, min(_MEASURED, len(rows))).astype(int)]
    return cohort_amplitude(
        Record.create(middle(signal, chunk.rate), chunk.rate, leads=store.leads, name="")
        for row in measured  # one at a time: they may last a day
        for chunk in store.read(np.array([row]))
        for signal in chunk.signals
    )


def check_amplitude(store: Store, rows: NDArray[np.intp] | None = None) -> None:
    """Warn if the records of a store are far smaller or larger than ECGs (`AmplitudeWarning`).

    Raises
    ------
    StoreError
        If the values look like another unit.
    """
    finding = store_amplitude(store, rows)
    if finding is None:
        return
    if finding.level == "unusable":
        raise StoreError(finding.text, remedy=_MILLIVOLTS)
    warnings.warn(
        f"{finding.text}. What is trained on them misjudges ECGs of the usual size: {_MILLIVOLTS}",
        AmplitudeWarning,
        stacklevel=3,
    )


def read_manifest(content: bytes, source: str) -> dict[str, Any]:
    """Contents of `store.json`, compared with the digest in it.

    Raises
    ------
    FileError, StoreError
        If it is damaged or of another version.
    """
    manifest = parse_json(content, source)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise _damaged(source, ValueError("it does not describe a store"))
    if manifest["format"] != FORMAT_VERSION:
        raise StoreError(
            f"{source}: store format {manifest['format']}, this version reads {FORMAT_VERSION}",
            remedy="pack it again with this version",
        )
    if manifest.get("digest", manifest_digest(manifest)) != manifest_digest(manifest):
        raise _damaged(source, ValueError("its content does not match its digest"))
    return manifest


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of the content of `store.json`, apart from the digest itself."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return digest_of(json.dumps(content, sort_keys=True).encode())


def digest_of(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _damaged(file: str, error: Exception) -> StoreError:
    reason = "it is missing" if isinstance(error, FileNotFoundError) else error
    return StoreError(f"{file} is damaged: {reason}", remedy="delete the store and pack it again")


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"shard-{shard:05d}.i16"
