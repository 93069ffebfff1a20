"""Write a synthetic cohort to disk in PTB-XL's layout."""

from __future__ import annotations

import csv
import math
import os
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from einthoven.cohorts.synthetic.ecg import SyntheticECG, Truth, simulate
from einthoven.cohorts.synthetic.patients import Recording, draw_recordings
from einthoven.cohorts.synthetic.signs import INFARCTIONS
from einthoven.cohorts.synthetic.statements import STATEMENTS, STATEMENTS_FILE
from einthoven.errors import CohortError
from einthoven.progress import Progress
from einthoven.records.record import STANDARD_LEADS
from einthoven.records.wfdb import write_wfdb
from einthoven.workers import mapped

# Truth, visible drift and loose electrode of a recording.
Result = tuple[Truth, bool, str]

_SUFFIXES = {100: "lr", 500: "hr"}
# Names of the heart's axis below a limit in degrees.
_AXES = ((-90, "ARAD"), (-30, "ALAD"), (30, "LAD"), (90, "MID"), (120, "RAD"))


def synthesize(
    dest: str | os.PathLike[str],
    *,
    records: int = 600,
    seed: int = 0,
    rate: int = 100,
    progress: Progress | None = None,
    workers: int = 1,
) -> Path:
    """Write a cohort of simulated, labelled 12-lead ECGs in PTB-XL's layout.

    A heart vector with known waves is projected on twelve leads (Dower's coefficients); patients
    differ in axis, voltage, intervals and electrode placement, and each statement changes the
    heart or its rhythm as a cardiologist expects. The signals serve for tests, examples and
    teaching; they are not evidence about patients.

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
        100 or 500 Hz. The two share their hearts and beats and differ in noise.
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
    partial_folder = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial_folder.mkdir(parents=True)
        recordings, patient_ids = draw_recordings(records, seed)
        write = partial(_write_record, partial_folder, seed, rate)
        results = []
        items = list(enumerate(recordings, start=1))
        with mapped(write, items, workers=workers, chunk=16) as written:
            for result in written:
                results.append(result)
                if progress is not None:
                    progress("synthesize", len(results), records)
        _write_tables(partial_folder, seed, patient_ids, recordings, results)
        if folder.is_dir():
            folder.rmdir()
        partial_folder.rename(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return folder


def check_empty(folder: Path) -> None:
    """Raise CohortError if a path exists and is not an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CohortError(
            f"{folder} exists and is not an empty folder",
            remedy="name a new folder, or delete this one",
        )


def _check(folder: Path, *, records: int, seed: int, rate: int, workers: int) -> None:
    check_empty(folder)
    for name, value, valid, limits in (
        ("records", records, 1 <= records <= 99999, "1 to 99999"),
        ("seed", seed, seed >= 0, "at least 0"),
        ("workers", workers, workers >= 1, "at least 1"),
        ("rate", rate, rate in _SUFFIXES, "100 or 500 Hz"),
    ):
        if not valid:
            raise CohortError(f"{name} = {value!r}, but must be {limits}", remedy=f"change {name}")


def filename(ecg_id: int, rate: int) -> str:
    """PTB-XL's name of a recording, without suffix, relative to the cohort's folder."""
    return f"records{rate}/{ecg_id // 1000 * 1000:05d}/{ecg_id:05d}_{_SUFFIXES[rate]}"


def _write_record(folder: Path, seed: int, rate: int, item: tuple[int, Recording]) -> Result:
    ecg_id, recording = item
    ecg = write_recording(folder / filename(ecg_id, rate), recording, seed=seed, rate=rate)
    return ecg.truth, ecg.drifting, ecg.loose


def write_recording(path: Path, recording: Recording, *, seed: int, rate: int) -> SyntheticECG:
    """Simulate and write one recording; its seeds depend on seed, patient and visit only."""
    ecg = simulate(
        recording.statements,
        np.random.SeedSequence(seed, spawn_key=(1, recording.patient)),
        np.random.SeedSequence(seed, spawn_key=(2, recording.patient, recording.visit)),
        rate=rate,
        age=recording.heart_age,
        sex=recording.sex,
    )
    comments = ["SIMULATED: synthetic ECG by einthoven, no patient"]
    write_wfdb(path, ecg.signal, rate=rate, leads=STANDARD_LEADS, comments=comments)
    return ecg


