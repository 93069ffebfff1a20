"""Fingerprints: the same samples are known again, whatever the file and the order of leads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from einthoven.cohorts import Cohort, open_cohort
from einthoven.signals.pack import pack
from einthoven.signals.store import Store
from einthoven.stages.fingerprint import BITS, fingerprint, signal_fingerprints

LEADS = ("I", "II", "V5")


@pytest.fixture(scope="module")
def renamed(synthetic_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same records under other ids, packed with fewer leads in another order."""
    cohort = open_cohort(synthetic_path, empty_rows="keep")
    table = cohort.table.copy()
    table.index = ["x" + name for name in table.index.astype(str)]
    other = replace(cohort, table=table)
    folder = tmp_path_factory.mktemp("renamed") / "store"
    return pack(other, folder, leads=("V5", "II", "I"), workers=1)


def test_a_renamed_record_with_reordered_leads_has_the_same_fingerprint(
    synthetic_store: Store, renamed: Store
) -> None:
    rows = np.arange(len(synthetic_store))
    ours = signal_fingerprints(synthetic_store, rows, LEADS)
    theirs = signal_fingerprints(renamed, rows, LEADS)
    assert np.array_equal(ours, theirs)
    assert len(set(ours.tolist())) == len(ours)
    assert ours.max() < 2**BITS


def test_rows_may_come_in_any_order(synthetic_store: Store) -> None:
    rows = np.arange(20)
    ordered = signal_fingerprints(synthetic_store, rows, LEADS)
    assert np.array_equal(signal_fingerprints(synthetic_store, rows[::-1], LEADS), ordered[::-1])


def test_one_changed_sample_or_another_rate_is_another_recording(
    synthetic_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array([3])
    before = signal_fingerprints(synthetic_store, rows, LEADS)
    chunk = synthetic_store.read(rows)[0]
    signals = chunk.signals.copy()
    signals[0, 1, 500] += 1
    for other in (replace(chunk, signals=signals), replace(chunk, rate=500.0)):
        monkeypatch.setattr(Store, "read", lambda self, rows, other=other: [other])
        assert signal_fingerprints(synthetic_store, rows, LEADS) != before


def test_a_flat_record_has_no_fingerprint(
    synthetic_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = synthetic_store.read(np.array([3]))[0]
    flat = replace(chunk, signals=np.zeros_like(chunk.signals))
    monkeypatch.setattr(Store, "read", lambda self, rows: [flat])
    assert signal_fingerprints(synthetic_store, np.array([3]), LEADS).tolist() == [0]


def test_fingerprints_of_texts_depend_on_their_parts(synthetic: Cohort) -> None:
    assert fingerprint("a", "bc") != fingerprint("ab", "c")
    assert fingerprint("a", "b") == fingerprint("a", "b")
