"""The linear probe: a frozen backbone, cached features, the best of several rates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor, nn

from einthoven.backbones.classifier import Classifier, HeadKind, create_classifier
from einthoven.backbones.registry import seeded
from einthoven.cohorts import Cohort
from einthoven.errors import TrainingError
from einthoven.files import read_lines, read_tensors
from einthoven.signals.batches import SignalSource, epoch_order
from einthoven.signals.random import generator_for
from einthoven.signals.store import Store
from einthoven.stages.data import Context, Dataset
from einthoven.stages.frozen import evaluation_inputs, training_inputs
from einthoven.stages.logistic import search_penalty
from einthoven.stages.probe import (
    FeatureBatch,
    FeatureBatches,
    ProbeData,
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


def test_batch_norm_is_folded_into_the_head(
    tmp_path: Path, classifier: Classifier, run: Probe
) -> None:
    settings = SETTINGS.model_copy(update={"batch_norm": True})
    run(tmp_path, settings)
    saved = read_tensors(tmp_path / "lr-0.1" / BEST)[0]
    x = 3 * torch.randn(5, classifier.head.in_features) + 1
    normed = (x - saved["0.running_mean"]) / (saved["0.running_var"] + 1e-6).sqrt()
    expected = normed @ saved["1.weight"].t() + saved["1.bias"]
    torch.testing.assert_close(classifier.head(x), expected, rtol=1e-4, atol=1e-4)
    plain = state(classifier.head)
    run(tmp_path, settings)  # nothing is trained or folded twice
    assert same(state(classifier.head), plain)


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
    trained = state(classifier.head)
    assert all(
        torch.allclose(value, trained[name], atol=1e-6) for name, value in state(head).items()
    )


def test_an_epoch_takes_one_of_the_crops_of_every_record(
    tmp_path: Path, classifier: Classifier, dataset: Dataset
) -> None:
    train = dataset.source("train")
    train = replace(train, targets=np.arange(len(train), dtype=np.float32)[:, None])
    context = Context(seed=0, processes=Processes("cpu"))
    data = ProbeData(classifier, train, train, 2, tmp_path, context)
    batches = FeatureBatches(data, batch_size=8, seed=0)
    seen = list(batches.epoch(1))
    assert batches.per_epoch == len(seen) == len(train) // 8
    inputs, targets = (torch.cat(parts) for parts in zip(*seen, strict=True))
    records = targets.flatten().long().numpy()
    assert len(set(records)) == len(records) == 56
    ours = [(inputs.numpy() == crop[records]).all(axis=1) for crop in data.training]
    assert (ours[0] ^ ours[1]).all()
    assert all(chosen.any() for chosen in ours)
    late = list(batches.epoch(1, start=3))
    assert torch.equal(late[0][0], seen[3][0])
    small = FeatureBatches(data, batch_size=1000, seed=0)
    assert [len(targets) for _, targets in small.epoch(0)] == [58]


def test_the_first_crop_is_not_augmented(
    tmp_path: Path, classifier: Classifier, dataset: Dataset
) -> None:
    def flipped(x: Tensor, generator: torch.Generator) -> Tensor:
        return -x

    train, plain = dataset.source("train"), Context(seed=0, processes=Processes("cpu"))
    cached = [
        training_inputs(classifier, train, crop, tmp_path / f"{name}-{crop}.npy", context)
        for name, context in (("plain", plain), ("flipped", replace(plain, augment=flipped)))
        for crop in (0, 1)
    ]
    assert np.array_equal(cached[0], cached[2])
    assert not np.isclose(cached[1], cached[3]).all(axis=1).any()


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
    owner = train.crop_owners(np.arange(len(train))).numpy()
    number = len(owner) // len(train)
    search = search_penalty(
        np.load(tmp_path / "features/train.npy"),
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
    classifier.head.reset_parameters()
    assert run(tmp_path, settings) == first
    assert same(state(classifier.head), head)
    fixed = run(tmp_path / "fixed", settings.model_copy(update={"penalty": line["penalty"]}))
    assert fixed.best == first.best
    assert same(state(classifier.head), head)


def test_query_attention_is_trained_on_frozen_tokens(
    tmp_path: Path, dataset: Dataset, classifier: Classifier, run: Probe
) -> None:
    with seeded(1):
        attending = Classifier(classifier.backbone, dataset.cohort.labels, head="query-attention")
    before, head = state(attending.backbone), state(attending.head)
    calls: list[int] = []
    tokens = attending.backbone.tokens

    def counted(x: Tensor, **options: Any) -> Tensor:
        calls.append(len(x))
        return tokens(x, **options)

    attending.backbone.tokens = counted
    settings = SETTINGS.model_copy(update={"crops": 2, "base_lr_sweep": (0.01, 0.1)})
    first = run(tmp_path, settings, classifier=attending)
    assert same(state(attending.backbone), before)
    trained = state(attending.head)
    assert all(not torch.equal(trained[name], value) for name, value in head.items())
    assert first.history[-1]["train_loss"] < first.history[0]["train_loss"]
    assert sum(calls) == 2 * 58 + 2 * 50
    assert not list(tmp_path.rglob("*.npy"))  # tokens are large
    calls.clear()
    attending.head.reset_parameters()
    assert run(tmp_path, settings, classifier=attending) == first
    assert same(state(attending.head), trained)
    assert not calls


def test_a_cache_that_does_not_fit_on_the_disk_is_refused(
    tmp_path: Path, run: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(TrainingError, match="GB"):
        run(tmp_path)


def cache(folder: Path, cohort: Cohort, store: Store) -> dict[str, int]:
    """Cache training and evaluation crops for both heads; number of crops encoded here."""
    encoded = {}
    for head in get_args(HeadKind):
        classifier = create_classifier(
            "mtecg_tiny_100hz", labels=cohort.labels, seed=0, head=head, **TINY
        )
        preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(2)
        train = Dataset(cohort, store, preparation).source("train")
        calls: list[int] = []
        classifier.head_inputs = counting(classifier.head_inputs, calls)
        context = Context(seed=0, processes=Processes("cpu"))
        training_inputs(classifier, train, 1, folder / f"{head}-train.npy", context)
        evaluation_inputs(classifier, train, folder / f"{head}-evaluation.npy", context)
        encoded[head] = sum(calls)
    return encoded


def counting(function: Callable[..., Tensor], calls: list[int]) -> Callable[..., Tensor]:
    def counted(x: Tensor, **options: Any) -> Tensor:
        calls.append(len(x))
        return function(x, **options)

    return counted


SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
import einthoven.stages.frozen as frozen
from einthoven.cohorts import open_cohort
from einthoven.signals.store import Store
from test_probe import cache
torch.set_num_threads(1)
for number in (16, 64):
    frozen.RECORDS_AT_ONCE = number
    out = Path(sys.argv[4]) / str(number)
    out.mkdir(exist_ok=True)
    encoded = cache(out, open_cohort(sys.argv[2], min_records=8), Store.open(sys.argv[3]))
    (out / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(encoded))
"""


