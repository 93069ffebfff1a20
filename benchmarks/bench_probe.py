"""A linear probe of 100 epochs on cached features against running the backbone in every epoch.

    python benchmarks/bench_probe.py

Simulated records, crops of 2.5 s, `mtecg_tiny_100hz` with fresh weights (what is learnt does not
change what it costs), one crop a record (`crops = 1`, the recipe's default).

"same crops" is the claim: both sides see the same crop of every record, batches in the same order,
the same head, optimiser and schedule, and validate after every epoch. Ours computes features once
(prepares all crops, runs the backbone over them) and trains the head with the package's own loop,
checkpoints included. The baseline prepares its crops once as well, writes no checkpoint, and runs
the frozen backbone in every batch. All 100 epochs of both are run, none is multiplied up, and the
two must come to the same validation AUROC. What ours takes beside one pass over the records is
the head's hundred epochs, about a second whatever the cohort, so that the ratio nears 100 for
larger ones.

"fresh crops" is what most such loops do, and no equal comparison: it prepares another random crop
of every record in every epoch, which caching one crop gives up. A few of its epochs are run and
multiplied up; no AUROC is claimed.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import AdamW

from cohorts import synthetic, temporary
from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.signals.batches import SignalSource, epoch_order
from einthoven.signals.random import generator_for
from einthoven.stages.data import Context, Dataset
from einthoven.stages.probe import ProbeData, train_head
from einthoven.stages.recipe import Stage1
from einthoven.stages.validation import SELECT, validation_metrics
from einthoven.training.distributed import Processes
from einthoven.training.optim import Settings
from table import Row, Times, fastest, print_table, speed_row, timed

TARGET, TOLERANCE = 50.0, 0.001
SEED, CHUNK = 0, 64
SETTINGS = Stage1(epochs=100, batch_size=32, base_lr=0.1)


@dataclass(frozen=True, eq=False)
class Setting:
    """What both sides start from."""

    classifier: Classifier
    train: SignalSource
    validation: SignalSource


def setting(folder: Path, records: int) -> Setting:
    """A cohort, cut to 2.5 s, and a frozen classifier."""
    cohort, store = synthetic(folder, records)
    classifier = create_classifier("mtecg_tiny_100hz", labels=cohort.labels, seed=SEED).eval()
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(1)
    data = Dataset(cohort, store, preparation)
    return Setting(classifier, data.source("train"), data.source("validation"))


def cached(setting: Setting, folder: Path) -> float:
    """Ours: features once, then the head; returns the last epoch's validation AUROC."""
    context = Context(seed=SEED, processes=Processes("cpu"))
    data = ProbeData(
        setting.classifier, setting.train, setting.validation, SETTINGS.crops, folder, context
    )
    head = deepcopy(setting.classifier.head)
    result = train_head(head, data, SETTINGS.base_lr, SETTINGS, folder, context)
    return float(result.history[-1][SELECT])


def training_crops(train: SignalSource) -> Tensor:
    """The very crops that `ProbeData` caches, (records, leads, samples)."""
    rows = np.arange(len(train))
    parts = [
        train.training_batch(rows[i : i + CHUNK], generator_for(SEED, 0, i, 0xFEA7), None).signals
        for i in range(0, len(rows), CHUNK)
    ]
    return torch.cat(parts)


def every_epoch(setting: Setting, epochs: int, *, fresh: bool) -> float:
    """The baseline: the backbone runs in every batch; returns the last validation AUROC."""
    encode, train = setting.classifier.backbone.features, setting.train
    head = deepcopy(setting.classifier.head)
    optimizer = AdamW(
        head.parameters(), lr=0.0, betas=SETTINGS.betas, weight_decay=SETTINGS.weight_decay
    )
    steps = max(1, len(train) // SETTINGS.batch_size)
    schedule = Settings(
        epochs=SETTINGS.epochs,
        base_lr=SETTINGS.base_lr,
        batch_size=SETTINGS.batch_size,
        warmup_epochs=SETTINGS.warmup_epochs,
    ).schedule(steps)
    targets = torch.from_numpy(train.targets.astype(np.float32))
    fixed_crops = None if fresh else training_crops(train)
    crops, _ = setting.validation.evaluation_crops(np.arange(len(setting.validation)))
    generator = torch.Generator().manual_seed(SEED)
    auroc = float("nan")
    for epoch in range(epochs):
        order = epoch_order(len(train), seed=SEED, epoch=epoch)
        for step in range(steps):
            rows = order[step * SETTINGS.batch_size :][: SETTINGS.batch_size]
            if fixed_crops is None:
                signals = train.training_batch(rows, generator, None).signals
            else:
                signals = fixed_crops[rows]
            with torch.no_grad():
                features = encode(signals)
            optimizer.param_groups[0]["lr"] = schedule.lr(epoch * steps + step)
            optimizer.zero_grad()
            loss = binary_cross_entropy_with_logits(head(features), targets[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        auroc = _validate(setting, head, crops)
    return auroc


def _validate(setting: Setting, head: nn.Module, crops: Tensor) -> float:
    encode = setting.classifier.backbone.features
    with torch.no_grad():
        parts = [head(encode(part)) for part in torch.split(crops, CHUNK)]
    probabilities = torch.cat(parts).double().sigmoid().numpy()
    return validation_metrics(setting.validation.targets, probabilities)[SELECT]


def run(records: int = 600, rounds: int = 3, fresh_epochs: int = 2) -> list[Row]:
    """Measure both comparisons on one cohort."""
    with temporary() as folder:
        start = setting(folder, records)
        aurocs: list[float] = []
        number = count()

        def ours() -> None:
            aurocs.append(cached(start, folder / f"probe-{next(number)}"))

        mine = fastest([timed(ours) for _ in range(rounds)])
        same_crops = timed(lambda: aurocs.append(every_epoch(start, SETTINGS.epochs, fresh=False)))
        few = timed(lambda: every_epoch(start, fresh_epochs, fresh=True))
    fresh = Times(*(t / fresh_epochs * SETTINGS.epochs for t in few))
    difference = abs(aurocs[0] - aurocs[-1])
    same = "equal" if difference <= TOLERANCE else "NOT EQUAL"
    sizes = f"{len(start.train)} + {len(start.validation)} records"
    note = f"{sizes}; validation AUROC {aurocs[0]:.4f} and {aurocs[-1]:.4f}, {same}"
    return [
        speed_row("probe, same crops", mine, same_crops, target=TARGET, note=note),
        speed_row(
            "probe, fresh crops", mine, fresh, note=f"{sizes}; {fresh_epochs} epochs multiplied up"
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=600)
    print_table(run(parser.parse_args().records), title="Linear probe, 100 epochs")


if __name__ == "__main__":
    main()
