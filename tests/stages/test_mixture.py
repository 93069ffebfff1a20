"""Mixtures: shares by weight, passes without repetition, batches from their key alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import StoreError
from einthoven.signals.batches import SignalSource, TrainingBatches
from einthoven.signals.random import generator_for
from einthoven.signals.store import Store
from einthoven.stages.pretraining_data import Mixture, draws_by_weight


@pytest.fixture(scope="module")
def source(synthetic: Cohort, synthetic_store: Store) -> SignalSource:
    preparation = create_backbone("mtecg_tiny_100hz", depth=1).preparation.with_window(seconds=2.5)
    rows = synthetic_store.rows(synthetic.ids("train"))
    empty = np.zeros((len(rows), 0), dtype=np.uint8)
    return SignalSource(synthetic_store, rows, empty, preparation)


def part(source: SignalSource, start: int, stop: int) -> SignalSource:
    chosen = slice(start, stop)
    return replace(source, rows=source.rows[chosen], targets=source.targets[chosen])


@pytest.fixture(scope="module")
def mixture(source: SignalSource) -> Mixture:
    """30 and 7 records, of which an epoch of 37 draws takes 25 and 12."""
    return Mixture((part(source, 0, 30), part(source, 30, 37)), (25, 12))


def test_an_epoch_has_the_draws_of_each_source(mixture: Mixture) -> None:
    for epoch in range(4):
        order = mixture.order(seed=1, epoch=epoch)
        assert len(order) == len(mixture) == 37
        assert (order < 30).sum() == 25


def test_no_record_is_drawn_twice_within_a_pass(mixture: Mixture) -> None:
    """Passes go through from epoch to epoch: after six epochs every record of the first source
    was drawn five times, and of the second ten or eleven times."""
    drawn = np.concatenate([mixture.order(seed=3, epoch=epoch) for epoch in range(6)])
    seen = Counter(drawn.tolist())
    assert {seen[record] for record in range(30)} == {5}
    assert {seen[record] for record in range(30, 37)} == {10, 11}


def test_without_weights_every_record_is_drawn_once_an_epoch(source: SignalSource) -> None:
    union = Mixture((part(source, 0, 30), part(source, 30, 37)), (30, 7))
    for epoch in range(2):
        assert sorted(union.order(seed=0, epoch=epoch)) == list(range(37))
    assert not np.array_equal(union.order(seed=0, epoch=0), union.order(seed=0, epoch=1))


def test_sources_are_mixed_within_an_epoch(mixture: Mixture) -> None:
    order = mixture.order(seed=0, epoch=0)
    assert 2 <= (order[:18] >= 30).sum() <= 10


def test_a_batch_is_a_function_of_seed_epoch_and_position(mixture: Mixture) -> None:
    batches = TrainingBatches(mixture, 8, seed=2)
    whole = list(batches.epoch(3))
    assert len(whole) == batches.per_epoch == 4
    for ours, theirs in zip(batches.epoch(3, start=2), whole[2:], strict=True):
        assert torch.equal(ours.signals, theirs.signals)
        assert np.array_equal(ours.rows, theirs.rows)


def test_a_record_of_a_mixture_is_the_record_of_its_source(
    mixture: Mixture, source: SignalSource
) -> None:
    chosen = np.array([35, 2, 30, 29])
    starts = torch.tensor([10, 0, 700, 55])
    assert torch.equal(mixture.crops(chosen, starts), source.crops(chosen, starts))
    drawn = mixture.crop_starts(chosen, generator_for(1))
    assert drawn.shape == (4,)
    assert torch.equal(drawn, mixture.crop_starts(chosen, generator_for(1)))
    assert mixture.targets_of(chosen).shape == (4, 0)


def test_weights_become_whole_draws() -> None:
    assert draws_by_weight([100, 100], [1, 1]) == (100, 100)
    assert draws_by_weight([30, 7], [2, 1]) == (25, 12)
    assert draws_by_weight([10, 10, 10], [1, 1, 1]) == (10, 10, 10)
    assert sum(draws_by_weight([101, 17, 3], [0.3, 0.5, 0.11])) == 121
    assert draws_by_weight([1000, 1], [1e6, 1]) == (1001, 0)


def test_a_source_that_is_never_drawn_from_is_refused(source: SignalSource) -> None:
    with pytest.raises(StoreError, match="at least once"):
        Mixture((part(source, 0, 30), part(source, 30, 37)), (37, 0))
    other = replace(part(source, 30, 37), preparation=source.preparation.with_window(seconds=5))
    with pytest.raises(StoreError, match="prepared differently"):
        Mixture((part(source, 0, 30), other), (30, 7))
