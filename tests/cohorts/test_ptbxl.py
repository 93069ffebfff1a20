"""The six tasks against the benchmark's counts, on PTB-XL's real tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import SPLITS, open_cohort
from einthoven.cohorts.ptbxl import REMOVED_IN_1_0_3, TASKS
from einthoven.errors import CohortError

# records per split in 1.0.3
RECORDS = {
    "all-71": (17418, 2183, 2198),
    "diagnostic-44": (17084, 2146, 2158),
    "subclass-23": (17084, 2146, 2158),
    "superclass-5": (17084, 2146, 2158),
    "form-19": (7197, 901, 880),
    "rhythm-12": (16832, 2100, 2098),
}
# Positives per split in 1.0.3, of every label: 71 statements, 23 subclasses, 5 superclasses.
COUNTS = pd.read_csv(
    Path(__file__).parents[1] / "golden" / "ptbxl_counts.csv", index_col=["task", "label"]
)


@pytest.fixture(scope="module")
def tables(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PTB-XL 1.0.3's two tables, rebuilt without the waveforms."""
    source, folder = shared / "data" / "ptbxl", tmp_path_factory.mktemp("tables")
    labels = pd.read_csv(source / "labels.csv", dtype=str)
    codes = labels["scp_codes"].fillna("").str.split(",")
    labels["scp_codes"] = [repr({c: 0.0 for c in row if c}) for row in codes]
    labels.to_csv(folder / "ptbxl_database.csv", index=False)
    shutil.copy(source / "scp_statements.csv", folder)
    (folder / "records100").mkdir()
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_golden_counts(tables: Path, task: str) -> None:
    cohort = open_cohort(tables, task)
    assert (cohort.name, cohort.version) == ("ptb-xl", "1.0.3")
    assert tuple(len(cohort.ids(split)) for split in SPLITS) == RECORDS[task]
    assert len(cohort.labels) == int(task.rsplit("-", 1)[1])
    if task in COUNTS.index.levels[0]:
        expected = COUNTS.loc[task]
        assert list(cohort.labels) == expected.index.tolist()
    else:  # of these tasks every label is a statement
        expected = COUNTS.loc["all-71"].loc[list(cohort.labels)]
    pd.testing.assert_frame_equal(cohort.counts(), expected, check_dtype=False, check_names=False)
    assert list(cohort.labels) == sorted(cohort.labels)
    assert cohort.targets("test").shape == (RECORDS[task][2], len(cohort.labels))
    assert cohort.targets("test").any(axis=1).all()


def test_folds_are_patient_disjoint_and_labels_per_record_match(tables: Path) -> None:
    cohort = open_cohort(tables)
    seen = [set(cohort.patients(split)) for split in SPLITS]
    assert len(seen[0] | seen[1] | seen[2]) == sum(map(len, seen))
    histogram = np.bincount(cohort.targets().sum(axis=1, dtype=int))[1:]
    # 709 records with one statement: the sheet counts records of the whole set with 1..9 labels.
    assert histogram[2:].tolist() == [5101, 2594, 1251, 596, 253, 63, 7]


def test_empty_rows_may_be_kept(tables: Path) -> None:
    cohort = open_cohort(tables, "form-19", empty_rows="keep")
    dropped = open_cohort(tables, "form-19").left_out
    assert cohort.left_out == {}
    assert sum(dropped.values()) == int((cohort.matrix.sum(axis=1) == 0).sum())
    assert tuple(len(cohort.ids(split)) for split in SPLITS) == (17418, 2183, 2198)
    assert not cohort.targets("test").any(axis=1).all()


def test_version_1_0_1_is_recognised_and_can_be_matched(tables: Path, tmp_path: Path) -> None:
    shutil.copytree(tables, tmp_path / "old")
    database = pd.read_csv(tables / "ptbxl_database.csv", dtype=str)
    extra = database.iloc[: len(REMOVED_IN_1_0_3)].copy()
    extra["ecg_id"] = sorted(REMOVED_IN_1_0_3)
    extra["patient_id"] = [f"{99000 + i}.0" for i in range(len(extra))]
    both = pd.concat([database, extra])
    both.to_csv(tmp_path / "old" / "ptbxl_database.csv", index=False)
    old = open_cohort(tmp_path / "old")
    assert (old.version, len(old)) == ("1.0.1", 21799 + 38)
    assert len(open_cohort(tmp_path / "old", match_1_0_3=True)) == 21799


