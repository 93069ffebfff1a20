"""Arrays in place of a store: the same records, whatever their type, and no copy of them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import StoreError
from einthoven.signals.batches import SignalSource
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Filter, Resample, Scale, Window
from einthoven.signals.store import AmplitudeWarning, ArrayStore, Store, check_amplitude

PREPARATION = Preparation(
    leads=("V2", "II"),
    steps=(Resample(50), Window(100, evaluation_crops=3), Filter("lowpass", 20), Scale(0.0, 0.25)),
)


def of_store(store: Store) -> np.ndarray:
    return store.read(np.arange(len(store)))[0].signals / 1000.0


def sources(store: Store, array: np.ndarray) -> list[SignalSource]:
    targets = np.zeros((len(store), 1), dtype=np.uint8)
    rate = float(store.index["rate"].iloc[0])
    stores = [store, ArrayStore.over(array, leads=store.leads, rate=rate)]
    return [SignalSource(each, np.arange(len(store)), targets, PREPARATION) for each in stores]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batches_are_those_of_the_packed_records(synthetic_store: Store, dtype: Any) -> None:
    packed, array = sources(synthetic_store, of_store(synthetic_store).astype(dtype))
    chosen = np.array([7, 3, 3, 120])
    (ours, owner), (theirs, other) = (s.evaluation_crops(chosen) for s in (array, packed))
    assert torch.equal(owner, other)
    assert torch.allclose(ours, theirs, atol=1e-5)
    starts = torch.tensor([0, 5, 9, 300])
    assert torch.allclose(array.crops(chosen, starts), packed.crops(chosen, starts), atol=1e-5)


def test_values_are_neither_rounded_nor_clipped() -> None:
    signals = np.array([[[1e-5, 250.0, -40.0, 0.0]]])
    (chunk,) = ArrayStore.over(signals, leads=("I",), rate=10).read(np.array([0]))
    assert chunk.signals.dtype == np.float32
    assert chunk.signals.ravel().tolist() == pytest.approx([1e-2, 250_000.0, -40_000.0, 0.0])
    assert ArrayStore.over(signals, leads=("I",), rate=10).read(np.array([], dtype=int)) == []


def test_a_memory_map_is_read_by_rows_and_never_written(tmp_path: Path) -> None:
    shape = (50, 2, 30)
    file = tmp_path / "x.npy"
    np.save(file, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    mapped = np.load(file, mmap_mode="r")
    store = ArrayStore.over(mapped, leads=("I", "II"), rate=100)
    assert store.array is mapped
    (chunk,) = store.read(np.array([49, 0]))
    chunk.signals[:] = 0
    assert mapped[0, 0, 1] == 1


def test_other_shapes_are_refused() -> None:
    for shape in ((3, 5), (3, 2, 5)):
        with pytest.raises(StoreError, match=r"\(3, .*5\)"):
            ArrayStore.over(np.zeros(shape), leads=("I",), rate=100)


@pytest.mark.parametrize("factor", [0.1, 1, 10, 1000])
def test_the_amplitude_of_a_cohort_is_judged(factor: float) -> None:
    record = sample_record()
    signals = np.stack([record.signal * factor] * 20)
    store = ArrayStore.over(signals, leads=record.leads, rate=record.rate)
    if factor == 1:
        check_amplitude(store)
    elif factor == 1000:
        with pytest.raises(StoreError, match="microvolts"):
            check_amplitude(store)
    else:
        with pytest.warns(AmplitudeWarning, match="20 records"):
            check_amplitude(store)
        check_amplitude(ArrayStore.over(signals / factor, leads=record.leads, rate=record.rate))
