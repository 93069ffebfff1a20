"""Packing: read every record of a cohort once, verify it, and write the store.

Records of every registered format are packed. Shards are written completely or not at all, and a
shard's part of the index follows its data. An interrupted run continues with the first shard that
has no index part.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import RecordError, StoreError
from einthoven.files import (
    STORE_FILE,
    check_output,
    delete_temporary,
    lock_for,
    locked,
    read_json,
    replacing,
    write_text,
)
from einthoven.progress import Progress
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.digital import blocks
from einthoven.records.formats import files_of
from einthoven.records.limb_leads import derive_limb_leads, repair_leads
from einthoven.records.quality import findings
from einthoven.records.sidecar import Sidecar, described, description
from einthoven.signals.store import (
    FORMAT_VERSION,
    INDEX,
    QUARANTINE,
    Store,
    digest_of,
    manifest_digest,
    read_manifest,
    shard_name,
)
from einthoven.workers import mapped

REQUEST_FILE = "request.json"
ROUNDED, DERIVED = "rounded", "derived"
"""Notes on a record that are no doubts: values between whole microvolts, computed limb leads."""
EXCLUDABLE = (
    *("flat", "no-signal", "lead-off", "dropouts", "identical-leads", "limb-leads", "clipping"),
    *("amplitude", "artefact", "electrodes", "baseline-wander", "noise", "device-quality"),
)
"""Findings of `einthoven.records.quality` by which `pack` can leave records out."""
_EXCLUDED = "left out: "
SHARD_RECORDS = 1024
CHECKED_SOURCES = 8
_PACK_AGAIN = (
    "pack the cohort into a new folder (`store=...`), or delete this store if the files were "
    "replaced"
)


@dataclass(frozen=True)
class _Job:
    """One shard to write, with everything that a worker process needs."""

    shard: int
    store: Path
    root: Path
    leads: tuple[str, ...]
    records: tuple[tuple[str, str], ...]  # (id, path)
    sidecar: Sidecar | None  # of `described`, which does not reach another process
    exclude: tuple[str, ...]


def pack(
    cohort: Cohort,
    store: str | Path,
    *,
    leads: Sequence[str] = STANDARD_LEADS,
    exclude: Sequence[str] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """Pack a cohort's signals into a store and open it.

    Parameters
    ----------
    cohort : Cohort
        Open it with `empty_rows="keep"`, so that one store serves every task.
    store : path
        Folder to write. An unfinished pack of the same cohort goes on; a finished one is opened.
    leads : sequence of str
        Leads to keep, in this order; a record without one of them is quarantined.
    exclude : sequence of str
        Findings, of `EXCLUDABLE`, whose records are quarantined as well: `flat` leaves out those
        with a constant lead. Without it doubts are noted. Records with missing samples, and those
        that are constant in all leads, are quarantined in any case.
    workers : int, optional
        Processes; the number of processors by default. A cohort of more than 1,024 records is
        packed by fresh processes, which import the calling script: it needs
        ``if __name__ == "__main__":``, or ``workers=1``.
    progress : Progress, optional
        Callback for the records done.

    Raises
    ------
    StoreError
        If the folder holds a store of another cohort or of other recordings (`check_sources`),
        or it is damaged, or a finding is unknown.
    FileError
        If it cannot be written, as on a full disk. Finished shards are kept for the next call.
    """
    folder = Path(store)
    if unknown := [name for name in exclude if name not in EXCLUDABLE]:
        raise StoreError(
            f"no finding {unknown[0]!r} by which records are left out",
            remedy=f"choose among {', '.join(EXCLUDABLE)}",
        )
    request: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "records_digest": records_digest(cohort),
        "leads": list(leads),
        "shard_records": SHARD_RECORDS,
    }
    if exclude:
        request["exclude"] = sorted(set(exclude))
    with locked(lock_for(folder)):  # another process may be packing the same cohort
        if _is_finished(folder, request):
            finished = Store.open(folder)
            check_sources(finished, cohort.root)
            return finished
        check_output(folder, folder=True)
        _pack(cohort, folder, request, workers or os.cpu_count() or 1, progress)
        return Store.open(folder)


def _pack(
    cohort: Cohort, folder: Path, request: dict[str, Any], workers: int, progress: Progress | None
) -> None:
    sidecar = description()
    _begin(folder, request | {"sidecar": None if sidecar is None else asdict(sidecar)})
    delete_temporary(folder)
    jobs = list(_jobs(cohort, folder, request))
    open_jobs = [job for job in jobs if not _part(folder, job.shard).is_file()]
    completed = len(cohort) - sum(len(job.records) for job in open_jobs)
    with mapped(_pack_shard, open_jobs, workers=workers) as counts:
        for count in chain([0], counts):  # finished shards are reported first
            completed += count
            if progress:
                progress("pack", completed, len(cohort))
    _finish(cohort, folder, jobs, request)


def leads_to_pack(
    cohort: Cohort, needed: Sequence[str], records: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The twelve leads if the cohort's records have or determine them, else those of a network.

    A store with all leads serves other networks, and shows whether weights that were trained on
    twelve leads have seen a recording. Records that cannot be read are passed over.

    Parameters
    ----------
    needed : sequence of str
        Leads that a network reads.
    records : sequence of str, optional
        Ids of the records to look at, if the others are known to have the twelve leads.
    """
    if set(STANDARD_LEADS) <= set(needed):
        return tuple(needed)
    looked_at = cohort if records is None else cohort.select(np.isin(cohort.ids(), records))
    for path in looked_at.paths():
        try:
            record = derive_limb_leads(repair_leads(read_record(path, root=cohort.root)))
        except (RecordError, OSError):
            continue
        if not set(STANDARD_LEADS) <= set(record.leads):
            return tuple(needed)
    return STANDARD_LEADS


