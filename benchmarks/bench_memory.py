"""Memory of training with 1,000 and with 20,000 records.

    python benchmarks/bench_memory.py

Two cohorts of simulated 10 s records at 100 Hz, with all 71 statements and the same 100
validation records; the larger repeats the same signals under new names, so that its store holds
480 MB. A fresh process each opens table and store and fine-tunes a one-block `mtecg_tiny_100hz`
on crops of 2.5 s for as many steps as one epoch of the larger one has: every record is read, many
times over in the smaller cohort. What counts is the process's peak resident memory, pages of the
store included. Because a peak in one batch could hide what the cohort itself takes, the second row
shows the process's own (anonymous) pages at the end; Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch

from cohorts import temporary
from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import open_cohort
from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.synthetic import synthesize
from einthoven.signals.pack import pack
from einthoven.signals.store import Store
from einthoven.stages.data import Context, Dataset
from einthoven.stages.finetune import finetune
from einthoven.stages.recipe import Stage2
from einthoven.training.distributed import Processes
from table import Row, print_table

FEW, MANY, VALIDATION, DIFFERENT = 1_000, 20_000, 100, 400
BATCH = 64
LIMIT_MB = 50.0


def write_table(cohort: Cohort, file: Path, records: int) -> None:
    """A cohort table with this many training records, which repeat those of a cohort."""
    rows = [i % len(cohort) for i in range(records + VALIDATION)]
    names = [f"record-{i:05d}" for i in range(len(rows))]
    table = pd.DataFrame(cohort.matrix[rows], columns=list(cohort.labels))
    split = ["validation"] * VALIDATION + ["train"] * records
    paths = cohort.table["path"].to_numpy()[rows]
    table.insert(0, "record", names)
    table.assign(patient=names, path=paths, split=split).to_csv(file, index=False)


def train(table: Path, store: Path, folder: Path) -> dict[str, float]:
    """Fine-tune for about as many steps as an epoch of `MANY` records has; megabytes used."""
    cohort = open_cohort(table, root=table.parent / "cohort")
    classifier = create_classifier("mtecg_tiny_100hz", labels=cohort.labels, seed=0, depth=1)
    preparation = classifier.preparation.with_window(seconds=2.5)
    data = Dataset(cohort, Store.open(store), preparation)
    source = data.source("train")
    finetune(
        classifier,
        source,
        data.source("validation"),
        Stage2(epochs=MANY // len(source), batch_size=BATCH, warmup_epochs=0),
        folder,
        Context(seed=0, processes=Processes("cpu")),
    )
    return memory()


def memory() -> dict[str, float]:
    """This process's peak, and its anonymous and file pages now, in megabytes."""
    status = Path("/proc/self/status")
    if not status.is_file():
        unit = 1 if sys.platform == "darwin" else 1024
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}
    # Not ru_maxrss, which on Linux starts from the size of the process that started this one.
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    names = {"peak": "VmHWM", "anonymous": "RssAnon", "files": "RssFile"}
    return {key: int(fields[name].split()[0]) * 1024 / 1e6 for key, name in names.items()}


def measure(folder: Path, cohort: Cohort, records: int) -> dict[str, float]:
    """Pack a cohort of this size and train on it in a fresh process."""
    table, store = folder / f"{records}.csv", folder / f"store-{records}"
    write_table(cohort, table, records)
    pack(open_cohort(table, root=cohort.root), store)
    command = [sys.executable, __file__, "--child", table, store, folder / f"run-{records}"]
    command += ["--threads", str(torch.get_num_threads())]
    answer = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return result


def run() -> list[Row]:
    """Measure both sizes."""
    with temporary() as folder:
        synthesize(folder / "cohort", records=DIFFERENT, rate=100)
        cohort = open_cohort(folder / "cohort", empty_rows="keep")
        few, many = (measure(folder, cohort, records) for records in (FEW, MANY))
    what = f"{MANY:,} against {FEW:,} records"
    rows = [Row(f"peak memory, {what}", many["peak"], few["peak"], LIMIT_MB, unit="MB")]
    if "anonymous" in few:
        pages = f"{few['files']:.0f} and {many['files']:.0f} MB of files' pages besides"
        sizes = many["anonymous"], few["anonymous"]
        rows.append(Row(f"memory in the end, {what}", *sizes, LIMIT_MB, pages, unit="MB"))
    return rows


def main() -> None:
    """Measure and print; `--child` is the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        torch.set_num_threads(options.threads)
        print(json.dumps(train(*options.child)))
        return
    print_table(run(), title="Memory")


if __name__ == "__main__":
    main()
