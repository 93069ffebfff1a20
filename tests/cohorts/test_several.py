"""Several cohorts as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import is_cohort, layout_of, open_cohort
from einthoven.cohorts.registry import LISTS
from einthoven.errors import CohortError
from einthoven.signals.pack import pack


@pytest.fixture
def two(synthetic_path: Path, tmp_path: Path) -> Path:
    """The simulated cohort, and a table of some of its recordings with other codes."""
    everyone = open_cohort(synthetic_path)
    table = pd.DataFrame({"path": list(map(str, everyone.paths("test")[:12]))})
    table["patient"], table["age"] = np.arange(12) // 2, 60
    table["AF"], table["426783006"], table["STEMI"] = np.arange(12) % 2, 1, 0
    (tmp_path / "lists").mkdir()
    table.to_csv(tmp_path / "ward.csv", index=False)
    file = tmp_path / "lists" / "two.toml"
    file.write_text(f'cohorts = ["{synthetic_path}", "../ward.csv"]')
    return file


def test_statements_of_both(two: Path, synthetic_path: Path) -> None:
    assert layout_of(two) is LISTS
    assert is_cohort(two)
    cohort, first = open_cohort(two), open_cohort(synthetic_path)
    assert (cohort.name, cohort.task, cohort.labels) == ("two", "statements", ("SR", "AFIB"))
    assert len(cohort) == len(first) + 12
    afib = first.matrix[:, first.labels.index("AFIB")]
    assert cohort.matrix[:, 1].tolist() == [*afib, *[0, 1] * 6]
    assert cohort.descriptions["AFIB"] == "atrial fibrillation"
    assert [path.resolve() for path in cohort.paths()[:2]] == first.paths()[:2]


def test_statements_of_any_are_unknown_in_the_others(two: Path, synthetic_path: Path) -> None:
    two.write_text(two.read_text() + '\nstatements = "any"')
    cohort, first = open_cohort(two), open_cohort(synthetic_path, "statements")
    assert cohort.labels == first.labels
    assert np.array_equal(cohort.matrix[:-12], first.matrix)
    known = ~np.isnan(cohort.matrix[-12:]).any(axis=0)
    assert {label for label, is_known in zip(cohort.labels, known, strict=True) if is_known} == {
        "SR", "AFIB",
    }  # fmt: skip
    assert np.isnan(cohort.matrix[-12:, ~known]).all()


def test_patients_and_splits_are_those_of_each(two: Path, synthetic_path: Path) -> None:
    cohort, first = open_cohort(two), open_cohort(synthetic_path)
    assert cohort.table["split"][: len(first)].tolist() == first.table["split"].tolist()
    patients = cohort.patients()[-12:]
    assert patients[0] == patients[1] == "../ward.csv/0"
    assert not set(patients) & set(cohort.patients()[:-12])
    assert not cohort.has_splits
    assert "fold" not in cohort.metadata()


def test_all_records_are_packed(two: Path, tmp_path: Path) -> None:
    cohort = open_cohort(two, empty_rows="keep")
    store = pack(cohort.select(np.arange(len(cohort)) > 150), tmp_path / "store", workers=1)
    assert len(store.quarantine) == 0
    assert len(store) == len(cohort) - 151


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cohorts = []", "different paths"),
        ("cohorts = 3", "different paths"),
        ('cohorts = ["../ward.csv", "../ward.csv"]', "different paths"),
        ('cohorts = ["../ward.csv", "../absent"]', "absent"),
        ('cohorts = ["../ward.csv', "cannot be read"),
        ('cohorts = ["../ward.csv", "../other.csv"]', "no statement"),
        ('cohorts = ["../ward.csv"]\nstatements = "every"', "every"),
        ('cohorts = ["../ward.csv"]\nseed = 1', "seed"),
    ],
)
def test_lists_that_cannot_be_opened(two: Path, text: str, message: str) -> None:
    pd.DataFrame({"path": ["a", "b"], "patient": [1, 2], "LVH": [0, 1]}).to_csv(
        two.parents[1] / "other.csv", index=False
    )
    two.write_text(text)
    with pytest.raises(CohortError, match=message):
        open_cohort(two)


def test_a_list_has_one_task(two: Path) -> None:
    assert open_cohort(two, "statements").labels == open_cohort(two).labels
    with pytest.raises(CohortError, match="all-71"):
        open_cohort(two, "all-71")
