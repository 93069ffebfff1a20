"""Write a synthetic cohort to disk in PTB-XL's layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from einthoven.cohorts.synthetic.ecg import record_ecg
from einthoven.cohorts.synthetic.patients import Patient, Visit, plan
from einthoven.cohorts.synthetic.tables import SUFFIX, Written, filename, write_tables
from einthoven.errors import CohortError
from einthoven.progress import Progress
from einthoven.records.record import STANDARD_LEADS
from einthoven.records.wfdb import write_wfdb

_CHUNK = 16  # patients that a worker process takes at a time


class _Task(NamedTuple):
    folder: Path
    seed: int
    rate: int
    patients: tuple[Patient, ...]


def synthesize(
    dest: str | os.PathLike[str],
    *,
    records: int = 600,
    seed: int = 0,
    rate: int = 100,
    progress: Progress | None = None,
    workers: int = 1,
) -> Path:
    """Write a cohort of physiological, labelled 12-lead ECGs as if it were PTB-XL.

    A heart vector with known waves is projected on twelve leads (Dower's coefficients); patients
    differ in axis, voltage, intervals and electrode placement, and each statement changes the
    heart or its rhythm in the way that a cardiologist would look for. The signals are simulated:
    good for tests, examples and teaching, not evidence about patients.

    Parameters
    ----------
    dest : path-like
        Folder to create; it must not exist, or be empty. It appears when it is complete.
    records : int
        Number of ECGs, 1 to 99999. From about 400 on, every statement occurs in train, validation
        and test.
    seed : int
        The same seed gives the same bytes, whatever `workers` is.
    rate : int
        100 (`records100/..._lr`) or 500 Hz (`records500/..._hr`). The two share their hearts and
        beats and differ in noise.
    progress : Progress, optional
        Called with the number of records written.
    workers : int
        Processes. More than one starts fresh interpreters, so a script needs the usual
        `if __name__ == "__main__"` guard.

    Returns
    -------
    pathlib.Path
        `dest`, with `ptbxl_database.csv` (PTB-XL's 28 columns), `scp_statements.csv` (all 71
        rows), the WFDB records, and `ground_truth.csv`: rate, intervals, axis and beat times of
        every record, which PTB-XL does not have.

    Raises
    ------
    CohortError
        If `dest` is not empty, or a number is out of its range.
    """
    folder = Path(dest)
    _check(folder, records=records, seed=seed, rate=rate, workers=workers)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        patients = plan(records, seed)
        _make_folders(partial, records, rate)
        tasks = _tasks(partial, patients, seed, rate)
        written: dict[int, Written] = {}
        for rows in _mapped(tasks, workers):
            written.update((row.ecg_id, row) for row in rows)
            if progress is not None:
                progress("synthesize", len(written), records)
        write_tables(partial, patients, written=written, seed=seed)
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _check(folder: Path, *, records: int, seed: int, rate: int, workers: int) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CohortError(
            f"{folder} exists and is not an empty folder",
            remedy="name a new folder, or delete this one",
        )
    limits = (
        ("records", records, 1, 99999),
        ("seed", seed, 0, None),
        ("workers", workers, 1, None),
    )
    for name, value, low, high in limits:
        if value < low or (high is not None and value > high):
            span = f"{low} to {high}" if high is not None else f"at least {low}"
            raise CohortError(f"{name} = {value!r}, but must be {span}", remedy=f"change {name}")
    if rate not in SUFFIX:
        raise CohortError(
            f"rate = {rate!r} Hz, but PTB-XL's layout has 100 and 500 Hz only",
            remedy="choose 100 or 500",
        )


def _make_folders(folder: Path, records: int, rate: int) -> None:
    for ecg_id in (*range(0, records, 1000), records):
        (folder / filename(ecg_id, rate)).parent.mkdir(parents=True, exist_ok=True)


def _tasks(folder: Path, patients: Sequence[Patient], seed: int, rate: int) -> list[_Task]:
    chunks = [patients[i : i + _CHUNK] for i in range(0, len(patients), _CHUNK)]
    return [_Task(folder, seed, rate, tuple(chunk)) for chunk in chunks]


def _mapped(tasks: Iterable[_Task], workers: int) -> Iterator[list[Written]]:
    if workers == 1:
        yield from map(_write_patients, tasks)
        return
    # Fresh processes: forking one that has threads (torch's, say) can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write_patients, tasks)


def _write_patients(task: _Task) -> list[Written]:
    return [
        _write_visit(task, patient, visit, k)
        for patient in task.patients
        for k, visit in enumerate(patient.visits)
    ]


def _write_visit(task: _Task, patient: Patient, visit: Visit, k: int) -> Written:
    """Simulate and write one recording; its seeds depend on seed, patient and visit only."""
    ecg = record_ecg(
        np.random.SeedSequence(task.seed, spawn_key=(1, patient.index)),
        np.random.SeedSequence(task.seed, spawn_key=(2, patient.index, k)),
        statements=visit.statements,
        rate=task.rate,
        age=patient.age,
        sex=patient.sex,
    )
    path = task.folder / filename(visit.ecg_id, task.rate)
    comments = ["synthetic ECG by einthoven: no patient"]
    write_wfdb(path, ecg.signal, rate=task.rate, leads=STANDARD_LEADS, comments=comments)
    return Written(visit.ecg_id, ecg.truth, ecg.noise.drifting, ecg.noise.loose)
