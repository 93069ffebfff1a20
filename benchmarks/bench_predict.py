"""`einthoven predict`: one file in a fresh process, and 400 files on one core.

    OMP_NUM_THREADS=1 python benchmarks/bench_predict.py

The file is a simulated ECG of 10 s at 500 Hz, in WFDB, and the model the included one. Cold: fresh
processes of `einthoven predict FILE`, against fresh ones that import PyTorch, unpickle the same
network and run its four crops once; the medians of five, in turn. The note has the CPU time of
both (user and system), their peak resident memory, and the share of the time of a further process
that imports take (`python -X importtime`). Warm: `write_predictions` for 400 files in this process,
table included, against reading each file and running its crops, without preparation, findings or
table.

The aims are 2 s for the cold command and 15 ms a file, on a machine with nothing else to do. On
another one, compare the ratios in CPU time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cohorts import temporary
from einthoven.cohorts.synthetic import sample_record
from einthoven.inference import write_predictions
from einthoven.licences import LicenceWarning
from einthoven.models import load_model
from einthoven.models.model import Model
from einthoven.records import read_record
from einthoven.records.wfdb import write_wfdb
from table import Row, Times, alternately, print_table, speed_row

RUNS, FILES, ROUNDS = 5, 400, 2
CROPS = 4
COLD, WARM = 2.0, 0.015  # s, the aims

# A process tells its own peak: ru_maxrss starts from the size of the process that started it.
_PEAK = "import atexit; atexit.register(lambda: print(open('/proc/self/status').read()))\n"
_PREDICT = _PEAK + "import runpy; runpy.run_module('einthoven', run_name='__main__')"
_NETWORK = (
    _PEAK + "import sys, torch; network = torch.load(sys.argv[1], weights_only=False)\n"
    f"with torch.no_grad(): network(torch.zeros({CROPS}, 12, 250))"
)


@dataclass(frozen=True)
class Process:
    """Seconds by the clock and on processors, and the peak resident memory in MB, of a process."""

    wall: float
    cpu: float
    peak: float


def process(code: str, *arguments: str | Path) -> Process:
    """Run Python code in a fresh process."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        output.seek(0)
        text = output.read()
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, text
    found = re.search(r"VmHWM:\s*(\d+) kB", text)
    assert found is not None
    return Process(wall, usage.ru_utime + usage.ru_stime, int(found[1]) * 1024 / 1e6)


def median(processes: Sequence[Process]) -> Process:
    """The median of each figure."""
    rows = np.array([[each.wall, each.cpu, each.peak] for each in processes])
    return Process(*np.median(rows, axis=0).tolist())


def import_share(file: Path) -> float:
    """Share of a process of the command that imports take, by the clock."""
    began = time.perf_counter()
    command = [sys.executable, "-X", "importtime", "-m", "einthoven", "predict", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - began
    own = re.findall(r"^import time:\s+(\d+) \|", done.stderr, re.MULTILINE)
    return sum(map(int, own)) / 1e6 / wall


def cold(model: Model, file: Path, folder: Path) -> Row:
    """A fresh process of the command against one of PyTorch and the network."""
    network = folder / "network.pt"
    torch.save(model.classifier, network)
    pairs = [(process(_PREDICT, "predict", file), process(_NETWORK, network)) for _ in range(RUNS)]
    ours, baseline = (median([pair[side] for pair in pairs]) for side in (0, 1))
    note = (
        f"CPU {ours.cpu:.2f} s against {baseline.cpu:.2f} s, peak {ours.peak:.0f} against "
        f"{baseline.peak:.0f} MB, imports {import_share(file):.0%}; aim {COLD:g} s"
    )
    cpu = baseline.cpu / ours.cpu
    return Row("predict FILE, cold", ours.wall, baseline.wall, note=note, cpu_ratio=cpu)


def warm(model: Model, files: Sequence[Path], folder: Path) -> Row:
    """Many files against reading them and running the network alone."""
    outs = (folder / f"predictions-{number}.csv" for number in range(ROUNDS))
    crops = torch.zeros(CROPS, 12, 250)

    def baseline() -> None:
        with torch.no_grad():
            for file in files:
                read_record(file)
                model.classifier(crops)

    def ours() -> None:
        write_predictions(files, next(outs), model, device="cpu")

    times: tuple[Times, Times] = alternately(ours, baseline, ROUNDS)
    milliseconds = " against ".join(f"{1000 * each.cpu / len(files):.1f}" for each in times)
    note = f"each of {len(files)}; CPU {milliseconds} ms; aim {1000 * WARM:g} ms"
    return speed_row("predict FILES, one core", *times, per=len(files), note=note)


def run() -> list[Row]:
    """Measure both."""
    torch.set_num_threads(1)
    record = sample_record()
    with temporary() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", LicenceWarning)
        model = load_model()
        files = [folder / f"{number}.hea" for number in range(FILES)]
        for number, file in enumerate(files):
            signal = np.roll(record.signal, 11 * number, axis=1)
            write_wfdb(file.with_suffix(""), signal, rate=record.rate, leads=record.leads)
        return [cold(model, files[0], folder), warm(model, files, folder)]


if __name__ == "__main__":
    print_table(run(), title="Prediction")