def _write_tables(
    folder: Path,
    seed: int,
    patient_ids: list[int],
    recordings: list[Recording],
    results: list[Result],
) -> None:
    """Write `ptbxl_database.csv`, `scp_statements.csv` and `ground_truth.csv`."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    database, truths = [], []
    for ecg_id, (recording, result) in enumerate(zip(recordings, results, strict=True), start=1):
        patient_id = patient_ids[recording.patient]
        database.append(_database_row(ecg_id, patient_id, recording, result, rng))
        truths.append(truth_row(ecg_id, result[0]))
    write_csv(folder / "ptbxl_database.csv", database)
    shutil.copyfile(STATEMENTS_FILE, folder / STATEMENTS_FILE.name)
    write_csv(folder / "ground_truth.csv", truths)


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows of the same columns."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _database_row(
    ecg_id: int,
    patient_id: int,
    recording: Recording,
    result: Result,
    rng: np.random.Generator,
) -> dict[str, object]:
    """Row of PTB-XL's table; nurse, site, likelihoods and validator are drawn here."""
    truth, drifting, loose = result
    codes, height, weight = recording.statements, recording.height, recording.weight
    kinds = ((truth.beat_kinds.count(1), "VES"), (truth.beat_kinds.count(2), "SVES"))
    return {
        "ecg_id": ecg_id,
        "patient_id": float(patient_id),
        # PTB-XL 1.0.3 writes 300 for everyone above 89.
        "age": float(recording.age if recording.age <= 89 else 300),
        "sex": recording.sex,
        "height": "" if height is None else float(height),
        "weight": "" if weight is None else float(weight),
        "nurse": float(rng.integers(12)),
        "site": float(rng.integers(4)),
        "device": "einthoven synthetic",
        "recording_date": recording.date.strftime("%Y-%m-%d %H:%M:%S"),
        "report": ". ".join(STATEMENTS[code]["description"] for code in codes),
        "scp_codes": str({code: _likelihood(code, rng) for code in codes}),
        "heart_axis": next((name for limit, name in _AXES if truth.axis_degrees < limit), "ARAD"),
        "infarction_stadium1": "unknown" if INFARCTIONS & set(codes) else "",
        "infarction_stadium2": "",
        "validated_by": float(rng.integers(2)),
        "second_opinion": False,
        "initial_autogenerated_report": False,
        "validated_by_human": True,
        "baseline_drift": " , alles,  " if drifting else "",
        "static_noise": "",
        "burst_noise": "",
        "electrodes_problems": loose,
        "extra_beats": ", ".join(f"{count}{kind}" for count, kind in kinds if count),
        "pacemaker": "ja, pacemaker" if "PACE" in codes else "",
        "strat_fold": recording.fold,
        "filename_lr": filename(ecg_id, 100),
        "filename_hr": filename(ecg_id, 500),
    }


def _likelihood(code: str, rng: np.random.Generator) -> float:
    """Likelihood as in PTB-XL: percent for diagnoses, mostly 0 ("not stated") otherwise."""
    if STATEMENTS[code]["diagnostic"]:
        return float(rng.choice([100.0, 80.0, 50.0], p=[0.7, 0.2, 0.1]))
    return 100.0 if code in ("PVC", "PAC", "BIGU", "AFIB", "AFLT", "PACE") else 0.0


def truth_row(ecg_id: int, truth: Truth) -> dict[str, object]:
    """Row of `ground_truth.csv`."""
    row: dict[str, object] = {"ecg_id": ecg_id}
    for name, value in asdict(truth).items():
        if isinstance(value, tuple):
            row[name] = " ".join(f"{round(item, 3):g}" for item in value)
        else:
            row[name] = "" if math.isnan(value) else f"{value:.1f}"
    return row
