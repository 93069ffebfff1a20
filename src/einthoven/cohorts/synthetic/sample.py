"""A small simulated cohort with a table of one label, and one simulated ECG: the samples to try."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from einthoven.cohorts.synthetic.ecg import simulate
from einthoven.cohorts.synthetic.patients import Recording, draw_recordings
from einthoven.cohorts.synthetic.write import truth_row, write_csv, write_recording
from einthoven.records.record import STANDARD_LEADS, Record

LABEL = "AFIB"
TABLE = "labels.csv"
_RECORDS, _POSITIVES = 40, 10
_DRAWN = 160  # recordings to select from: about one in twelve is positive
_SEED, _RATE = 0, 500
_FOLDER = "simulated-ecgs"


def write_sample(folder: Path) -> Path:
    """Write 40 simulated ECGs of 32 patients; ten of the ECGs show atrial fibrillation.

    `folder` must exist. Returns `labels.csv`, with the columns `path`, `patient`, `age`, `sex` and
    `AFIB`. `ground_truth.csv` holds rate, intervals and beats of every record, and marks the cohort
    as simulated.
    """
    rows, truths = [], []
    recordings = sorted(_selected(), key=lambda recording: recording.date)
    patients = list(dict.fromkeys(recording.patient for recording in recordings))
    for number, recording in enumerate(recordings, start=1):
        path = f"{_FOLDER}/{number:04d}.hea"
        ecg = write_recording(folder / path, recording, seed=_SEED, rate=_RATE)
        row: dict[str, object] = {
            "path": path,
            "patient": f"S{patients.index(recording.patient) + 1:02d}",
        }
        row |= {"age": recording.age, "sex": ("male", "female")[recording.sex]}
        rows.append(row | {LABEL: int(LABEL in recording.statements)})
        truths.append(truth_row(number, ecg.truth))
    write_csv(folder / TABLE, rows)
    write_csv(folder / "ground_truth.csv", truths)
    return folder / TABLE


def sample_record() -> Record:
    """A simulated ECG with atrial fibrillation, of ten seconds and twelve leads."""
    seeds = (np.random.SeedSequence(_SEED, spawn_key=(4, part)) for part in (0, 1))
    ecg = simulate([LABEL], *seeds, rate=_RATE, age=72)
    signal = ecg.signal.astype(np.float32)
    return Record.create(signal, _RATE, leads=STANDARD_LEADS, name="SIMULATED ECG (AFIB)")


def _selected() -> list[Recording]:
    """Whole patients: those who have the label at some time first, then others."""
    histories: dict[int, list[Recording]] = defaultdict(list)
    for recording in draw_recordings(_DRAWN, _SEED)[0]:
        histories[recording.patient].append(recording)
    selected: list[Recording] = []
    for is_positive, most in ((True, _POSITIVES), (False, _RECORDS)):
        for history in histories.values():
            carries = any(LABEL in recording.statements for recording in history)
            if carries == is_positive and len(selected) + len(history) <= most:
                selected += history
    return selected
