"""Memory of one training step against a straightforward PyTorch form of the same network.

    python benchmarks/bench_step_memory.py
    python benchmarks/bench_step_memory.py --device cuda

Networks, baselines and batches are those of `bench_pretrain.py`. Each form takes three steps in a
process of its own; what counts is the peak of the third, above what was held before the first:
activations, gradients, and the optimiser's state, which the first step makes, and not the weights,
which both have alike. On a CPU it is resident memory (Linux only), with what the allocator keeps;
on a GPU the tensors themselves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch

from bench_pretrain import Case, cases, optimisers, step_of
from devices import CPU, add_device, peak, reset_peak
from einthoven.backbones.inference import Precision
from table import Row, print_table

STEPS = 3
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def step_memory(case: Case, form: str, precision: Precision, device: torch.device) -> float:
    """Megabytes that a step takes, in this process."""
    ours, plain = (model.to(device) for model in (case.ours, case.plain))
    optimizer = optimisers(ours, plain)[form == "plain"]
    step = step_of(ours if form == "ours" else plain, optimizer, precision, case, device)
    before = reset_peak(device)
    for _ in range(STEPS):
        reset_peak(device)
        step()
    return peak(device) - before


def step_memory_in_process(
    index: int, form: str, precision: Precision, device: torch.device
) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--child", str(index), form, precision]
    command += ["--device", str(device), "--threads", str(torch.get_num_threads())]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    megabytes: float = json.loads(answer.stdout.splitlines()[-1])
    return megabytes


def run(device: torch.device = CPU) -> list[Row]:
    """Measure every whole step in both precisions."""
    rows = []
    for index, case in enumerate(cases(device)):
        for precision in PRECISIONS if case.whole else ():
            ours, plain = (
                step_memory_in_process(index, form, precision, device) for form in ("ours", "plain")
            )
            name = f"memory of {case.name}, {precision}"
            note = f"{case.network}, batch {case.batch}, {device.type}"
            rows.append(Row(name, ours, plain, note=note, unit="MB"))
    return rows


def main() -> None:
    """Measure and print; `--child` is the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    add_device(parser)
    options = parser.parse_args()
    if options.child:
        torch.set_num_threads(options.threads)
        index, form, precision = options.child
        print(
            json.dumps(
                step_memory(cases(options.device)[int(index)], form, precision, options.device)
            )
        )
        return
    print_table(run(options.device), title="Memory of a training step")


if __name__ == "__main__":
    main()
