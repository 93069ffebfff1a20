"""Which store a command takes for a cohort."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from einthoven.cli.stores import store_of
from einthoven.errors import StoreError
from einthoven.records import STANDARD_LEADS
from einthoven.records.wfdb import write_wfdb


@pytest.fixture
def hospitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders of the same name whose files are numbered alike."""
    monkeypatch.setenv("EINTHOVEN_CACHE", str(tmp_path / "cache"))
    draws = np.random.default_rng(0)
    folders = tmp_path / "a" / "ecgs", tmp_path / "b" / "ecgs"
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(3):
            signal = draws.normal(0, 0.3, (12, 500))
            write_wfdb(folder / f"{number:05d}", signal, rate=100, leads=STANDARD_LEADS)
    return folders


def test_each_folder_has_a_store_of_its_own(hospitals: tuple[Path, Path]) -> None:
    one, other = (store_of(folder, None) for folder in hospitals)
    assert one.root != other.root
    assert not np.array_equal(one.record("00000").signal, other.record("00000").signal)
    assert store_of(hospitals[0], None).root == one.root


def test_another_folder_s_store_is_refused(hospitals: tuple[Path, Path], tmp_path: Path) -> None:
    store_of(hospitals[0], tmp_path / "store")
    assert len(store_of(hospitals[0], tmp_path / "store")) == 3
    with pytest.raises(StoreError, match="another recording of record '00000'"):
        store_of(hospitals[1], tmp_path / "store")
    shutil.rmtree(hospitals[0])  # the store is enough
    hospitals[0].mkdir()
    assert len(store_of(hospitals[0], tmp_path / "store")) == 3
