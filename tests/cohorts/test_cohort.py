from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import Cohort
from einthoven.cohorts.cohort import checked, patient_order, split_by_patient
from einthoven.errors import CohortError


def cohort_of(patients: list[str], splits: list[str], matrix: list[list[int]]) -> Cohort:
    table = pd.DataFrame({"path": [f"r{i}" for i in range(len(patients))], "patient": patients})
    table["split"] = splits
    table.index = pd.Index([f"r{i}" for i in range(len(patients))], name="record")
    labels = tuple(f"L{i}" for i in range(len(matrix[0])))
    targets = np.array(matrix, dtype=np.uint8)
    return Cohort("own", "", "two", labels, Path("."), table, targets)


def random_cohort(records: int = 3000, seed: int = 0) -> Cohort:
    generator = np.random.default_rng(seed)
    patients = [f"p{i}" for i in generator.integers(0, records // 2, records)]
    matrix = generator.random((records, 6)) < [0.6, 0.3, 0.1, 0.02, 0.005, 0.002]
    targets = matrix.astype(np.uint8)
    splits = split_by_patient(patients, targets, seed=seed)
    return cohort_of(patients, splits.tolist(), targets.tolist())


def test_a_patient_in_two_splits_is_refused_by_name() -> None:
    broken = cohort_of(["a", "b", "a"], ["train", "train", "test"], [[1], [0], [1]])
    with pytest.raises(CohortError, match="'a' in test"):
        checked(broken)


def test_duplicated_ids_are_refused() -> None:
    broken = cohort_of(["a", "b"], ["train", "test"], [[1], [0]])
    broken.table.index = pd.Index(["x", "x"])
    with pytest.raises(CohortError, match="'x'"):
        checked(broken)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(CohortError, match="'valid'"):
        random_cohort(100).ids("valid")


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_impossible_fractions_are_refused(share: float) -> None:
    with pytest.raises(CohortError, match=f"fraction {share}"):
        random_cohort(100).fraction(share)


def test_fractions_are_nested_whole_patients_and_leave_evaluation_alone() -> None:
    cohort = random_cohort()
    small, large = cohort.fraction(0.1, seed=3), cohort.fraction(0.4, seed=3)
    assert set(small.ids("train")) < set(large.ids("train")) < set(cohort.ids("train"))
    patients = set(small.patients("train"))
    everyone = cohort.table[cohort.table["split"] == "train"]
    assert set(everyone.index[everyone["patient"].isin(patients)]) == set(small.ids("train"))
    for split in ("validation", "test"):
        assert small.ids(split).tolist() == cohort.ids(split).tolist()
    assert len(small.ids("train")) == pytest.approx(0.1 * len(cohort.ids("train")), rel=0.05)


def test_fractions_keep_rare_labels_and_label_shares() -> None:
    cohort = random_cohort()
    whole, part = cohort.counts()["train"], cohort.fraction(0.2, seed=1).counts()["train"]
    assert (part[whole > 0] > 0).all()
    common = whole > 100
    assert (part / whole)[common].to_numpy() == pytest.approx(0.2, abs=0.05)


def test_patient_split_is_disjoint_stratified_and_80_10_10() -> None:
    cohort = random_cohort()
    sizes = [len(cohort.ids(split)) for split in ("train", "validation", "test")]
    assert np.array(sizes) / len(cohort) == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert not set(cohort.patients("train")) & set(cohort.patients("test"))
    assert (cohort.counts().iloc[:4] > 0).all().all()


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_every_split_has_the_label_shares_of_the_whole(share: float) -> None:
    """To within one patient, whatever the seed."""
    positives = round(500 * share)
    targets = (np.arange(500) < positives).astype(np.uint8)[:, None]
    patients = np.arange(500).astype(str)
    for seed in range(20):
        splits = split_by_patient(patients, targets, seed=seed)
        for split in ("validation", "test"):
            assert abs(int(targets[splits == split].sum()) - positives / 10) < 1


def test_patient_order_does_not_depend_on_the_order_of_records() -> None:
    cohort = random_cohort(300)
    shuffled = np.random.default_rng(0).permutation(300)
    first = patient_order(cohort.patients(), cohort.targets(), seed=5)
    again = patient_order(cohort.patients()[shuffled], cohort.targets()[shuffled], seed=5)
    assert first.tolist() == again.tolist()


def test_digest_sees_a_changed_target_and_a_changed_label_order() -> None:
    cohort = random_cohort(50)
    matrix = cohort.matrix.copy()
    matrix[3, 0] ^= 1
    assert replace(cohort, matrix=matrix).digest != cohort.digest
    assert replace(cohort, labels=cohort.labels[::-1]).digest != cohort.digest
    assert replace(cohort, version="2").digest == cohort.digest


def test_with_labels_takes_columns_by_name() -> None:
    cohort = random_cohort(50)
    part = cohort.with_labels(["L2", "L0"])
    assert part.labels == ("L2", "L0")
    assert (part.targets() == cohort.targets()[:, [2, 0]]).all()
    with pytest.raises(CohortError, match="L9"):
        cohort.with_labels(["L9"])


def test_folds_test_and_validate_every_record_once() -> None:
    cohort = random_cohort(600)
    parts = cohort.folds(5)
    for split in ("validation", "test"):
        names = np.concatenate([part.ids(split) for part in parts])
        assert sorted(names) == sorted(cohort.ids())
    for k, part in enumerate(parts):
        checked(part)  # whole patients
        assert part.ids("validation").tolist() == parts[(k + 1) % 5].ids("test").tolist()
        assert len(part.ids("train")) == pytest.approx(0.6 * len(cohort), rel=0.1)
        assert part.targets().tolist() == cohort.targets().tolist()


@pytest.mark.parametrize("positives", [4, 5, 13])
def test_folds_share_the_positives_of_a_label(positives: int) -> None:
    """To within one patient, whatever the seed."""
    targets = (np.arange(100) < positives).astype(int)[:, None]
    cohort = cohort_of([f"p{i}" for i in range(100)], ["train"] * 100, targets.tolist())
    for seed in range(10):
        counts = [int(part.targets("test").sum()) for part in cohort.folds(5, seed=seed)]
        assert set(counts) <= {positives // 5, positives // 5 + 1}


def test_folds_of_the_column_are_used_where_their_number_fits() -> None:
    names, stated = [f"p{i}" for i in range(12)], np.tile([7, 9, 10], 4)
    cohort = cohort_of(names, ["train"] * 12, [[i % 2] for i in range(12)])
    cohort = replace(cohort, table=cohort.table.assign(fold=stated))
    for part, fold in zip(cohort.folds(3), (7, 9, 10), strict=True):
        assert part.ids("test").tolist() == cohort.ids()[stated == fold].tolist()
    assert cohort.folds(4)[0].ids("test").tolist() != cohort.ids()[stated == 7].tolist()
    shared = replace(cohort, table=cohort.table.assign(patient=[*names[:-1], "p0"]))
    assert len(shared.folds(4)) == 4
    with pytest.raises(CohortError, match="p0"):
        shared.folds(3)


def test_impossible_folds_are_refused() -> None:
    cohort = cohort_of(["a", "b", "c", "c"], ["train"] * 4, [[1], [0], [1], [0]])
    assert len(cohort.folds(3)) == 3
    for count in (2, 4):
        with pytest.raises(CohortError, match=f"{count} folds"):
            cohort.folds(count)