def excluded(store: Store) -> dict[str, int]:
    """Number of records that `exclude` left out of a store, by finding."""
    reasons = store.quarantine["reason"]
    return {
        name: int(reasons.str.contains(f"{name!r}: {_EXCLUDED}", regex=False).sum())
        for name in store.manifest.get("exclude", ())
    }


def records_digest(cohort: Cohort) -> str:
    """SHA-256 of which records a cohort holds: ids, paths and patients."""
    listing = cohort.table[["path", "patient"]].to_csv()
    return hashlib.sha256(listing.encode()).hexdigest()


def check_sources(store: Store, root: Path) -> None:
    """Refuse a store whose recordings differ from those in a cohort's folder.

    Two hospitals may number their files alike, and files may be replaced. Files of another size or
    date than when they were packed, and those of a few other records, are read again and their
    hashes compared. Absent files are skipped, as a store may be copied without them.

    Raises
    ------
    StoreError
        If a file differs, or one in quarantine can be read now; it is named.
    """
    spread = np.linspace(0, len(store) - 1, CHECKED_SOURCES).astype(int).tolist()
    changed = _changed(store.index, root)
    rows = sorted({*spread, *changed})
    for row, name, path, packed_hash in zip(
        rows,
        store.index.index[rows],
        store.index["path"].iloc[rows],
        store.index["source_hash"].iloc[rows],
        strict=True,
    ):
        try:
            source_hash = read_record(root / path, root=root).source_hash
        except (RecordError, OSError):
            if row not in changed:
                continue
            source_hash = ""  # replaced by something that is no recording
        if source_hash != packed_hash:
            raise StoreError(
                f"record {name!r} of {store.root} is another recording than {root / path}",
                remedy=_PACK_AGAIN,
            )
    for row in _changed(store.quarantine, root):
        name, path = store.quarantine[["record", "path"]].iloc[row]
        try:
            exclude = store.manifest.get("exclude", ())
            _read_microvolts(root / path, store.leads, root, exclude)
        except (RecordError, OSError):
            continue
        raise StoreError(
            f"record {name!r} is in the quarantine of {store.root}, but {root / path} has changed "
            "and can be read",
            remedy=_PACK_AGAIN,
        )


def _changed(rows: pd.DataFrame, root: Path) -> list[int]:
    """Places of rows whose files all exist, with another size or date than when they were packed.

    Empty for a store of an earlier version, which did not record them.
    """
    if "files" not in rows:
        return []
    pairs = zip(rows["path"], rows["files"].fillna(""), strict=True)
    return [
        place
        for place, (path, packed) in enumerate(pairs)
        if (now := _stamp(root / path)) != packed and _names(packed) <= _names(now) != set()
    ]


def _names(stamp: str) -> set[str]:
    return {entry.rsplit(":", 2)[0] for entry in stamp.split()}


def _stamp(path: Path) -> str:
    """Names, sizes and dates of the files of a record; empty without any."""
    files = [(file.name, file.stat()) for file in files_of(path)]
    return " ".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in files)


