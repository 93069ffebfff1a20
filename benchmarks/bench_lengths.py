"""Cohorts whose records differ in length, against a uniform one.

    python benchmarks/bench_lengths.py

300 twelve-lead records at 500 Hz, packed and cut into training batches as ST-MEM's fine-tuning
reads them (9 s at 250 Hz, filtered and standardised). The baseline has 300 records of 12 s. The
other cohorts have 300 different lengths around 12 s: in steps of 20 ms, or of any number of
samples. A Fourier transform of a length with large prime factors costs several times one of 6,000
samples, in every library; this is the cost of the rows named `any`, and independent of the number
of lengths.

Three things are measured for each cohort: packing, an epoch of prepared batches, and an epoch of
fine-tuning `s4_small` with its preparation and its validation. Packing and training have targets;
preparation alone is a small part of training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch

from cohorts import temporary
from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import open_cohort
from einthoven.records import STANDARD_LEADS
from einthoven.records.wfdb import write_wfdb
from einthoven.signals.batches import SignalSource, TrainingBatches
from einthoven.signals.filters import crop_filter
from einthoven.signals.pack import pack
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Filter, Resample, Standardise, Window
from einthoven.signals.store import Store
from einthoven.stages.data import Context
from einthoven.stages.finetune import finetune
from einthoven.stages.recipe import Stage2
from einthoven.training.distributed import Processes
from table import Row, alternately, print_table, speed_row

RECORDS, BATCH, RATE, ROUNDS = 300, 60, 500, 3
TARGET = 0.67  # at most 1.5 times the uniform cohort's time
PREPARATION = Preparation(
    leads=STANDARD_LEADS,
    steps=(
        Resample(250),
        Window(2250),
        Filter("highpass", 0.67, order=5),
        Filter("lowpass", 40, order=5),
        Standardise(over="record"),
    ),
)


def _write(folder: Path, lengths: list[int]) -> None:
    random = np.random.default_rng(0)
    folder.mkdir()
    for number, samples in enumerate(lengths):
        signal = random.standard_normal((12, samples)).astype(np.float32)
        write_wfdb(folder / f"r{number:03d}", signal, rate=RATE, leads=STANDARD_LEADS)


def _source(store: Store, preparation: Preparation, records: int = RECORDS) -> SignalSource:
    rows = np.arange(records)
    return SignalSource(store, rows, (rows[:, None] % 2).astype(np.uint8), preparation)


def _prepare(store: Store) -> None:
    for _ in TrainingBatches(_source(store, PREPARATION), BATCH, seed=0).epoch(0):
        pass


def _train(store: Store, folder: Path) -> None:
    classifier = create_classifier("s4_small", labels=["label"], seed=0)
    finetune(
        classifier,
        _source(store, classifier.preparation),
        _source(store, classifier.preparation, BATCH),
        Stage2(epochs=1, batch_size=BATCH, warmup_epochs=0),
        folder,
        Context(seed=0, processes=Processes("cpu")),
    )


def run() -> list[Row]:
    """Measure packing, preparation and training for all cohorts, on one thread."""
    torch.set_num_threads(1)
    # The same mean length as the baseline's.
    cohorts = {
        "uniform": [6000] * RECORDS,
        "20 ms": list(range(4500, 7500, 10)),
        "any": list(range(5850, 6150)),
    }
    rows, number = [], count()
    with temporary() as folder:
        for name, lengths in cohorts.items():
            _write(folder / name, lengths)
        opened = {name: open_cohort(folder / name) for name in cohorts}
        stores = {name: pack(c, folder / f"{name}.store") for name, c in opened.items()}
        works: dict[str, Callable[[str], object]] = {
            "pack": lambda name: pack(opened[name], folder / f"store-{next(number)}", workers=1),
            "prepare": lambda name: _prepare(stores[name]),
            "train on": lambda name: _train(stores[name], folder / f"run-{next(number)}"),
        }
        for name in ("20 ms", "any"):
            for work, call in works.items():
                crop_filter.cache_clear()
                mine, theirs = alternately(partial(call, name), partial(call, "uniform"), ROUNDS)
                maps = crop_filter.cache_info().misses
                title = f"{work} a record, 300 lengths ({name}) against one"
                target = None if work == "prepare" else TARGET
                note = f"filter maps built: {maps}" if work == "prepare" else ""
                rows.append(speed_row(title, mine, theirs, per=RECORDS, target=target, note=note))
    return rows


def main() -> None:
    """Print the table."""
    print_table(run(), title="Cohorts of many lengths")


if __name__ == "__main__":
    main()
