"""Small ECG files of array formats: HDF5, MATLAB, CSV and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

from einthoven.records import STANDARD_LEADS

LEADS = ("I", "II", "V6")
SIDECAR = 'rate = 250\nunit = "mV"\nleads = ["I", "II", "V6"]\nsamples = 200\n'
CODE_TEST = ("I", "II", "III", "aVL", "aVF", "aVR", *STANDARD_LEADS[6:])


def three_leads() -> np.ndarray:
    """Millivolts with four decimals, (3, 200)."""
    return np.random.default_rng(5).normal(0, 0.5, (3, 200)).round(4)


def twelve_leads(samples: int = 600, seed: int = 5) -> np.ndarray:
    """Millivolts of the standard leads, (12, samples), whose limb leads obey Einthoven's law."""
    rng = np.random.default_rng(seed)
    one, two = rng.normal(0, 0.5, (2, samples))
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.concatenate([limb, rng.normal(0, 0.5, (6, samples))]).astype(np.float32)


def with_sidecar(path: Path, text: str = SIDECAR) -> Path:
    path.with_suffix(".toml").write_text(text)
    return path


def sound_csv(folder: Path, suffix: str = ".csv", delimiter: str = ",") -> Path:
    path = folder / f"sound{suffix}"
    np.savetxt(path, three_leads().T, fmt="%.4f", delimiter=delimiter)
    return with_sidecar(path)


def sound_tsv(folder: Path) -> Path:
    return sound_csv(folder, ".tsv", "\t")


def sound_npy(folder: Path) -> Path:
    np.save(folder / "sound.npy", three_leads())
    return with_sidecar(folder / "sound.npy")


def sound_npz(folder: Path) -> Path:
    np.savez(folder / "sound.npz", ecg=three_leads())
    return with_sidecar(folder / "sound.npz")


def sound_h5(folder: Path, name: str = "sound.h5") -> Path:
    """A file in the layout of SPH."""
    with h5py.File(folder / name, "w") as file:
        signal = twelve_leads().astype(np.float16)
        file.create_dataset("ecg", data=signal, chunks=(3, 150), compression="gzip")
    return folder / name


def sound_hdf5(folder: Path) -> Path:
    return sound_h5(folder, "sound.hdf5")


def sound_mat(folder: Path) -> Path:
    """A file in the layout of the China Physiological Signal Challenge 2018."""
    ecg = {"sex": "Female", "age": 70.0, "data": twelve_leads().astype(float)}
    savemat(folder / "sound.mat", {"ECG": ecg}, do_compression=True)
    return folder / "sound.mat"


def code15(
    path: Path,
    exams: Sequence[int] | None = (17, 4, 0),
    *,
    order: Sequence[str] = STANDARD_LEADS,
    samples: int = 2934,
) -> np.ndarray:
    """Write a file in the layout of CODE-15; return its tracings, (exams, 4096, 12)."""
    tracings = np.zeros((3, 4096, 12), np.float32)
    start = (4096 - samples) // 2
    rows = [STANDARD_LEADS.index(lead) for lead in order]
    for row in range(2):  # the last one is a row of zeros, as in each part of CODE-15
        tracings[row, start : start + samples] = twelve_leads(samples, seed=row)[rows].T
    with h5py.File(path, "w") as file:
        file["tracings"] = tracings
        if exams is not None:
            file["exam_id"] = np.array(exams)
    return tracings
