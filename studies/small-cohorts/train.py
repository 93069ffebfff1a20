"""Train every arm on small cohorts of PTB-XL; every result is one line of a file."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from arms import ARMS, Material
from numpy.typing import NDArray
from tasks import SIZES, TASKS, draw_cohort, task_cohort

from einthoven.backbones.inference import record_outputs
from einthoven.cohorts import open_cohort
from einthoven.files import append_line, read_lines
from einthoven.inference.embeddings import crop_means
from einthoven.models import load_model
from einthoven.signals.batches import SignalSource
from einthoven.signals.store import Store

RESULTS = Path(__file__).with_name("results")


class Cell(NamedTuple):
    """One training."""

    arm: str
    records: int
    draw: int
    task: str


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Cells in the order of the arms, draws and sizes, of one shard."""
    number = 0
    for arm in options.arms:
        for draw in range(options.draws):
            for size in options.sizes:
                for task in options.tasks:
                    number += 1
                    if number % options.shards == options.shard % options.shards:
                        yield Cell(arm, size, draw, task)


def embed(store: Store, ids: NDArray[np.str_]) -> dict[str, NDArray[np.float32]]:
    """Mean features of the evaluation crops of every record, as `EcgEmbedder` computes them."""
    model = load_model()
    targets = np.zeros((len(ids), 1), dtype=np.uint8)
    source = SignalSource(store, store.rows(ids), targets, model.preparation)
    parts = record_outputs(model.backbone.eval().features, source)
    means = [crop_means(features, owner, int(owner.max()) + 1) for features, owner in parts]
    return dict(zip(ids.tolist(), torch.cat(means).numpy(), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not in the file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", help="folder of PTB-XL")
    parser.add_argument("store", help="its packed store")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="records")
    parser.add_argument("--draws", type=int, default=5, help="cohorts of every size")
    parser.add_argument("--shard", default="1/1", help="part of the cells, such as 1/2")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    options.shard, options.shards = map(int, options.shard.split("/"))
    warnings.simplefilter("ignore")
    logging.getLogger("einthoven").setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    cohort, store = open_cohort(options.cohort, task="all-71"), Store.open(options.store)
    cohort = cohort.select(store.without_quarantined(cohort.ids()))
    evaluated = np.concatenate([cohort.ids("validation"), cohort.ids("test")])
    features: dict[str, NDArray[np.float32]] = {}
    lines = [line for file in options.out.glob("*.jsonl") for line in read_lines(file)]
    finished = {Cell(**{key: line[key] for key in Cell._fields}) for line in lines}
    with tempfile.TemporaryDirectory() as folder:
        for cell in cells(options):
            drawn = draw_cohort(task_cohort(cohort, cell.task), cell.records, cell.draw)
            if cell in finished or drawn is None:
                continue
            if cell.arm == "logistic regression" and not features:
                features = embed(store, evaluated)
            result = ARMS[cell.arm](Material(drawn, store, features, Path(folder)))
            positives = int(drawn.targets("train").sum() + drawn.targets("validation").sum())
            line = cell._asdict() | {"positives": positives} | result
            append_line(options.out / f"{cell.arm.replace(' ', '-')}.jsonl", line)
            print(*cell, f"AUROC {result['auroc']:.4f}", f"{result['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
