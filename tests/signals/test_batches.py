from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import PreparationError, StoreError
from einthoven.records import STANDARD_LEADS
from einthoven.records.wfdb_write import write_wfdb
from einthoven.signals.batches import TOO_SHORT, SignalSource, TrainingBatches, long_enough
from einthoven.signals.pack import pack
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_record
from einthoven.signals.random import generator_for
from einthoven.signals.steps import Resample, Window
from einthoven.signals.store import ArrayStore, Store


@pytest.fixture(scope="module")
def preparation() -> Preparation:
    return create_backbone("mtecg_tiny_100hz", depth=1).preparation.with_window(seconds=2.5)


@pytest.fixture(scope="module")
def source(synthetic: Cohort, synthetic_store: Store, preparation: Preparation) -> SignalSource:
    rows = synthetic_store.rows(synthetic.ids("train"))
    return SignalSource(synthetic_store, rows, synthetic.targets("train"), preparation)


def test_a_batch_is_a_function_of_seed_epoch_and_position(source: SignalSource) -> None:
    batches = TrainingBatches(source, 16, seed=4)
    whole = list(batches.epoch(2))
    tail = list(batches.epoch(2, start=3))
    assert len(whole) == batches.per_epoch == len(source) // 16
    for ours, theirs in zip(tail, whole[3:], strict=True):
        assert torch.equal(ours.signals, theirs.signals)
        assert torch.equal(ours.targets, theirs.targets)
    other = next(TrainingBatches(source, 16, seed=5).epoch(2))
    assert not torch.equal(other.signals, whole[0].signals)


def test_an_epoch_sees_every_record_once_and_epochs_differ(source: SignalSource) -> None:
    batches = TrainingBatches(source, 8, seed=0)
    first = np.concatenate([batch.rows for batch in batches.epoch(0)])
    assert len(set(first)) == len(first) == batches.per_epoch * 8
    assert not np.array_equal(first, np.concatenate([b.rows for b in batches.epoch(1)]))


def test_targets_belong_to_their_signals(source: SignalSource, synthetic: Cohort) -> None:
    batch = next(TrainingBatches(source, 8, seed=0).epoch(0))
    expected = synthetic.targets("train")[batch.rows].astype(np.float32)
    assert np.array_equal(batch.targets.numpy(), expected)


def test_the_rest_of_an_epoch_is_dropped_or_kept(source: SignalSource) -> None:
    count = len(source)
    size = next(size for size in range(16, count) if count % size >= 4)
    dropped, kept = (
        TrainingBatches(source, size, seed=0, drop_last=drop) for drop in (True, False)
    )
    assert kept.per_epoch == dropped.per_epoch + 1
    first, second = list(dropped.epoch(0)), list(kept.epoch(0))
    for ours, theirs in zip(first, second[:-1], strict=True):
        assert torch.equal(ours.signals, theirs.signals)
    assert len(second[-1].rows) == count % size
    assert len(set(np.concatenate([batch.rows for batch in second]))) == count
    last = next(kept.epoch(0, start=kept.per_epoch - 1))
    assert torch.equal(last.signals, second[-1].signals)


def test_a_rest_of_one_record_is_dropped_all_the_same(source: SignalSource) -> None:
    """Batch norm cannot normalise one record."""
    for rest, batches in ((1, 1), (2, 2)):
        kept = TrainingBatches(source, len(source) - rest, seed=0, drop_last=False)
        assert kept.per_epoch == batches


