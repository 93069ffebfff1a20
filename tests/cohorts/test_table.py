from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven import Task
from einthoven.cohorts import SPLITS, open_cohort
from einthoven.cohorts.cohort import CohortWarning
from einthoven.cohorts.table import open_table
from einthoven.errors import CohortError


def rows(count: int = 60) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [f"r/{i:03d}" for i in range(count)],
            "patient": [f"p{i // 2}" for i in range(count)],
            "AFIB": [int(i % 3 == 0) for i in range(count)],
            "STEMI": [int(i % 5 == 0) for i in range(count)],
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_without_folds_is_split_by_patient(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"own{suffix}"
    rows().to_csv(file, index=False) if suffix == ".csv" else rows().to_parquet(file)
    cohort = open_cohort(file)
    assert cohort.labels == ("AFIB", "STEMI")
    assert sum(len(cohort.ids(split)) for split in SPLITS) == 60
    assert not set(cohort.patients("train")) & set(cohort.patients("test"))
    assert cohort.paths("train")[0].parent == tmp_path / "r"
    assert open_cohort(file, seed=7).ids("test").tolist() != cohort.ids("test").tolist()


def test_folds_and_splits_are_honoured(tmp_path: Path) -> None:
    frame = rows().assign(fold=[i // 2 % 5 + 1 for i in range(60)])
    frame.to_csv(tmp_path / "folds.csv", index=False)
    cohort = open_cohort(tmp_path / "folds.csv")
    assert [len(cohort.ids(split)) for split in SPLITS] == [36, 12, 12]
    explicit = rows().assign(split=["train"] * 40 + ["validation"] * 10 + ["test"] * 10)
    explicit.to_csv(tmp_path / "splits.csv", index=False)
    assert len(open_cohort(tmp_path / "splits.csv").ids("validation")) == 10


@pytest.mark.parametrize("name", ["Split", "FOLD", "fold\u200b"])
def test_a_column_that_is_nearly_one_of_splits_is_named(name: str) -> None:
    frame = rows().assign(**{name: [i // 2 % 2 for i in range(60)]})
    with pytest.warns(CohortWarning, match="(?i)split|fold"):
        open_table(frame, labels=["AFIB"])
    with pytest.warns(CohortWarning, match="(?i)split|fold"):
        assert name in open_table(frame).labels
    assert open_table(frame, labels=[name]).labels == (name,)  # chosen as a target


def test_names_of_columns_may_be_numbers() -> None:
    frame = rows().rename(columns={"AFIB": 0})
    assert open_table(frame).labels == open_table(frame, labels=["0", "STEMI"]).labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="patient"), r"\['patient'\]"),
        (lambda f: f.assign(AFIB=2), "'AFIB' .*'2'"),
        (lambda f: f.assign(notes="x"), "'notes' .*'x'"),
        (lambda f: f.assign(fold=1), "1 folds"),
        (lambda f: f.assign(fold=0.5), "fold '0.5'"),
        (lambda f: f.assign(fold=["a", *range(59)]), "fold 'a'"),
        (lambda f: f.assign(record=[None, *range(59)]), r"\['record'\]"),
        (lambda f: f.assign(split="valid"), r"splits \['valid'\]"),
        (lambda f: f.assign(fold=range(60)), "'p29'"),
        (lambda f: f.assign(path=None), r"\['path'\]"),
        (lambda f: f.head(0), "no rows"),
    ],
)
def test_tables_that_do_not_hold_together_are_refused(tmp_path: Path, change, message: str) -> None:
    change(rows()).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(CohortError, match=message):
        open_cohort(tmp_path / "own.csv")


def test_names_of_digits_stay_as_they_are_written(tmp_path: Path) -> None:
    """007 is not 7, 1E5 not 100000, and a file keeps the zeros in front of its number."""
    people = ["007", "7", "1E5", "100000", "12345678901234567890"]
    frame = rows().assign(
        path=[f"{i:05d}" for i in range(60)],
        record=[f"{i:04d}" for i in range(60)],
        patient=[people[i % 5] for i in range(60)],
    )
    frame.to_csv(tmp_path / "own.csv", index=False)
    with pytest.warns(CohortWarning, match="'100000', '1E5'"):  # perhaps one patient
        cohort = open_cohort(tmp_path / "own.csv")
    assert set(cohort.patients()) == set(people)
    assert cohort.ids()[:2].tolist() == ["0000", "0001"]
    assert cohort.table["path"].iloc[3] == "00003"


def test_folds_are_numbers_even_where_they_are_stored_as_text(tmp_path: Path) -> None:
    frame = rows().assign(fold=[str(i // 2 % 10 + 1) for i in range(60)])
    frame.to_parquet(tmp_path / "own.parquet")
    cohort = open_cohort(tmp_path / "own.parquet")
    assert set(cohort.table.loc[cohort.table["split"] == "test", "fold"]) == {"10"}
    assert set(cohort.table.loc[cohort.table["split"] == "validation", "fold"]) == {"9"}


def test_labels_can_be_chosen(tmp_path: Path) -> None:
    rows().assign(notes="x").to_csv(tmp_path / "own.csv", index=False)
    assert open_cohort(tmp_path / "own.csv", labels=["STEMI"]).labels == ("STEMI",)
    with pytest.raises(CohortError, match=r"\['nope'\]"):
        open_cohort(tmp_path / "own.csv", labels=["nope"])


def test_rare_labels_can_be_left_out(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "own.csv", index=False)
    whole = open_cohort(tmp_path / "own.csv")  # 20 and 12 of 60
    common = open_cohort(tmp_path / "own.csv", min_records=13)
    assert (common.task, common.labels) == ("AFIB", ("AFIB",))
    assert common.ids().tolist() == whole.ids().tolist()
    assert open_cohort(tmp_path / "own.csv", min_records=12).labels == whole.labels
    with pytest.raises(CohortError, match=r"AFIB, .*20"):
        open_cohort(tmp_path / "own.csv", min_records=21)


def test_separators_and_encodings_are_named(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "own.csv", index=False, sep=";")
    with pytest.raises(CohortError, match="path;patient"):
        open_cohort(tmp_path / "own.csv")
    for encoding in ("latin-1", "utf-16"):
        rows().assign(sex="männlich").to_csv(tmp_path / "own.csv", index=False, encoding=encoding)
        with pytest.raises(CohortError, match="UTF-8"):
            open_cohort(tmp_path / "own.csv")
    rows().to_csv(tmp_path / "plain.csv", index=False)
    rows().to_csv(tmp_path / "marked.csv", index=False, encoding="utf-8-sig")
    plain, marked = (open_cohort(tmp_path / f"{name}.csv") for name in ("plain", "marked"))
    assert marked.digest == plain.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("STEMI", "AFIB", 1), "'AFIB'"),
        (lambda text: text.replace("STEMI", " AFIB ", 1), "'AFIB'"),
        (lambda text: text.replace("STEMI", "", 1), r"own\.csv.* 4 "),
        (lambda text: text.replace("0\n", "0,0\n").replace("1\n", "1,0\n"), r"own\.csv.* 4 "),
        (lambda text: text.replace("r/003,", '"r/003,', 1), r"own\.csv"),
        (lambda text: "", r"own\.csv"),
    ],
)
def test_headers_and_cells_that_do_not_fit_are_refused(tmp_path: Path, change, message) -> None:
    file = tmp_path / "own.csv"
    file.write_text(change(rows().to_csv(index=False)))
    with pytest.raises(CohortError, match=message):
        open_cohort(file)
    with pytest.raises(CohortError, match="'path'"):
        open_cohort(pd.concat([rows(), rows()["path"]], axis=1))


def test_an_index_without_a_name_is_no_column(tmp_path: Path) -> None:
    file, expected = tmp_path / "own.csv", open_cohort(rows())
    for index in (range(60), range(100, 40, -1), [f"row {i}" for i in range(60)]):
        rows().set_index(pd.Index(index)).to_csv(file)
        assert open_cohort(file).labels == expected.labels
    again = pd.read_csv(file)
    assert open_cohort(again).digest == expected.digest
    again.to_csv(file)  # a second index before the first
    assert open_cohort(file).labels == expected.labels
    rows().set_index(pd.Index([0, 1] * 30)).to_csv(file)  # a label without its name
    with pytest.raises(CohortError, match="column 1 "):
        open_cohort(file)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("other", ["17.0", "17 ", " 17,00", "17\u200b", "\ufeff17", "1.7E+01"])
def test_a_patient_is_one_however_its_number_is_spelt(
    tmp_path: Path, suffix: str, other: str
) -> None:
    people = ["17", *(f"p{i}" for i in range(58)), other]
    frame = rows().assign(patient=people, split=["train"] * 40 + ["test"] * 20)
    file = tmp_path / f"own{suffix}"
    frame.to_csv(file, index=False) if suffix == ".csv" else frame.to_parquet(file)
    with pytest.raises(CohortError, match="'17'"):
        open_cohort(file)
    free = frame.drop(columns="split")
    free.to_csv(file, index=False) if suffix == ".csv" else free.to_parquet(file)
    patients = open_cohort(file).patients()
    assert patients[0] == patients[-1] == "17"


@pytest.mark.parametrize(
    ("names", "is_warned"),
    [
        (["ABC-1", "abc-1", "ABC1", "abc 1"], True),
        (["Müller, A.", "müller a"], True),
        (["2024-001", "2024001"], True),
        (["0000007", "7"], True),
        (["P-007", "p7"], True),
        (["100000", "1e5"], True),
        (["1.23457E+11", "1.23458E+11"], True),
        (["1-01", "101", "10", "100"], True),
        (["10-1", "1-1", "100", "1", "0"], False),
        (["1-11", "11-1", "111", "1111"], False),
        (["A1", "A11", "B1", "_1"], False),
    ],
)
def test_patients_of_similar_names_are_named(names: list[str], is_warned: bool) -> None:
    people = [*names, *(f"other{i}" for i in range(60 - len(names)))]
    splits = ["train", "validation", "test"] * 20
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cohort = open_cohort(rows().assign(patient=people, split=splits))
    assert len(set(cohort.patients())) == 60
    assert len(caught) == is_warned
    assert all(repr(sorted(names)[0]) in str(warning.message) for warning in caught)


def test_numbers_of_patients_are_the_same_as_floats() -> None:
    """A join with gaps elsewhere turns whole numbers into floats, also large ones."""
    numbers = np.arange(60) + 2**52
    whole, floats = (
        open_cohort(rows().assign(patient=numbers.astype(kind))) for kind in (int, float)
    )
    assert whole.digest == floats.digest


def test_a_column_without_a_name_is_passed_over_where_labels_are_named(tmp_path: Path) -> None:
    """Otherwise it would be a label."""
    rows().assign(**{"": 1}).to_csv(tmp_path / "own.csv", index=False)
    assert open_cohort(tmp_path / "own.csv", labels=["AFIB"]).labels == ("AFIB",)
    assert open_cohort(tmp_path / "own.csv", labels=[]).labels == ()
    with pytest.raises(CohortError, match=r"own\.csv.* 5 "):
        open_cohort(tmp_path / "own.csv")


def test_labels_may_be_true_and_false_or_text(tmp_path: Path) -> None:
    frame, expected = rows(), open_cohort(rows()).matrix
    for spelling in ({0: "FALSE", 1: "TRUE"}, {0: "false", 1: "True "}, {0: "0", 1: "1.0"}):
        for suffix in (".csv", ".parquet"):
            texts, file = frame.assign(AFIB=frame["AFIB"].map(spelling)), tmp_path / f"own{suffix}"
            texts.to_csv(file, index=False) if suffix == ".csv" else texts.to_parquet(file)
            np.testing.assert_array_equal(open_cohort(file).matrix, expected)


def test_an_odd_cell_is_shown_with_its_row(tmp_path: Path) -> None:
    frame = rows().astype({"AFIB": str})
    frame.loc[7, "AFIB"] = "?"
    frame.to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(CohortError, match=r"'AFIB' .*'\?' .* 8 "):
        open_cohort(tmp_path / "own.csv")


@pytest.mark.parametrize("target", ["grade", "grade = mild"])
def test_words_that_count_as_empty_cells_are_named(tmp_path: Path, target: str) -> None:
    frame = rows().assign(grade=["null", "mild", "severe", "", "n/a", "mild"] * 10)
    frame.to_csv(tmp_path / "own.csv", index=False)
    task = Task(kind="multiclass" if target == "grade" else "binary", target=target)
    with pytest.warns(CohortWarning, match=r"grade.*10 .*null.*10 .*n/a"):
        assert len(open_cohort(tmp_path / "own.csv", task=task)) == 30


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    for file in (outside / "deep" / "a.hea", root / "real" / "b.hea"):
        file.parent.mkdir(parents=True)
        file.write_text(f"{file.stem} 1 500 5000\nx.dat 16 1000/mV 16 0 0 0 0 I\n")
    (root / "out").symlink_to(outside)
    (root / "again").symlink_to(root / "real")
    (outside / "deep" / "circle").symlink_to(root)
    (root / "broken.dcm").symlink_to(tmp_path / "nothing")
    with pytest.warns(CohortWarning, match="broken.dcm"):
        cohort = open_cohort(root)
    assert cohort.ids().tolist() == ["out/deep/a", "real/b"]


def test_neither_folder_nor_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    for name in ("x.txt", "absent"):
        with pytest.raises(CohortError, match=name):
            open_cohort(tmp_path / name)
    with pytest.raises(CohortError, match=r"absent\.csv"):
        open_cohort(tmp_path / "absent.csv")


def test_a_table_without_labels_is_there_to_be_pretrained_on(tmp_path: Path) -> None:
    frame = rows()[["path", "patient"]]
    frame.assign(age=50, sex=1).to_csv(tmp_path / "own.csv", index=False)
    cohort = open_cohort(tmp_path / "own.csv")
    assert (cohort.task, cohort.labels) == ("unlabelled", ())
    assert cohort.matrix.shape == (60, 0)
    sizes = [len(cohort.ids(split)) for split in SPLITS]
    assert sizes == [54, 6, 0]
    assert not set(cohort.patients("train")) & set(cohort.patients("validation"))
    explicit = frame.assign(split=["train"] * 50 + ["test"] * 10)
    explicit.to_csv(tmp_path / "split.csv", index=False)
    assert len(open_cohort(tmp_path / "split.csv").ids("test")) == 10


def test_a_data_frame_is_a_table(tmp_path: Path) -> None:
    frame = rows().assign(patient=[i // 2 for i in range(60)]).set_index(pd.RangeIndex(100, 160))
    frame.to_csv(tmp_path / "own.csv", index=False)
    file, memory = open_cohort(tmp_path / "own.csv"), open_cohort(frame, root=tmp_path)
    assert memory.digest == file.digest
    assert memory.paths() == file.paths()
    assert open_cohort(frame).paths()[0] == Path("r/000")
    with pytest.raises(CohortError, match="'patient'"):
        open_cohort(frame.drop(columns="patient"))
    with pytest.raises(CohortError, match=r"\['path'\]"):
        open_cohort(frame.assign(path=None))


def test_a_task_of_a_table_is_refused(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "own.csv", index=False)
    for source in (tmp_path / "own.csv", rows()):
        with pytest.raises(CohortError, match="task"):
            open_cohort(source, task="superclass-5")


def test_without_labels_other_columns_and_patients_do_not_matter() -> None:
    frame = rows().assign(notes="x")
    assert open_cohort(frame, labels=[]).labels == ()
    alone = open_cohort(frame.drop(columns="patient"), labels=[])
    assert alone.patients().tolist() == frame["path"].tolist()


def test_ages_in_other_units_than_years() -> None:
    ages = ["3M", "12 M", "0.5 years", "18 months", "003m", "26.089286 wk", "365.25 D", "40"]
    years = [0.25, 1, 0.5, 1.5, 0.25, 0.5, 1, 40]
    read = open_cohort(rows(8).assign(age=ages)).metadata()["age"]
    np.testing.assert_allclose(read, years, rtol=1e-6)
    with pytest.warns(CohortWarning, match="2 of 3"):  # a man of 35 years, and a woman
        read = open_cohort(rows(3).assign(age=["35M", "35F", "35y"])).metadata()["age"]
    np.testing.assert_array_equal(read, [np.nan, np.nan, 35])


@pytest.mark.parametrize(
    ("cells", "years"),
    [
        (["35M", "40M", "71 m"], [np.nan] * 3),  # men, or children
        (["35", "35M", "3 months"], [35, np.nan, 0.25]),
        (["35M", "6F", "035M"], [np.nan] * 3),
        (["6M", "5Y", "7D"], [0.5, 5, 7 / 365.25]),
        (["035M", "036M", "012M"], [35 / 12, 3, 1]),  # as DICOM writes months
    ],
)
@pytest.mark.filterwarnings("always::einthoven.cohorts.cohort.CohortWarning")
def test_months_and_men(
    cells: list[str], years: list[float], recwarn: pytest.WarningsRecorder
) -> None:
    read = open_cohort(rows(3).assign(age=cells)).metadata()["age"]
    np.testing.assert_allclose(read, years, rtol=1e-6)
    assert len(recwarn) == np.isnan(read).any()


NAMES = ["NA", "nan", "null", "None", "1e5", "007", "N/A", "#N/A", "NULL", "<NA>"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_identifiers_are_text(tmp_path: Path, suffix: str) -> None:
    """Only an empty cell is missing; a label may have such a name as well."""
    frame = rows(10).assign(patient=NAMES, record=NAMES[::-1], path=NAMES, fold=range(10))
    frame = frame.rename(columns={"AFIB": "NA", "STEMI": "1e5"})
    file = tmp_path / f"own{suffix}"
    frame.to_csv(file, index=False) if suffix == ".csv" else frame.to_parquet(file)
    cohort = open_cohort(file)
    assert cohort.patients().tolist() == NAMES
    assert cohort.ids().tolist() == NAMES[::-1]
    assert [path.name for path in cohort.paths()] == [Path(name).name for name in NAMES]
    assert cohort.labels == ("NA", "1e5")
    frame.loc[3, "patient"] = ""
    frame.to_csv(file, index=False) if suffix == ".csv" else frame.to_parquet(file)
    with pytest.raises(CohortError, match="patient"):
        open_cohort(file)


def test_a_patient_of_several_records_called_na_is_named() -> None:
    patients = ["NA", "NA", *(f"p{i}" for i in range(58))]
    with pytest.warns(CohortWarning, match="2 records.*'NA'"):
        open_cohort(rows().assign(patient=patients))


def test_none_is_a_class_among_words_and_missing_among_numbers(tmp_path: Path) -> None:
    frame = rows().assign(grade=["None", "mild", "severe"] * 20, lvef=["None", "55", "NA"] * 20)
    frame["AFIB"], frame["flag"] = ["None", "1", "0"] * 20, ["None", "True", "NA"] * 20
    frame.to_csv(tmp_path / "own.csv", index=False)
    graded = open_cohort(tmp_path / "own.csv", task=Task(kind="multiclass", target="grade"))
    assert graded.labels == ("None", "mild", "severe")
    assert len(graded) == 60
    for target, records in (("lvef <= 40", 20), ("AFIB", 40)):
        assert len(open_cohort(tmp_path / "own.csv", task=Task(target=target))) == records
    with pytest.warns(CohortWarning, match=r"flag.*20 .*None"):
        assert len(open_cohort(tmp_path / "own.csv", task=Task(target="flag"))) == 20


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_ages_are_read_with_a_unit_and_with_spaces(tmp_path: Path, suffix: str) -> None:
    ages = ["88.0 y", " 88 ", "61", "61.5 Years", "", "088Y"] * 10
    file = tmp_path / f"own{suffix}"
    frame = rows().assign(age=ages)
    frame.to_csv(file, index=False) if suffix == ".csv" else frame.to_parquet(file)
    read = open_cohort(file).metadata()["age"].to_numpy()
    np.testing.assert_array_equal(read[:6], [88, 88, 61, 61.5, np.nan, 88])


@pytest.mark.parametrize(
    ("column", "value"),
    [*(("age", age) for age in ("6 moons", "-1", "1950", "unknown")), ("date", "31.12.1999")],
)
def test_unreadable_ages_and_dates_count_as_missing_with_a_warning(column: str, value: str) -> None:
    good = "61" if column == "age" else "1999-12-31 10:00:00"
    frame = rows().assign(**{column: [good] * 58 + [value] * 2})
    with pytest.warns(CohortWarning) as caught:
        read = open_cohort(frame).metadata()[column]
    assert all(part in str(caught[0].message) for part in (column, repr(value), "2 of 60"))
    assert read.iloc[0] in (61.0, "1999-12-31")
    assert pd.isna(read.iloc[58]) or read.iloc[58] == ""


def test_ages_stay_as_they_are_up_to_120() -> None:
    """300, PTB-XL's code for an age above 89, is a code in PTB-XL only."""
    ages = np.arange(60.0)
    ages[[0, 1, 2, 3]] = np.nan, 300, 121, 120
    with pytest.warns(CohortWarning, match=r"age.*300.*2 of 60"):
        read = open_cohort(rows().assign(age=ages, device="A")).metadata()
    ages[[1, 2]] = np.nan
    np.testing.assert_array_equal(read["age"], ages)
    assert set(read["device"]) == {"A"}
