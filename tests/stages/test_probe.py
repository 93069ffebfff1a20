"""The linear probe: a frozen backbone, cached features, the best of several rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor, nn

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.registry import seeded
from einthoven.cohorts import Cohort
from einthoven.files import read_lines, read_tensors
from einthoven.signals.batches import SignalSource, epoch_order
from einthoven.signals.random import generator_for
from einthoven.signals.store import Store
from einthoven.stages.data import Context, Dataset
from einthoven.stages.logistic import search_penalty
from einthoven.stages.probe import (
    FeatureBatch,
    FeatureBatches,
    out_of_fold_probabilities,
    probe,
)
from einthoven.stages.recipe import Stage1
from einthoven.training.distributed import Processes
from einthoven.training.loop import BEST, Loop, Result
from einthoven.training.optim import Settings, parameter_groups
from einthoven.weights import load_backbone

TINY = {"depth": 2, "width": 32, "heads": 1}
SETTINGS = Stage1(solver="adamw", epochs=4, batch_size=16, base_lr=0.1, warmup_epochs=1)
Probe = Callable[..., Result]


@pytest.fixture
def classifier(encoder: Path, synthetic: Cohort) -> Classifier:
    backbone = load_backbone("mtecg_tiny_100hz", weights=encoder, **TINY)
    with seeded(0):
        return Classifier(backbone, synthetic.labels).train()


@pytest.fixture
def dataset(classifier: Classifier, synthetic: Cohort, synthetic_store: Store) -> Dataset:
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(2)
    return Dataset(synthetic, synthetic_store, preparation)


@pytest.fixture
def run(classifier: Classifier, dataset: Dataset) -> Probe:
    def start(folder: Path, settings: Stage1 = SETTINGS, **changes: Any) -> Result:
        options: dict[str, Any] = {"seed": 3, "processes": Processes("cpu")}
        return probe(
            changes.pop("classifier", classifier),
            dataset.source("train"),
            dataset.source("validation"),
            settings,
            folder,
            Context(**(options | changes)),
        )

    return start


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_backbone_is_untouched_and_the_head_is_trained(
    tmp_path: Path, classifier: Classifier, run: Probe
) -> None:
    before, head = state(classifier.backbone), state(classifier.head)
    run(tmp_path)
    assert same(state(classifier.backbone), before)
    assert not same(state(classifier.head), head)
    assert all(parameter.grad is None for parameter in classifier.backbone.parameters())


def test_features_are_computed_once(
    tmp_path: Path, classifier: Classifier, run: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    features = classifier.backbone.features

    def counted(x: Tensor, **options: Any) -> Tensor:
        assert not classifier.backbone.training
        calls.append(len(x))
        return features(x, **options)

    monkeypatch.setattr(classifier.backbone, "features", counted)
    two = SETTINGS.model_copy(update={"crops": 2, "base_lr_sweep": (0.1, 1.0)})
    first = run(tmp_path, two)
    # Two crops of 58 training records, two evaluation crops of 50 validation records.
    assert sum(calls) == 2 * 58 + 2 * 50
    calls.clear()
    again = run(tmp_path, two)
    assert not calls
    assert again == first


def test_best_learning_rate_is_kept(tmp_path: Path, classifier: Classifier, run: Probe) -> None:
    rates = (1e-6, 0.1, 1.0)
    result = run(tmp_path, SETTINGS.model_copy(update={"base_lr_sweep": rates}))
    best = {
        rate: max(
            line["macro_auroc"] for line in read_lines(tmp_path / f"lr-{rate:g}/metrics.jsonl")
        )
        for rate in rates
    }
    chosen = max(best, key=lambda rate: best[rate])
    assert result.best == best[chosen]
    assert len(set(best.values())) > 1
    assert same(state(classifier.head), read_tensors(tmp_path / f"lr-{chosen:g}" / BEST)[0])


@dataclass(frozen=True)
class Recomputed:
    """What the cache replaces: every epoch encodes the same crop of every record again."""

    classifier: Classifier
    source: SignalSource
    per_epoch: int
    seed: int = 3

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[FeatureBatch]:
        crops = self.source.training_batch(
            np.arange(len(self.source)), generator_for(self.seed, 0, 0, 0xFEA7), None
        )
        order = epoch_order(len(self.source), seed=self.seed, epoch=epoch)
        for position in range(start, self.per_epoch):
            chosen = torch.from_numpy(order[16 * position :][:16])
            with torch.no_grad():
                features = self.classifier.eval().backbone.features(crops.signals)
            yield features[chosen], crops.targets[chosen]


def test_the_cache_changes_nothing(
    tmp_path: Path, classifier: Classifier, dataset: Dataset, run: Probe
) -> None:
    run(tmp_path / "cached", SETTINGS.model_copy(update={"select": "last", "head_init": "zero"}))
    head = nn.Linear(32, len(dataset.cohort.labels))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    source = dataset.source("train")
    Loop(
        name="recomputed",
        model=head,
        loss=lambda model, batch, device: nn.functional.binary_cross_entropy_with_logits(
            model(batch[0]), batch[1]
        ),
        batches=Recomputed(classifier, source, len(source) // 16),
        groups=parameter_groups(head, weight_decay=SETTINGS.weight_decay),
        settings=Settings(epochs=4, base_lr=0.1, batch_size=16, warmup_epochs=1, seed=3),
        folder=tmp_path / "recomputed",
        processes=Processes("cpu"),
    ).run()
    assert torch.allclose(head.weight, classifier.head.weight, atol=1e-6)
    assert torch.allclose(head.bias, classifier.head.bias, atol=1e-6)


def test_an_epoch_takes_one_of_the_crops_of_every_record() -> None:
    features = torch.stack([torch.arange(40.0), torch.arange(40.0) + 100])[:, :, None]
    targets = torch.arange(40.0)[:, None]
    batches = FeatureBatches(features, targets, batch_size=8, seed=0)
    seen = list(batches.epoch(1))
    assert batches.per_epoch == len(seen) == 5
    values, records = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert sorted(records.flatten().tolist()) == list(range(40))
    assert torch.equal(values % 100, records)
    assert {0.0, 1.0} == set((values >= 100).float().flatten().tolist())
    late = list(batches.epoch(1, start=3))
    assert torch.equal(late[0][0], seen[3][0])
    small = FeatureBatches(features, targets, batch_size=1000, seed=0)
    assert [len(targets) for _, targets in small.epoch(0)] == [40]


def test_few_records_are_solved_by_logistic_regression(
    tmp_path: Path, classifier: Classifier, dataset: Dataset, run: Probe
) -> None:
    settings = Stage1(solver="logistic")
    first = run(tmp_path, settings)
    head = state(classifier.head)
    line = first.history[0]
    assert set(line) >= {"penalty", "out_of_fold_loss", "macro_auroc", "validation_loss"}
    train = dataset.source("train")
    assert train.patients is not None
    crops = read_tensors(tmp_path / "features/train.safetensors")[0]
    owner, number = crops["owner"].numpy(), len(crops["owner"]) // len(train)
    search = search_penalty(
        crops["features"].numpy(),
        train.targets[owner],
        train.patients[owner],
        seed=3,
        row_weights=np.full(len(owner), 1 / number),
    )
    assert (search.penalty, search.losses[search.penalty]) == pytest.approx(
        (line["penalty"], line["out_of_fold_loss"])
    )
    left_out = out_of_fold_probabilities(tmp_path)
    assert left_out is not None
    of_first = expit(search.logits[owner == 0]).mean(axis=0)
    assert left_out.shape == train.targets.shape
    assert left_out[0] == pytest.approx(of_first, abs=1e-6)
    nn.init.zeros_(classifier.head.weight)
    assert run(tmp_path, settings) == first
    assert same(state(classifier.head), head)
    fixed = run(tmp_path / "fixed", settings.model_copy(update={"penalty": line["penalty"]}))
    assert fixed.best == first.best
    assert same(state(classifier.head), head)
