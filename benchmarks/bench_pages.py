"""Training steps with large memory pages, which the command line requests, and with small ones.

    python benchmarks/bench_pages.py

A step is forward, loss, backward and optimiser in bf16 on 64 random crops of 2.5 s at 100 Hz.
PyTorch decides at its first tensor, so each side is a new process; they alternate, and the fastest
step of each is compared. Where Linux has no large pages on request
(/sys/kernel/mm/transparent_hugepage/enabled is `never`), both are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import AdamW

from einthoven.backbones.classifier import create_classifier
from table import Row, Times, fastest, print_table, speed_row, timed

NETWORKS: dict[str, dict[str, Any]] = {
    "s4_small": {"causal": False},
    "mtecg_tiny_100hz": {},
    "resnet1d_wang": {},
}
BATCH, SAMPLES, LABELS = 64, 250, 71
WARM, STEPS = 3, 8


def steps(name: str) -> list[Times]:
    """Time training steps in this process."""
    torch.manual_seed(0)
    model = create_classifier(name, labels=LABELS, **NETWORKS[name])
    optimizer = AdamW(model.parameters(), fused=True)
    signals = torch.randn(BATCH, 12, SAMPLES)
    targets = (torch.rand(BATCH, LABELS) < 0.05).float()

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(signals)
        loss = binary_cross_entropy_with_logits(logits.float(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return [timed(step) for _ in range(WARM + STEPS)][WARM:]


def measure(name: str, *, large: bool) -> Times:
    """Fastest step of a new process."""
    command = [sys.executable, __file__, "--child", name, "--threads", str(torch.get_num_threads())]
    environment = os.environ | {"THP_MEM_ALLOC_ENABLE": str(int(large))}
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return fastest([Times(*pair) for pair in json.loads(result.stdout.splitlines()[-1])])


def run(rounds: int = 2) -> list[Row]:
    """Measure every network."""
    rows = []
    for name in NETWORKS:
        pairs = [(measure(name, large=True), measure(name, large=False)) for _ in range(rounds)]
        ours, baseline = (fastest([pair[side] for pair in pairs]) for side in (0, 1))
        rows.append(speed_row(f"{name}, step on large pages", ours, baseline))
    return rows


def main() -> None:
    """Measure and print; `--child` marks the measured process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        torch.set_num_threads(options.threads)
        print(json.dumps(steps(options.child)))
        return
    print_table(run(), title="Large pages")


if __name__ == "__main__":
    main()
