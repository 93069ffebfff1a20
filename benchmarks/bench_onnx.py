"""An exported model in onnxruntime, against the same model in PyTorch, on one core.

    OMP_NUM_THREADS=1 python benchmarks/bench_onnx.py

Prepared crops of the included model (12 leads, 2.5 s at 100 Hz), one at a time (latency) and 64
(throughput): PyTorch's eager forward pass against the graph in one thread. The graph also
aggregates and calibrates. As in `OnnxModel.outputs`, 64 crops run in parts of eight, whose
intermediate results stay in a core's cache. With --int8, the graph has weights of eight bits.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from einthoven.licences import LicenceWarning
from einthoven.models import export_onnx, load_model, load_onnx
from einthoven.signals.prepare import finish_crops
from table import Row, alternately, print_table, speed_row

TARGETS = {1: 2.0, 64: 1.3}
ROUNDS = {1: 200, 64: 20}


def run(*, int8: bool = False) -> list[Row]:
    """A row for one crop and one for 64, each in one thread."""
    before, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        return _rows(int8)
    finally:
        torch.set_num_threads(before)
        del os.environ["OMP_NUM_THREADS"]
        if variable is not None:
            os.environ["OMP_NUM_THREADS"] = variable


def _rows(int8: bool) -> list[Row]:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore", LicenceWarning)
        model = load_model()
        exported = load_onnx(export_onnx(out=Path(folder, "model.onnx"), int8=int8))
    rows = []
    for batch, target in TARGETS.items():
        crops = torch.randn(batch, 12, 250, generator=torch.Generator().manual_seed(0))
        signals = list(crops.numpy())
        crops = finish_crops(model.preparation, crops)

        def eager(crops: torch.Tensor = crops) -> torch.Tensor:
            with torch.no_grad():
                logits: torch.Tensor = model.classifier(crops)
            return logits

        def graph(signals: list[np.ndarray] = signals) -> np.ndarray:
            return exported.outputs(signals)

        gap = float(np.abs(eager().sigmoid().numpy() - graph()).max())
        ours, baseline = alternately(graph, eager, ROUNDS[batch])
        name = f"{batch} crop{'s' * (batch > 1)} in onnxruntime{', int8' * int8}"
        note = f"each crop; largest difference of a probability {gap:.0e}"
        goal = None if int8 else target
        rows.append(speed_row(name, ours, baseline, per=batch, target=goal, note=note))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--int8", action="store_true")
    print_table(run(int8=parser.parse_args().int8))