@pytest.fixture(scope="module")
def shared_caches(
    tmp_path_factory: pytest.TempPathFactory,
    torchrun: Callable[..., Any],
    synthetic_path: Path,
    synthetic_store: Store,
) -> Path:
    """Caches that two processes write, in a folder for each number of records at once."""
    out = tmp_path_factory.mktemp("together")
    (out / "job.py").write_text(SCRIPT)
    torchrun(out / "job.py", Path(__file__).parent, synthetic_path, synthetic_store.root, out)
    return out


@pytest.mark.parametrize("records_at_once", [16, 64])  # four batches of the 58 records, or one
def test_two_processes_share_the_records(
    records_at_once: int,
    tmp_path: Path,
    shared_caches: Path,
    synthetic: Cohort,
    synthetic_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together, alone = shared_caches / str(records_at_once), tmp_path
    monkeypatch.setattr("einthoven.stages.frozen.RECORDS_AT_ONCE", records_at_once)
    whole = cache(alone, synthetic, synthetic_store)
    first, second = (json.loads((together / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    for head, count in whole.items():
        assert first[head] + second[head] == count == 3 * 58
        assert second[head] == (3 * (16 + 10) if records_at_once == 16 else 0)
        for part in ("train", "evaluation"):
            arrays = [np.load(folder / f"{head}-{part}.npy") for folder in (together, alone)]
            np.testing.assert_allclose(*arrays, rtol=0, atol=2e-6)
    assert not list(together.glob("*.part"))