def test_ids_and_patients_are_the_source_s(tables: Path) -> None:
    cohort = open_cohort(tables)
    assert dict(zip(cohort.ids(), cohort.patients(), strict=True))["1"] == "15709"
    assert cohort.paths()[0] == tables / "records100/00000/00001_lr"
    assert open_cohort(tables, rate=500).paths()[0] == tables / "records500/00000/00001_hr"


def test_sex_in_words_and_age_as_it_stands(synthetic_path: Path, tmp_path: Path) -> None:
    cohort = open_cohort(synthetic_path)
    source = pd.read_csv(synthetic_path / "ptbxl_database.csv", index_col="ecg_id")
    rows = source.loc[cohort.ids("train").astype(int)]
    result = cohort.metadata("train")
    assert list(result) == ["age", "sex", "date", "device"]
    assert result["date"].tolist() == rows["recording_date"].tolist()
    assert result["age"].tolist() == rows["age"].tolist()
    assert set(result["sex"]) == {"male", "female"}
    assert (result["sex"] == "female").tolist() == (rows["sex"] == 1).tolist()
    bare = source.drop(columns=["age", "sex", "recording_date", "device"])
    shutil.copy(synthetic_path / "scp_statements.csv", tmp_path)
    bare.to_csv(tmp_path / "ptbxl_database.csv")
    assert list(open_cohort(tmp_path).metadata()) == []


def test_a_part_of_ptbxl_reads(ptbxl_60: Path) -> None:
    cohort = open_cohort(ptbxl_60)
    assert (len(cohort), len(cohort.labels)) == (60, 71)
    assert cohort.version == "1.0.1 or 1.0.3"


def _with(tables: Path, tmp_path: Path, **columns: str) -> Path:
    folder = tmp_path / "changed"
    shutil.copytree(tables, folder)
    frame = pd.read_csv(folder / "ptbxl_database.csv", dtype=str).head(40)
    for name, value in columns.items():
        frame.loc[frame.index[3], name] = value
    frame.to_csv(folder / "ptbxl_database.csv", index=False)
    return folder


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("strat_fold", "11", "strat_fold 11"),
        ("scp_codes", "__import__('os').getcwd()", "__import__"),
        ("scp_codes", "{'NOPE': 0.0}", "NOPE"),
        ("patient_id", "", r"ecg_id \d"),
    ],
)
def test_damaged_tables_are_refused(
    tables: Path, tmp_path: Path, column: str, value: str, message: str
) -> None:
    with pytest.raises(CohortError, match=message):
        open_cohort(_with(tables, tmp_path, **{column: value}))


def test_folds_that_share_a_patient_are_refused(tables: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared-patient"
    shutil.copytree(tables, folder)
    frame = pd.read_csv(folder / "ptbxl_database.csv", dtype=str)
    frame.loc[frame["strat_fold"] == "10", "patient_id"] = "15709.0"
    frame.to_csv(folder / "ptbxl_database.csv", index=False)
    with pytest.raises(CohortError, match="'15709'"):
        open_cohort(folder)


def test_the_header_of_a_spreadsheet_is_refused(tables: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spreadsheet"
    shutil.copytree(tables, folder)
    file = folder / "ptbxl_database.csv"
    file.write_text(file.read_text().replace("ecg_id", "ECG-ID", 1))
    with pytest.raises(CohortError, match=r"\['ecg_id'\]"):
        open_cohort(folder)


def test_unknown_tasks_missing_files_and_truncated_statements(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="'all'"):
        open_cohort(tables, "all")
    with pytest.raises(CohortError, match="ECG files"):
        open_cohort(tmp_path)
    (tmp_path / "half").mkdir()
    shutil.copy(tables / "scp_statements.csv", tmp_path / "half")
    with pytest.raises(CohortError, match=r"ptbxl_database\.csv"):
        open_cohort(tmp_path / "half")
    shutil.copytree(tables, tmp_path / "short")
    statements = pd.read_csv(tables / "scp_statements.csv", index_col=0)
    statements.drop("NORM").to_csv(tmp_path / "short" / "scp_statements.csv")
    with pytest.raises(CohortError, match="70 labels"):
        open_cohort(tmp_path / "short")


def test_a_row_that_is_there_twice_is_named(tables: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    shutil.copytree(tables, folder)
    table = pd.read_csv(folder / "ptbxl_database.csv", dtype=str)
    pd.concat([table, table[:1]]).to_csv(folder / "ptbxl_database.csv", index=False)
    with pytest.raises(CohortError, match=rf"ecg_id {table['ecg_id'].iloc[0]} "):
        open_cohort(folder)
