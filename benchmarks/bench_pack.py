"""Packing a cohort against a loop over `wfdb.rdrecord`.

    python benchmarks/bench_pack.py --ptbxl /data/ptb-xl --records 2000

The records are PTB-XL's at 100 Hz, or simulated ones in its layout. The baseline reads every
record with wfdb, turns millivolts into int16 microvolts and writes them to a `numpy.memmap`: the
same array that packing writes, which is checked. Packing also verifies every channel's checksum,
hashes the files and writes an index, and runs in one process here, as the loop does. A third row
reads raw numbers with wfdb (`physical=False`), its fastest way, and relies on PTB-XL's gain of
1000 a millivolt. All files have been read once before, so that the disk is not what is measured;
both run in turn, and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import warnings
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohorts import first_records, temporary
from einthoven.cohorts import open_cohort
from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.synthetic import synthesize
from einthoven.signals.pack import pack
from einthoven.signals.store import Store
from table import Row, alternately, print_table, speed_row

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb uses parts of pandas that are to go
    import wfdb

TARGET = 10.0
LEADS, SAMPLES = 12, 1000


def loop(paths: list[Path], file: Path, *, physical: bool) -> NDArray[np.int16]:
    """The baseline: (records, leads, samples) microvolts on disk, read one by one."""
    out = np.memmap(file, dtype="<i2", mode="w+", shape=(len(paths), LEADS, SAMPLES))
    for i, path in enumerate(paths):
        record = wfdb.rdrecord(str(path.with_suffix("")), physical=physical)
        out[i] = np.rint(record.p_signal.T * 1000) if physical else record.d_signal.T
    out.flush()
    return out


def run(ptbxl: Path | None = None, records: int = 2000, rounds: int = 2) -> list[Row]:
    """Measure on PTB-XL where its folder is given, on simulated records otherwise."""
    with temporary() as folder:
        if ptbxl is None:
            synthesize(folder / "cohort", records=records, rate=100)
        source = ptbxl or folder / "cohort"
        cohort = first_records(open_cohort(source, empty_rows="keep", rate=100), records)
        what = "simulated" if ptbxl is None else "PTB-XL"
        return _compare(cohort, folder, what, rounds)


def _compare(cohort: Cohort, folder: Path, what: str, rounds: int) -> list[Row]:
    paths = cohort.paths()
    packed = folder / "packed"
    same = _differences(pack(cohort, packed, workers=1), loop(paths, folder / "p", physical=True))
    number = count()

    def ours() -> None:
        pack(cohort, folder / f"store-{next(number)}", workers=1)

    rows = []
    for physical, target in ((True, TARGET), (False, None)):

        def baseline(physical: bool = physical) -> None:
            loop(paths, folder / "memmap", physical=physical)

        mine, theirs = alternately(ours, baseline, rounds)
        note = f"{len(cohort)} {what} records; {same} values differ"
        name = f"pack a record, wfdb {'millivolts' if physical else 'raw numbers'}"
        rows.append(speed_row(name, mine, theirs, per=len(cohort), target=target, note=note))
    return rows


def _differences(store: Store, expected: NDArray[np.int16]) -> int:
    """How many values of a store are not those of the loop."""
    [chunk] = store.read(np.arange(len(store)))
    return int((chunk.signals != expected).sum())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ptbxl", type=Path, help="folder of PTB-XL; simulated records without")
    parser.add_argument("--records", type=int, default=2000)
    options = parser.parse_args()
    print_table(run(options.ptbxl, options.records), title="Packing")


if __name__ == "__main__":
    main()
