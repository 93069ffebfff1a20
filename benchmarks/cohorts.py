"""Cohorts for the benchmarks that need records on disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from einthoven.cohorts import open_cohort
from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.synthetic import synthesize
from einthoven.signals.pack import pack
from einthoven.signals.store import Store


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder that is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="einthoven-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def synthetic(folder: Path, records: int) -> tuple[Cohort, Store]:
    """Simulated records at 100 Hz, packed; labels that none of them carries are left out."""
    synthesize(folder / "cohort", records=records, rate=100)
    everyone = open_cohort(folder / "cohort", empty_rows="keep")
    return open_cohort(folder / "cohort", min_records=1), pack(everyone, folder / "store")


def first_records(cohort: Cohort, count: int) -> Cohort:
    """The first records of a cohort."""
    return cohort.select(np.arange(len(cohort)) < count)
