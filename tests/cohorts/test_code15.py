"""CODE-15 % and CODE-test, in folders that the tests write."""

from __future__ import annotations

from pathlib import Path

import pytest
from array_files import CODE_TEST, code15

from einthoven.cohorts import layout_of, open_cohort
from einthoven.cohorts.code15 import ABNORMALITIES, LAYOUT
from einthoven.errors import CohortError
from einthoven.records import read_record

EXAMS = """exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,death,timey,\
normal_ecg,trace_file
4,72,True,70.1,False,True,False,False,False,True,900,,,False,exams_part0.hdf5
17,38,False,40.2,False,False,False,False,False,False,901,False,1.5,True,exams_part0.hdf5
5,50,False,40.2,True,False,False,False,False,False,901,,,False,exams_part1.hdf5
6,50,False,40.2,True,False,False,False,False,False,902,,,False,exams_part2.hdf5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two of three parts; exam 5 is not in its part, and exam 4 is in a folder."""
    (tmp_path / "exams.csv").write_text(EXAMS)
    (tmp_path / "exams_part0").mkdir()
    code15(tmp_path / "exams_part0" / "exams_part0.hdf5", (17, 4, 0))
    code15(tmp_path / "exams_part1.hdf5", (7, 8, 0))
    return tmp_path


def test_the_exams_that_are_there(folder: Path) -> None:
    assert layout_of(folder) is LAYOUT
    cohort = open_cohort(folder)
    assert cohort.ids().tolist() == ["4", "17"]
    assert cohort.patients().tolist() == ["900", "901"]
    assert cohort.labels == ABNORMALITIES
    assert cohort.targets().tolist() == [[0, 1, 0, 0, 0, 1], [0] * 6]
    assert cohort.metadata()["sex"].tolist() == ["male", "female"]
    assert cohort.metadata()["age"].tolist() == [72, 38]
    assert cohort.left_out == {"in a part that is not there": 1, "not in its part": 1}
    assert (cohort.name, cohort.version, cohort.licence.id) == ("code-15", "", "CC-BY-4.0")
    assert not cohort.has_splits
    assert [read_record(path).name for path in cohort.paths()] == ["4", "17"]


def test_tasks(folder: Path) -> None:
    assert open_cohort(folder, "all-7").targets()[:, -1].tolist() == [0, 1]
    assert set(open_cohort(folder, "statements").labels) == {
        "1AVB", "RBBB", "LBBB", "SBRAD", "STACH", "AFIB", "NORM",
    }  # fmt: skip
    with pytest.raises(CohortError):
        open_cohort(folder, "all-71")


def test_parts_that_were_not_unpacked(folder: Path) -> None:
    (folder / "exams_part0" / "exams_part0.hdf5").unlink()
    with pytest.raises(CohortError) as caught:
        open_cohort(folder)
    assert "exams_part*.zip" in caught.value.remedy
    (folder / "exams_part1.hdf5").write_bytes(b"cut off")
    with pytest.raises(CohortError):
        open_cohort(folder)


def test_other_tables_named_exams(tmp_path: Path) -> None:
    (tmp_path / "exams.csv").write_text("exam_id,age\n4,72\n")
    assert not LAYOUT.recognises(tmp_path)
    assert not LAYOUT.recognises(tmp_path / "exams.csv")


@pytest.fixture
def code_test(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    rows = "1dAVb,RBBB,LBBB,SB,AF,ST\n0,0,0,0,1,0\n0,0,0,0,0,1\n0,0,0,0,0,0\n"
    (tmp_path / "annotations" / "gold_standard.csv").write_text(rows)
    (tmp_path / "attributes.csv").write_text("age,sex\n34,M\n70,F\n52,F\n")
    code15(tmp_path / "ecg_tracings.hdf5", None, order=CODE_TEST)
    return tmp_path


def test_code_test(code_test: Path) -> None:
    """Its columns of AF and ST come in another order than CODE-15's, and its leads too."""
    cohort = open_cohort(code_test)
    assert (cohort.name, cohort.labels) == ("code-test", ABNORMALITIES)
    assert cohort.ids("test").tolist() == ["0", "1", "2"]
    assert cohort.targets()[:, -2:].tolist() == [[0, 1], [1, 0], [0, 0]]
    assert cohort.metadata()["sex"].tolist() == ["male", "female", "female"]
    assert read_record(cohort.paths()[0]).leads == CODE_TEST
    assert "RBBB" in open_cohort(code_test, "statements").labels
    with pytest.raises(CohortError):
        open_cohort(code_test, "all-7")


def test_rows_that_are_not_the_same_exams(code_test: Path) -> None:
    (code_test / "attributes.csv").write_text("age,sex\n34,M\n70,F\n")
    with pytest.raises(CohortError):
        open_cohort(code_test)
