"""Every benchmark, one table.

    python benchmarks/run.py
    python benchmarks/run.py --only pack memory --ptbxl /data/ptb-xl --json rows.json
    python benchmarks/run.py --device cuda      # training steps on a GPU; the rest has none

Each compares with its own baseline in the same run; the module of the same name says how. A
machine with nothing else to do is assumed: where it is busy, set OMP_WAIT_POLICY=PASSIVE, so that
waiting threads do not spin, and read the ratios in CPU time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

from devices import CPU, add_device
from einthoven.training.run import environment
from table import Row, print_table

NAMES = (
    "bootstrap",
    "prepare",
    "pack",
    "readers",
    "lengths",
    "memory",
    "onnx",
    "finetune",
    "pages",
    "waiting",
    "pretrain",
    "objectives",
    "step_memory",
    "peers",
    "probe",
    "similar",
    "serve",
    "predict",
)


ON_GPU = ("finetune", "pretrain", "objectives", "step_memory")


def measure(name: str, ptbxl: Path | None, device: torch.device) -> list[Row]:
    """The rows of one benchmark."""
    work: Callable[..., list[Row]] = import_module(f"bench_{name}").run
    if name in ON_GPU:
        return work(device=device)
    return work(ptbxl) if name == "pack" else work()


def main() -> None:
    """Measure, print, and write JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES)
    parser.add_argument("--ptbxl", type=Path, help="PTB-XL for `pack`; simulated records without")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    add_device(parser)
    options = parser.parse_args()
    names = options.only or (NAMES if options.device == CPU else ON_GPU)
    about = environment() | {"threads": str(torch.get_num_threads())}
    if options.device.type == "cuda":
        about["device"] = torch.cuda.get_device_name(options.device)
    rows = []
    for name in names:
        began = time.perf_counter()
        rows += measure(name, options.ptbxl, options.device)
        print(f"{name}: measured in {time.perf_counter() - began:.0f} s", flush=True)
        if options.json:  # after each, so that an interrupted run leaves what it has
            content = {"environment": about, "rows": [row.to_dict() for row in rows]}
            options.json.write_text(json.dumps(content, indent=1) + "\n")
    print_table(rows, title=", ".join(f"{key} {value}" for key, value in about.items()))


if __name__ == "__main__":
    main()
