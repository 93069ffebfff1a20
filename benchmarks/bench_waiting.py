"""Training steps whose waiting threads soon sleep, as the command line asks for, against spinning.

    python benchmarks/bench_waiting.py

A step is forward, loss, backward and optimiser in fp32 on 64 random crops of 2.5 s at 100 Hz, on as
many threads as the machine has cores: alone, and beside a busy process for every core. GNU's OpenMP
reads its patience when it is loaded, so each side is a fresh process; they take turns. A row is the
mean step, since contention is what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import AdamW

from einthoven.backbones.classifier import create_classifier
from einthoven.cli import GOMP_SPINCOUNT
from table import Row, Times, print_table, speed_row, timed

NAME = "GOMP_SPINCOUNT"
BATCH, SAMPLES, LABELS = 64, 250, 71
WARM, STEPS = 1, 6


def steps() -> Times:
    """The mean training step in this process."""
    torch.manual_seed(0)
    model = create_classifier("s4_small", labels=LABELS, causal=False)
    optimizer = AdamW(model.parameters(), fused=True)
    signals = torch.randn(BATCH, 12, SAMPLES)
    targets = (torch.rand(BATCH, LABELS) < 0.05).float()

    def step() -> None:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(model(signals), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    times = [timed(step) for _ in range(WARM + STEPS)][WARM:]
    return mean(times)


def mean(times: list[Times]) -> Times:
    """Mean wall clock and processor time."""
    return Times(*(sum(parts) / len(times) for parts in zip(*times, strict=True)))


def measure(*, sleeps: bool) -> Times:
    """The mean step of a fresh process."""
    # With one thread, none would wait.
    environment = {k: v for k, v in os.environ.items() if k not in (NAME, "OMP_NUM_THREADS")}
    environment |= {NAME: GOMP_SPINCOUNT} if sleeps else {}
    command = [sys.executable, __file__, "--child"]
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return Times(*json.loads(answer.stdout.splitlines()[-1]))


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """That many processes that do nothing, as fast as they can."""
    burning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def run(rounds: int = 3) -> list[Row]:
    """Measure alone and beside others."""
    rows = []
    for others in (0, os.cpu_count() or 1):
        with busy(others):
            pairs = [(measure(sleeps=True), measure(sleeps=False)) for _ in range(rounds)]
        ours, baseline = (mean([pair[side] for pair in pairs]) for side in (0, 1))
        what = f"s4_small, step of {os.cpu_count()} threads"
        what += f", beside {others} busy processes" if others else ", alone"
        rows.append(speed_row(what, ours, baseline))
    return rows


def main() -> None:
    """Measure and print; `--child` is the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().child:
        print(json.dumps(steps()))
        return
    print_table(run(), title="Waiting threads")


if __name__ == "__main__":
    main()
