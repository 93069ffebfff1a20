"""The catalogue of layouts, and one that another package registers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from einthoven.cohorts import (
    Cohort,
    Layout,
    layout_of,
    open_cohort,
    register_layout,
    registry,
    without_labels,
)
from einthoven.cohorts.table import open_table
from einthoven.errors import CohortError
from einthoven.records.wfdb import write_wfdb


def open_listed(path: Path, task: str = "first", *, seed: int = 0) -> Cohort:
    return open_table(path / "listed.csv", labels=[task], seed=seed)


LISTED = Layout(
    "listed",
    "a folder with listed.csv",
    lambda path: (path / "listed.csv").is_file(),
    open_listed,
    ("first", "second"),
)


@pytest.fixture
def listed(ecgs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "LAYOUTS", list(registry.LAYOUTS))
    register_layout(LISTED)
    rows = "".join(f"{i},{i},{i % 2},{i % 3 % 2}\n" for i in range(12))
    (ecgs / "listed.csv").write_text(f"path,patient,first,second\n{rows}")
    return ecgs


@pytest.fixture
def ecgs(tmp_path: Path) -> Path:
    signal = np.sin(np.arange(500) / 10)[None].repeat(2, axis=0)
    write_wfdb(tmp_path / "ecgs" / "one", signal, rate=100, leads=["I", "II"])
    return tmp_path / "ecgs"


def test_a_registered_layout_comes_before_a_folder_of_files(listed: Path) -> None:
    assert layout_of(listed) is LISTED
    assert open_cohort(listed).labels == ("first",)
    assert open_cohort(listed, "second", seed=3).labels == ("second",)


def test_options_are_those_of_the_opener(listed: Path) -> None:
    assert LISTED.options == ("task", "seed")
    with pytest.raises(CohortError, match="rate") as refused:
        open_cohort(listed, rate=100)
    assert "seed" in str(refused.value.remedy)


def test_a_folder_of_files_has_no_task(ecgs: Path) -> None:
    assert layout_of(ecgs).tasks == ()
    assert open_cohort(ecgs).ids().tolist() == ["one"]
    with pytest.raises(CohortError, match="task"):
        open_cohort(ecgs, "all-71")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError):
        open_cohort(tmp_path)


def test_codes_are_those_of_a_task() -> None:
    assert all(layout.codes in ("", *layout.tasks) for layout in registry.LAYOUTS)
    assert len({layout.name for layout in registry.LAYOUTS}) == len(registry.LAYOUTS)


@pytest.mark.parametrize(
    ("file", "missing"),
    [
        ("A00001.h5", "metadata.csv"),
        ("exams_part3.hdf5", "exams.csv"),
        ("ecg_tracings.hdf5", "attributes.csv"),
        ("records100/00000/00001_lr.hea", "ptbxl_database.csv"),
        ("other.hea", "target="),
    ],
)
def test_signals_without_the_tables_of_their_layout(
    tmp_path: Path, synthetic: Cohort, file: str, missing: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    error = without_labels(replace(synthetic, root=tmp_path), tmp_path)
    assert missing in error.remedy