def _is_finished(folder: Path, request: dict[str, Any]) -> bool:
    file = folder / STORE_FILE
    if not file.is_file():
        return False
    manifest = read_manifest(file.read_bytes(), str(file))
    if any(manifest.get(key) != value for key, value in request.items()):
        raise StoreError(
            f"{folder} holds another cohort or other leads ({manifest.get('name')}, "
            f"{manifest.get('records')} records)",
            remedy="name another folder, or delete this one",
        )
    return True


def _begin(folder: Path, request: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / REQUEST_FILE
    if file.is_file() and read_json(file) != request:
        raise StoreError(
            f"{folder} holds an unfinished store of another cohort, or with another sidecar",
            remedy="name another folder, or delete this one",
        )
    if not file.is_file() and any(folder.iterdir()):
        raise StoreError(
            f"{folder} is not empty and not a store", remedy="name a new or an empty folder"
        )
    write_text(file, json.dumps(request))


def _jobs(cohort: Cohort, folder: Path, request: dict[str, Any]) -> Iterator[_Job]:
    leads, exclude = tuple(request["leads"]), tuple(request.get("exclude", ()))
    records = list(zip(cohort.table.index.astype(str), cohort.table["path"], strict=True))
    for shard, start in enumerate(range(0, len(records), SHARD_RECORDS)):
        part = tuple(records[start : start + SHARD_RECORDS])
        yield _Job(shard, folder, cohort.root, leads, part, description(), exclude)


def _pack_shard(job: _Job) -> int:
    """Write one shard, then its part of the index; return the number of its records."""
    rows: list[dict[str, Any]] = []
    offset = 0
    with replacing(job.store / shard_name(job.shard)) as temporary, open(temporary, "wb") as handle:
        for name, path in job.records:
            with described(job.sidecar):
                row, signal = _pack_record(job, name, path)
            if signal is not None:
                handle.write(signal.data)
                row["offset"] = offset
                offset += signal.size
            rows.append(row)
    with replacing(_part(job.store, job.shard)) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
    return len(rows)


def _pack_record(
    job: _Job, name: str, path: str
) -> tuple[dict[str, Any], NDArray[np.int16] | None]:
    row: dict[str, Any] = {"record": name, "path": path, "shard": job.shard, "offset": -1}
    row["files"] = _stamp(job.root / path)  # before reading
    try:
        signal, rate, source_hash, notes = _read_microvolts(
            job.root / path, job.leads, job.root, job.exclude
        )
    except RecordError as error:
        empty = {"rate": 0.0, "samples": 0, "source_hash": "", "notes": ""}
        return row | empty | {"reason": error.problem}, None
    row |= {"rate": rate, "samples": int(signal.shape[1]), "source_hash": source_hash}
    return row | {"notes": notes, "reason": ""}, signal


def _read_microvolts(
    path: Path, leads: Sequence[str], root: Path, exclude: Sequence[str] = ()
) -> tuple[NDArray[np.int16], float, str, str]:
    """Read some leads of an ECG file: microvolts, Hz, hash of the files, and notes.

    Limb leads that the file lacks or holds as invalid are computed from two others. Notes are
    `rounded`, `derived:III` for a lead that is computed, and the findings on the recording that are
    more than notes: `no-signal`, or with each lead concerned `flat:V3`.

    Raises
    ------
    RecordError
        If the file cannot be trusted, lacks a lead, has missing samples or only flat leads, its
        values look like another unit or exceed the range of 16 bits, or it has a doubt of a kind to
        `exclude`.
    """
    recorded = repair_leads(read_record(path, root=root))
    has_all = set(leads) <= set(recorded.leads)
    record = recorded if has_all else derive_limb_leads(recorded)
    missing = [lead for lead in leads if lead not in record.leads]
    if missing:
        raise RecordError(
            path, "leads", record.leads, f"lacks {missing}", remedy="pack fewer leads: `leads=...`"
        )
    _refuse_gaps(record, leads, path)
    selected = record.select(leads)
    signal, rounded = _whole_microvolts(selected.signal, path)
    results = findings(selected)
    for finding in results:
        if finding.name == "unit" or (finding.name == "flat" and finding.level == "unusable"):
            remedy = "correct the header, or leave out the record"
            raise RecordError(path, "signal", finding.name, finding.text, remedy=remedy)
        if finding.name in exclude and finding.level != "note":
            text, remedy = f"{_EXCLUDED}{finding.text}", f"pack without `exclude={[finding.name]}`"
            raise RecordError(path, "signal", finding.name, text, remedy=remedy)
    notes = [ROUNDED] if rounded else []
    for finding in results:
        if finding.level != "note":
            notes += [f"{finding.name}:{lead}" for lead in finding.leads] or [finding.name]
    notes += [f"{DERIVED}:{lead}" for lead in leads if lead not in recorded.leads]
    return signal, float(record.rate), record.source_hash, " ".join(notes)


def _refuse_gaps(record: Record, leads: Sequence[str], path: Path) -> None:
    """Raise RecordError if a lead has invalid samples."""
    invalid = np.isnan(record.signal).sum(axis=1)
    counts = {x: n for x, n in zip(record.leads, invalid, strict=True) if n and x in leads}
    if counts:
        samples = record.signal.shape[1]
        text = ", ".join(f"{lead} ({count} of {samples})" for lead, count in counts.items())
        raise RecordError(
            path,
            "samples",
            None,
            f"marked as invalid: {text}",
            remedy="repair or leave out the record, or pack other leads: `leads=...`",
        )


def _whole_microvolts(
    millivolts: NDArray[np.float32], path: Path
) -> tuple[NDArray[np.int16], bool]:
    """Round to int16 microvolts; the flag tells whether that changed a value visibly."""
    whole, inexact = np.empty(millivolts.shape, "<i2"), False
    for part, stored in zip(blocks(millivolts), blocks(whole), strict=True):
        microvolts = part * np.float64(1000)
        rounded = np.rint(microvolts)
        if np.abs(rounded).max() > np.iinfo(np.int16).max:
            raise RecordError(
                path,
                "amplitude",
                f"{np.abs(millivolts).max():.1f} mV",
                "beyond the 32.7 mV that the store can hold",
                remedy="check the file's gain and units",
            )
        # Float32 millivolts differ from whole microvolts by up to 0.002.
        inexact |= bool(np.abs(microvolts - rounded).max() > 0.01)
        stored[:] = rounded
    return whole, inexact


def _finish(cohort: Cohort, folder: Path, jobs: list[_Job], request: dict[str, Any]) -> None:
    parts = [_read_part(_part(folder, job.shard)) for job in jobs]
    rows = pd.concat(parts, ignore_index=True)
    failed = rows["reason"] != ""
    if failed.all():
        shutil.rmtree(folder)  # nothing to resume: files or their description have to change
        first = cohort.root / rows["path"].iloc[0]
        remedy = "check the files of the cohort"
        try:
            _read_microvolts(first, request["leads"], cohort.root, request.get("exclude", ()))
        except RecordError as error:
            remedy = error.remedy
        problem = f"none of the {len(rows)} records could be packed; the first"
        raise StoreError(f"{problem}: {rows['reason'].iloc[0]}", remedy=remedy)
    quarantine = rows.loc[failed, ["record", "path", "reason", "files"]]
    people = cohort.table.loc[rows["record"], ["patient", "split"]].reset_index(drop=True)
    names = [
        [label for label, present in zip(cohort.labels, row, strict=True) if present]
        for row in (cohort.matrix == 1) & (cohort.target.behaviour.form != "values")
    ]
    index = pd.concat([rows.drop(columns="reason"), people], axis=1)
    index["labels"] = pd.Series(names, index=index.index)
    with replacing(folder / INDEX) as file:
        index[~failed].to_parquet(file, index=False)
    with replacing(folder / QUARANTINE) as file:
        quarantine.to_csv(file, index=False)
    manifest = request | {
        "name": cohort.name,
        "version": cohort.version,
        "task": cohort.task,
        "label_names": list(cohort.labels),
        "cohort_digest": cohort.digest,
        "records": int((~failed).sum()),
        "quarantined": int(failed.sum()),
        "shard_bytes": [os.path.getsize(folder / shard_name(job.shard)) for job in jobs],
    }
    files = {name: digest_of((folder / name).read_bytes()) for name in (INDEX, QUARANTINE)}
    manifest["files"] = files
    manifest["digest"] = manifest_digest(manifest)
    write_text(folder / STORE_FILE, json.dumps(manifest, indent=1))
    for job in jobs:
        _part(folder, job.shard).unlink()
    (folder / REQUEST_FILE).unlink()


def _read_part(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except Exception as error:  # pyarrow raises whatever it runs into
        raise StoreError(
            f"{file} is damaged: {error}", remedy="delete this file and repeat the command"
        ) from error


def _part(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.index"
