"""Table 1 of a small cohort whose counts are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts.cohort import Cohort
from einthoven.experiment.population import QUARANTINED, population
from einthoven.signals.store import ArrayStore


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """Ten records of eight patients; the last one is quarantined, two more were left out."""
    table = pd.DataFrame(
        {
            "path": [f"{i}.dat" for i in range(10)],
            "patient": ["a", "a", "b", "b", "c", "d", "e", "f", "g", "h"],
            "split": ["train"] * 6 + ["test"] * 4,
            "age": [40.0, 41, 50, 52, 300, np.nan, 60, 70, 80, 10],
            "sex": ["m", "male", "F", "f", None, "x", "male", "m", "f", "f"],
            "date": ["2020-03-05", "2019-02-01", *[""] * 4, *["2021-12-31"] * 4],
        },
        index=pd.Index([str(i) for i in range(10)], name="record"),
    )
    matrix = np.zeros((10, 2), dtype=np.uint8)
    matrix[[0, 1, 6, 9], 0] = matrix[[0, 2], 1] = 1
    return Cohort(
        name="tiny", version="", task="A,B", labels=("A", "B"), root=Path(), table=table,
        matrix=matrix, descriptions={"A": "a word", "C": "none"}, left_out={"a reason": 2},
    )  # fmt: skip


@pytest.fixture(scope="module")
def store() -> ArrayStore:
    signals = [np.zeros((1, 1000 if i < 6 else 4000), dtype=np.float32) for i in range(9)]
    rates, samples = [100.0] * 6 + [400.0] * 3, [signal.shape[1] for signal in signals]
    packed = ArrayStore._over(signals, ["I"], rates, samples)
    packed.quarantine = pd.DataFrame({"record": ["9"], "path": ["9.dat"], "reason": ["flat"]})
    return packed


def test_every_record_of_the_source_is_accounted_for(cohort: Cohort, store: ArrayStore) -> None:
    described = population(cohort, store)
    assert described["found"] == 12
    assert described["used"] == 9
    assert described["left_out"] == {"a reason": 2, QUARANTINED: 1}
    assert described["descriptions"] == {"A": "a word"}
    assert list(described["parts"]) == ["train", "test", "all"]


def test_counts_of_a_split_are_those_of_its_records(cohort: Cohort, store: ArrayStore) -> None:
    part = population(cohort, store)["parts"]["train"]
    assert (part["records"], part["patients"]) == (6, 4)
    assert part["positives"] == {
        "A": {"records": 2, "share": 2 / 6},
        "B": {"records": 2, "share": 2 / 6},
    }
    assert part["without_label"] == {"records": 3, "share": 0.5}
    sexes = {name: entry["records"] for name, entry in part["sex"].items()}
    assert list(sexes.items()) == [("female", 2), ("male", 2), ("x", 1), ("", 1)]
    assert part["date"] == {
        "first": "2019-02", "last": "2020-03", "missing": {"records": 4, "share": 4 / 6}
    }  # fmt: skip
    assert part["device"] is None
    assert part["rate"] == {"100": {"records": 6, "share": 1.0}}


def test_ages_have_quartiles_and_a_number_of_missing_ones(
    cohort: Cohort, store: ArrayStore
) -> None:
    """PTB-XL's 300 stands for an age above 89, and not for 300 years."""
    age = population(cohort, store)["parts"]["train"]["age"]
    assert age["missing"]["records"] == 1
    assert (age["lower_quartile"], age["median"], age["upper_quartile"]) == (41, 50, 52)
    everyone = population(cohort, store)["parts"]["all"]
    assert set(everyone["rate"]) == {"100", "400"}
    assert everyone["seconds"]["median"] == 10


def test_one_split_is_described_once(cohort: Cohort, store: ArrayStore) -> None:
    assert list(population(cohort.with_splits("train"), store)["parts"]) == ["all"]


def test_a_cohort_without_age_and_sex_has_none(cohort: Cohort, store: ArrayStore) -> None:
    bare = cohort.table[["path", "patient", "split"]]
    part = population(Cohort(**{**vars(cohort), "table": bare}), store)["parts"]["all"]
    assert part["age"] is part["sex"] is part["date"] is None
