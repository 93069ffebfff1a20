"""Prepared training crops a second, against a scipy call a record.

    python benchmarks/bench_prepare.py

One batch of 64 twelve-lead records of 10 s, int16 microvolts as the store holds them, becomes
random 9 s crops at 250 Hz, filtered and standardised, as ST-MEM's fine-tuning reads them. The
baseline does the same record by record: `scipy.signal.resample`, crop, `sosfiltfilt` twice,
standardise, stack. Both sides are run in turn, several times over, and the fastest of each counts,
since other load on the machine only ever adds time. It adds most to two threads that wait for each
other: on a busy machine, read the rows of one thread, which is what the baseline uses.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import signal as sps
from torch import Tensor

from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_batch, random_starts
from einthoven.signals.steps import Filter, Resample, Standardise, Window
from table import Row, alternately, print_table, speed_row, timed

BATCH = 64
TARGET = 4.0
ROUNDS = 30
ST_MEM = Preparation(
    leads=STANDARD_LEADS,
    steps=(
        Resample(250),
        Window(2250),
        Filter("highpass", 0.67, order=5),
        Filter("lowpass", 40, order=5),
        Standardise(over="record"),
    ),
)
HIGH_PASS = sps.butter(5, 0.67, "highpass", fs=250, output="sos")
LOW_PASS = sps.butter(5, 40, "lowpass", fs=250, output="sos")


def one_by_one(raw: NDArray[np.int16], starts: list[int]) -> Tensor:
    """The baseline: a batch made record by record."""
    return torch.from_numpy(np.stack([_one(*pair) for pair in zip(raw, starts, strict=True)]))


def _one(raw: NDArray[np.int16], start: int) -> NDArray[np.float32]:
    signal = raw.astype(np.float32) / 1000
    signal = sps.resample(signal, 2500, axis=-1)
    signal = signal[:, start : start + 2250]
    signal = sps.sosfiltfilt(LOW_PASS, sps.sosfiltfilt(HIGH_PASS, signal))
    standard: NDArray[np.float64] = (signal - signal.mean()) / signal.std()
    return standard.astype(np.float32)


def _records(rate: int) -> NDArray[np.int16]:
    random = np.random.default_rng(0)
    time_s = np.arange(10 * rate) / rate
    beats = np.exp(-(((time_s * 1.2) % 1 - 0.5) ** 2) / 5e-4)
    size = random.uniform(200, 2000, (BATCH, 12, 1))
    noise = 30 * random.standard_normal((BATCH, 12, len(time_s)))
    return (size * beats + noise).astype(np.int16)


def _measure(rate: int, *, threads: int) -> Row:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _compare(rate)
    finally:
        torch.set_num_threads(before)


def _compare(rate: int) -> Row:
    raw = _records(rate)
    signals = torch.from_numpy(raw)
    generator = torch.Generator().manual_seed(0)
    starts = random_starts(ST_MEM, raw.shape[2], rate=rate, count=BATCH, generator=generator)

    def ours() -> Tensor:
        return prepare_batch(ST_MEM, signals, rate=rate, starts=starts, unit="uV")

    def baseline() -> Tensor:
        return one_by_one(raw, starts.tolist())

    first = timed(ours).wall
    deviation = float((ours() - baseline()).abs().max() / baseline().abs().max())
    mine, theirs = alternately(ours, baseline, ROUNDS)
    note = f"of a batch of {BATCH}; first batch {first:.2f} s; deviation {deviation:.0e}"
    name = f"prepare a record, {rate} Hz, threads: {torch.get_num_threads()}"
    return speed_row(name, mine, theirs, per=BATCH, target=TARGET, note=note)


def run() -> list[Row]:
    """Measure both rates of PTB-XL, on two cores and on one."""
    return [_measure(rate, threads=threads) for threads in (2, 1) for rate in (500, 100)]


def main() -> None:
    """Print the table."""
    print_table(run(), title="Preparation of training crops")


if __name__ == "__main__":
    main()
