"""One cohort or several: shares, refusals, and what a run asks for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import CohortError, PreparationError, RecipeError, StoreError
from einthoven.records import STANDARD_LEADS
from einthoven.records.wfdb_write import write_wfdb
from einthoven.signals.batches import SignalSource
from einthoven.signals.pack import pack
from einthoven.signals.preparation import Preparation
from einthoven.signals.random import generator_for
from einthoven.signals.store import Store
from einthoven.stages.pretraining_data import (
    IDS_DIGEST,
    Mixture,
    draws_by_share,
    pretraining_data_of,
)


def without_ids(request: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in request.items() if key != IDS_DIGEST}
    if "cohorts" in plain:
        plain["cohorts"] = [without_ids(part) for part in plain["cohorts"]]
    return plain


@pytest.fixture(scope="module")
def preparation() -> Preparation:
    return create_backbone("mtecg_tiny_100hz", depth=1).preparation.with_window(seconds=2.5)


@pytest.fixture(scope="module")
def folder(synthetic_path: Path) -> Cohort:
    """The same simulated records as a plain folder without labels."""
    return open_cohort(synthetic_path / "records100")


@pytest.fixture(scope="module")
def folder_store(folder: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return pack(folder, tmp_path_factory.mktemp("folder") / "store", workers=1)


def test_description_of_one_cohort(
    synthetic: Cohort, synthetic_store: Store, preparation: Preparation
) -> None:
    data = pretraining_data_of(synthetic, synthetic_store, preparation)
    assert isinstance(data.train, SignalSource)
    request = data.describe()
    assert len(request["training_ids_digest"]) == 64
    assert without_ids(request) == {
        "cohort": synthetic.name,
        "version": synthetic.version,
        "records_digest": synthetic_store.manifest["records_digest"],
        "records": 58,
        "cohort_synthetic": True,
    }


def test_other_records_are_another_request(
    synthetic: Cohort, synthetic_store: Store, preparation: Preparation
) -> None:
    """The records of a store are the same whatever their split; which of them train is not."""
    names = {"train": "test", "test": "train"}
    table = synthetic.table.assign(split=synthetic.table["split"].replace(names))
    keep = len(synthetic.ids("test"))
    few = synthetic.select(~np.isin(synthetic.ids(), synthetic.ids("train")[keep:]))
    swapped = replace(few, table=table.loc[few.ids()])
    one, two = (pretraining_data_of(each, synthetic_store, preparation) for each in (few, swapped))
    assert without_ids(one.describe()) == without_ids(two.describe())
    assert one.describe() != two.describe()
    several = [
        pretraining_data_of([each, synthetic], [synthetic_store] * 2, preparation).describe()
        for each in (few, swapped)
    ]
    assert several[0]["training_ids_digest"] != several[1]["training_ids_digest"]
    assert without_ids(several[0]) == without_ids(several[1])


def test_cohorts_are_mixed_by_share(
    synthetic: Cohort,
    synthetic_store: Store,
    folder: Cohort,
    folder_store: Store,
    preparation: Preparation,
) -> None:
    cohorts, stores = [synthetic, folder], [synthetic_store, folder_store]
    union = pretraining_data_of(cohorts, stores, preparation)
    assert isinstance(union.train, Mixture)
    assert union.draws == (58, 160)
    mixed = pretraining_data_of(cohorts, stores, preparation, shares=[1, 0.5])
    assert len(mixed.train) == 218
    assert mixed.draws == (145, 73)
    request = mixed.describe()
    assert request["records"] == 218
    assert [part["draws"] for part in request["cohorts"]] == [145, 73]
    # The folder has no validation records; the labelled cohort's are what is held out.
    assert [place for place, _ in mixed.validation] == [0]


def test_impossible_numbers_are_refused(
    synthetic: Cohort, synthetic_store: Store, preparation: Preparation
) -> None:
    both, stores = [synthetic, synthetic], [synthetic_store, synthetic_store]
    with pytest.raises(CohortError, match=r"2 cohorts .*1 stores"):
        pretraining_data_of(both, synthetic_store, preparation)
    with pytest.raises(RecipeError, match=r"1 shares .*2 cohorts"):
        pretraining_data_of(both, stores, preparation, shares=[1])
    for bad in (0, -1, float("inf"), float("nan")):
        with pytest.raises(RecipeError, match=r"shares \[1, \S+\]\n"):
            pretraining_data_of(both, stores, preparation, shares=[1, bad])
    with pytest.raises(RecipeError, match="116 draws"):
        pretraining_data_of(both, stores, preparation, shares=[1, 1e-6])


def test_records_that_are_too_short_are_refused_before_training(
    synthetic: Cohort, synthetic_store: Store, preparation: Preparation
) -> None:
    with pytest.raises(PreparationError, match=r" 148 .*'\d+'"):
        pretraining_data_of(synthetic, synthetic_store, preparation.with_window(seconds=12))


def test_store_without_a_lead_is_refused(
    folder: Cohort, tmp_path: Path, preparation: Preparation
) -> None:
    few = folder.select(folder.ids() < folder.ids()[5])
    store = pack(few, tmp_path / "two", leads=("I", "II"), workers=1)
    with pytest.raises(StoreError, match=r"two .*V1"):
        pretraining_data_of(few, store, preparation)
    two = create_backbone("mtecg_tiny_100hz", depth=1, leads=("II", "I")).preparation
    assert len(pretraining_data_of(few, store, two).train) == len(few)


def test_cohorts_of_other_rates_and_leads_go_through_one_preparation(
    synthetic: Cohort, synthetic_store: Store, tmp_path: Path, preparation: Preparation
) -> None:
    """Two records again, sampled twice as often and with their leads the other way round."""
    times = np.arange(1000) / 100
    twice = np.arange(2000) / 200
    names = synthetic.ids("train")[:2]
    leads = STANDARD_LEADS[::-1]
    (tmp_path / "fast").mkdir()
    for name in names:
        record = synthetic_store.record(name)
        signal = record.signal[[record.leads.index(lead) for lead in leads]]
        smooth = np.stack([np.interp(twice, times, row) for row in signal])
        write_wfdb(tmp_path / "fast" / f"r{name}", smooth, rate=200, leads=leads)
    fast = open_cohort(tmp_path / "fast")
    store = pack(fast, tmp_path / "fast.store", leads=leads, workers=1)
    data = pretraining_data_of([synthetic, fast], [synthetic_store, store], preparation)
    slow_rows = np.flatnonzero(np.isin(synthetic.ids("train"), names))
    starts = torch.tensor([300, 300, 300, 300])
    crops = data.train.crops(np.concatenate([slow_rows, [58, 59]]), starts)
    assert crops.shape == (4, 12, 250)
    for ours, theirs in zip(crops[:2], crops[2:], strict=True):
        alike = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
        assert alike > 0.98
    shuffled = np.corrcoef(crops[0].ravel(), crops[3].ravel())[0, 1]
    assert shuffled < 0.9


# ---------------------------------------------------------------------- mixtures


@pytest.fixture(scope="module")
def source(synthetic: Cohort, synthetic_store: Store, preparation: Preparation) -> SignalSource:
    rows = synthetic_store.rows(synthetic.ids("train"))
    return SignalSource(synthetic_store, rows, np.zeros((len(rows), 0), np.uint8), preparation)


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


def test_shares_become_whole_draws() -> None:
    assert draws_by_share([100, 100], [1, 1]) == (100, 100)
    assert draws_by_share([30, 7], [2, 1]) == (25, 12)
    assert draws_by_share([10, 10, 10], [1, 1, 1]) == (10, 10, 10)
    assert sum(draws_by_share([101, 17, 3], [0.3, 0.5, 0.11])) == 121
    assert draws_by_share([1000, 1], [1e6, 1]) == (1001, 0)