@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_the_last_batch_equally(source: SignalSource, drop_last: bool) -> None:
    """The rest of an epoch, or an epoch smaller than a batch."""
    count = 57
    size = 100_000 if drop_last else 13
    few = SignalSource(
        source.store, source.rows[:count], source.targets[:count], source.preparation
    )
    shares = [
        list(TrainingBatches(few, size, seed=0, rank=r, world=2, drop_last=drop_last).epoch(0))[-1]
        for r in range(2)
    ]
    assert [len(share.rows) for share in shares] == [count % (2 * size) // 2] * 2
    assert not set(shares[0].rows) & set(shares[1].rows)


def test_crops_are_cut_from_the_records(source: SignalSource) -> None:
    batch = next(TrainingBatches(source, 4, seed=0).epoch(0))
    assert batch.signals.shape == (4, 12, 250)
    record = source.store.index.index[source.rows[batch.rows[0]]]
    whole = source.store.record(record).signal / np.float32(0.25)
    crop = batch.signals[0].numpy()
    assert any(np.allclose(whole[:, s : s + 250], crop, atol=1e-5) for s in range(751))


def test_evaluation_crops_are_those_of_the_record(source: SignalSource) -> None:
    chosen = np.array([5, 2])
    crops, owner = source.evaluation_crops(chosen)
    name = source.store.index.index[source.rows[2]]
    expected = prepare_record(source.preparation, source.store.record(name))
    assert torch.allclose(crops[owner == 1], expected, atol=1e-6)


def test_a_cohort_smaller_than_a_batch_still_trains(source: SignalSource) -> None:
    batches = TrainingBatches(source, 100_000, seed=0)
    assert [len(batch.rows) for batch in batches.epoch(0)] == [len(source)]


def test_the_number_of_targets_is_checked(source: SignalSource, synthetic_store: Store) -> None:
    with pytest.raises(StoreError, match="targets"):
        SignalSource(source.store, source.rows, source.targets[:-1], source.preparation)


def test_crops_do_not_depend_on_the_number_of_processes(
    source: SignalSource,
) -> None:
    alone = next(TrainingBatches(source, 16, seed=1).epoch(2, start=1))
    for rank in range(2):
        share = next(TrainingBatches(source, 8, seed=1, rank=rank, world=2).epoch(2, start=1))
        assert np.array_equal(share.rows, alone.rows[rank::2])
        assert torch.equal(share.signals, alone.signals[rank::2])


def test_each_process_augments_differently(source: SignalSource) -> None:
    def noise(signals: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return signals * 0 + torch.rand(len(signals), 1, 1, generator=generator)

    alone = next(TrainingBatches(source, 16, seed=1, augment=noise).epoch(0)).signals[:, 0, 0]
    generator = generator_for(1, 0, 0, 0)
    source.crop_starts(next(TrainingBatches(source, 16, seed=1).epoch(0)).rows, generator)
    assert torch.equal(alone, torch.rand(16, 1, 1, generator=generator)[:, 0, 0])
    shares = [
        next(TrainingBatches(source, 8, seed=1, augment=noise, rank=rank, world=2).epoch(0))
        for rank in range(2)
    ]
    assert not set(shares[0].signals[:, 0, 0].tolist()) & set(shares[1].signals[:, 0, 0].tolist())


def test_records_shorter_than_a_crop_are_left_out_and_counted(tmp_path: Path) -> None:
    """Or padded, where the preparation says so; records in quarantine stay in the cohort."""
    rng = np.random.default_rng(0)
    for place, seconds in enumerate((10, 2, 3, 2.49)):
        signal = rng.normal(size=(12, round(seconds * 100))).astype(np.float32)
        write_wfdb(tmp_path / f"r{place}", signal, rate=100, leads=STANDARD_LEADS)
    (tmp_path / "r4.hea").write_text("nothing")
    cohort = open_cohort(tmp_path)
    store = pack(cohort, tmp_path / "store", workers=1)
    preparation = Preparation(STANDARD_LEADS, (Resample(100), Window(250)))
    kept = long_enough(cohort, store, preparation)
    assert kept.ids().tolist() == ["r0", "r2", "r4"]
    assert kept.left_out == {TOO_SHORT: 2}
    assert long_enough(cohort, store, preparation.padding()) is cohort
    with pytest.raises(PreparationError, match="'r0'"):
        long_enough(cohort, store, Preparation(STANDARD_LEADS, (Resample(100), Window(1001))))


def test_leads_that_a_preparation_computes_need_not_be_in_the_store(
    source: SignalSource, synthetic_store: Store
) -> None:
    eight = ("V6", "V5", "V4", "V3", "V2", "V1", "II", "I")
    (chunk,) = synthetic_store.read(source.rows[:4])
    rows = [synthetic_store.leads.index(lead) for lead in eight]
    volts = chunk.signals[:, rows].astype(np.float32) / 1000
    store = ArrayStore.over(volts, leads=eight, rate=chunk.rate)
    targets = np.zeros((4, 0), dtype=np.uint8)
    short = ArrayStore.over(volts[:, :-1], leads=eight[:-1], rate=chunk.rate)
    with pytest.raises(StoreError, match="III") as refusal:
        SignalSource(short, np.arange(4), targets, source.preparation)
    assert "leads=" in refusal.value.remedy
    fitted = SignalSource(store, np.arange(4), targets, source.preparation)
    starts = torch.tensor([0, 10, 99, 750])
    whole = source.crops(chunk.places, starts)
    result = fitted.crops(np.arange(4), starts)
    assert result.shape == whole.shape
    # Recorded leads are rounded to microvolts, computed ones are not.
    torch.testing.assert_close(result, whole, rtol=0, atol=0.03)
