"""The data set of Shandong Provincial Hospital, in a folder that the test writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from array_files import sound_h5

from einthoven.cohorts import layout_of, open_cohort
from einthoven.cohorts.sph import LAYOUT
from einthoven.errors import CohortError
from einthoven.records import read_record

METADATA = """ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date
A00001,22;23,S00001,55,M,5000,2020-03-04
A00002,1;1,S00002,32,F,6000,2019-09-03
A00003,60+310;147,S00001,63,M,6500,2020-07-16
A00004,22,S00003,31,F,5000,2020-07-14
"""
CODES = """Category,Code,Description
A,1,Normal ECG
C,22,Sinus bradycardia
C,23,Sinus arrhythmia
F,60,Ventricular premature complex(es)
L,147,T-wave abnormality
H,88,"AV block, complete (third-degree)"
Modifier,310,Frequent
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "metadata.csv").write_text(METADATA)
    (tmp_path / "code.csv").write_text(CODES)
    (tmp_path / "records").mkdir()
    for name in ("A00001", "A00002", "A00003"):
        sound_h5(tmp_path / "records", f"{name}.h5")
    return tmp_path


def test_primary_statements(folder: Path) -> None:
    assert layout_of(folder) is LAYOUT
    cohort = open_cohort(folder)
    assert cohort.labels == ("1", "22", "23", "60", "147", "88")
    assert cohort.ids().tolist() == ["A00001", "A00002", "A00003"]
    assert cohort.patients().tolist() == ["S00001", "S00002", "S00001"]
    expected = [[0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]]
    assert cohort.targets().tolist() == expected
    assert cohort.left_out == {"without a file": 1}
    assert cohort.descriptions["88"] == "AV block, complete (third-degree)"
    metadata = cohort.metadata()
    assert metadata["sex"].tolist() == ["male", "female", "male"]
    assert metadata["date"].tolist() == ["2020-03-04", "2019-09-03", "2020-07-16"]
    assert cohort.licence.id == "CC-BY-4.0"
    assert read_record(cohort.paths()[0]).rate == 500


def test_modified_statements(folder: Path) -> None:
    cohort = open_cohort(folder, "modified")
    assert cohort.labels[-1] == "60+310"
    assert cohort.targets()[:, -1].tolist() == [0, 0, 1]
    assert cohort.descriptions["60+310"] == "Ventricular premature complex(es): Frequent"


def test_statements_of_the_map(folder: Path) -> None:
    positives = open_cohort(folder, "statements").counts().sum(axis=1)
    assert positives[positives > 0].to_dict() == {
        "NORM": 1, "SBRAD": 1, "SARRH": 1, "PVC": 1, "T-WAVE": 1,
    }  # fmt: skip


@pytest.mark.parametrize("codes", ["999", "22;", "310", "22+23x"])
def test_codes_that_are_not_listed(folder: Path, codes: str) -> None:
    text = METADATA.replace("22;23", codes)
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(CohortError):
        open_cohort(folder)


def test_records_that_were_not_unpacked(folder: Path) -> None:
    for file in (folder / "records").iterdir():
        file.unlink()
    with pytest.raises(CohortError) as caught:
        open_cohort(folder)
    assert "tar -xf" in caught.value.remedy
    with pytest.raises(CohortError):
        open_cohort(folder, "all")
