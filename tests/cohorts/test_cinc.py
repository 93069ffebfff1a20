"""Folders of the PhysioNet/CinC Challenges: headers that the tests write, and real samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from einthoven.cohorts import cinc, layout_of, open_cohort
from einthoven.cohorts.cinc import LAYOUT, scored
from einthoven.cohorts.cohort import CohortWarning
from einthoven.errors import CohortError
from einthoven.tasks import Task

AF, RBBB, CRBBB, LVH, UNKNOWN = "164889003", "59118001", "713427006", "164873001", "999"
HEADERS = {
    "training/g1/E00001": ("#Age: 74\n#Sex: Male\n#Dx: 164889003,59118001\n#Rx: Unknown\n"),
    "training/g1/E00002": ("# Age: NaN\n# Sex: F\n# Dx: 713427006\n"),
    "training/g2/E00003": ("#Age: Unknown\n#Sex: NaN\n#Dx: 164873001, 999\n"),
    "other/Q0001": ("#Age: 9\n#Sex: female\n#Dx: \n"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, comments in HEADERS.items():
        header = tmp_path / f"{name}.hea"
        header.parent.mkdir(parents=True, exist_ok=True)
        record = header.stem
        signal = f"{record}.mat 16+24 1000/mV 16 0 0 0 0 I"
        header.write_text(f"{record} 1 500 5000 12-May-2020 12:33:59\n{signal}\n{comments}")
    return tmp_path


pytestmark = pytest.mark.filterwarnings("ignore::einthoven.cohorts.cohort.CohortWarning")


def test_the_scored_classes() -> None:
    """Reyna et al. 2021: 30 codes, four pairs; Perez Alday et al. 2020: 27 codes, three pairs."""
    classes = scored("cinc-2021")
    assert len(classes) == 26
    assert len({code for codes in classes.values() for code in codes}) == 30
    assert set(classes["CRBBB|RBBB"]) == {CRBBB, RBBB}
    assert len(scored("cinc-2020")) == 24
    assert sum(map(len, scored("cinc-2020").values())) == 27


def test_pairs_are_one_class(folder: Path) -> None:
    assert layout_of(folder) is LAYOUT
    cohort = open_cohort(folder)
    assert cohort.ids().tolist() == [name for name in sorted(HEADERS) if "Q0001" not in name]
    positives = cohort.counts().sum(axis=1)
    assert positives[positives > 0].to_dict() == {"AF": 1, "CRBBB|RBBB": 2}
    assert cohort.left_out == {"without a label of the task": 1}
    assert cohort.licence.id == "CC-BY-4.0"
    assert not cohort.has_splits


def test_targets_of_a_table_are_no_task_of_the_folder(folder: Path) -> None:
    with pytest.raises(CohortError, match="age") as error:
        open_cohort(folder, Task(kind="regression", target="age", unit="years"))
    assert "path" in error.value.remedy
    with pytest.raises(CohortError, match="no-task"):
        open_cohort(folder, "no-task")


def test_all_codes(folder: Path) -> None:
    cohort = open_cohort(folder, "all", empty_rows="keep")
    assert set(cohort.labels) == {AF, RBBB, CRBBB, LVH, UNKNOWN}
    assert cohort.descriptions[AF] == "atrial fibrillation"
    assert UNKNOWN not in cohort.descriptions
    with pytest.raises(CohortError):
        open_cohort(folder, "all", min_records=2)


def test_age_and_sex(folder: Path) -> None:
    table = open_cohort(folder, empty_rows="keep").metadata()
    assert table["sex"].tolist() == ["female", "male", "female", ""]
    assert table["age"].tolist()[:2] == [9, 74]
    assert table["age"].isna().tolist() == [False, False, True, True]


def test_statements_of_the_map(folder: Path) -> None:
    cohort = open_cohort(folder, "statements")
    assert cohort.task == "statements"
    assert cohort.counts().sum(axis=1).to_dict() == {"AFIB": 1, "CRBBB": 2, "LVH": 1}


def test_folders_and_hidden_files_are_no_headers(folder: Path) -> None:
    (folder / "other" / "E9.hea").mkdir()
    (folder / "other" / "._Q0001.hea").write_bytes(b"\x00\x05\x16\x07")
    assert len(open_cohort(folder, empty_rows="keep")) == len(HEADERS)


def test_wfdb_records_without_codes_are_a_folder(tmp_path: Path) -> None:
    (tmp_path / "one.hea").write_text("one 1 500 5000\none.dat 16 1000/mV 16 0 0 0 0 I\n#Age: 5\n")
    (tmp_path / "two.hea").mkdir()
    assert layout_of(tmp_path) is not LAYOUT


def test_stray_files_are_named_and_unlabelled(folder: Path) -> None:
    alone = open_cohort(folder)
    (folder / "labels.csv").write_text("path,AF\na,1\n")
    (folder / "Dx.hea").write_text("Dx 1 500 5000\nDx.dat 16 1000/mV 16 0 0 0 0 I\n#Age: 5\n")
    (folder / "ecg.dcm").write_bytes(b"\0" * 128 + b"DICM")
    assert layout_of(folder) is LAYOUT
    with pytest.warns(CohortWarning, match="Dx, ecg.dcm"):
        cohort = open_cohort(folder)
    assert cohort.ids().tolist() == alone.ids().tolist()
    assert cohort.left_out == {"without a label of the task": 3}
    every = open_cohort(folder, empty_rows="keep")  # as it is packed, predicted and pretrained on
    assert every.ids().tolist() == sorted([*HEADERS, "Dx", "ecg.dcm"])
    assert every.metadata().loc["Dx", "age"] == 5


def test_a_few_headers_with_codes_do_not_decide(folder: Path) -> None:
    for number in range(len(HEADERS)):
        (folder / f"x{number}.hea").write_text(f"x{number} 1 500 5000\nx.dat 16 1 16 0 0 0 0 I\n")
    assert layout_of(folder) is not LAYOUT


def test_headers_among_files_of_other_formats_do_not_decide(folder: Path) -> None:
    for number in range(len(list(folder.rglob("*.hea")))):
        (folder / f"{number}.dcm").touch()
    assert layout_of(folder) is not cinc.LAYOUT


def test_recognition_reads_few_headers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (folder / "training" / "g2" / "E00003.hea").read_text()
    for number in range(100):
        (folder / f"E{number}.hea").write_text(text)
    opened = []
    monkeypatch.setattr(
        cinc, "_read", lambda file: opened.append(file) or cinc._Head(codes=frozenset())
    )
    assert layout_of(folder) is LAYOUT
    assert len(opened) <= 20


def test_patients_are_unknown(folder: Path) -> None:
    (folder / "training" / "g1" / "E00001.hea").rename(folder / "HR00001.hea")
    with pytest.warns(CohortWarning, match="1 records"):
        open_cohort(folder)


def test_patients_that_headers_name_stay_together(folder: Path) -> None:
    """By the line that `convert-ecg` writes; `# patient: ...` is another comment."""
    names = {"training/g1/E00001": "17", "training/g1/E00002": "17.0", "other/Q0001": "8"}
    for name, patient in names.items():
        with (folder / f"{name}.hea").open("a") as header:
            header.write(f"#patient: {patient}\n")
    with (folder / "training/g2/E00003.hea").open("a") as header:
        header.write("# patient: of Dr. Q\n")
    with pytest.warns(CohortWarning, match="1 of 4"):
        cohort = open_cohort(folder, "all", empty_rows="keep")
    patients = dict(zip(cohort.ids().tolist(), cohort.patients().tolist(), strict=True))
    assert patients == {
        "training/g1/E00001": "17",
        "training/g1/E00002": "17",
        "training/g2/E00003": "training/g2/E00003",
        "other/Q0001": "8",
    }


def test_an_unknown_task(folder: Path) -> None:
    with pytest.raises(CohortError, match="all-71"):
        open_cohort(folder, "all-71")


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("georgia", {"426783006": 3, "426177001": 1, "425623009": 1, "164934002": 1, LVH: 1}),
        ("cpsc2018", {AF: 2, "426783006": 1, RBBB: 1}),
        ("cpsc_extra", {"164861001": 2, "164867002": 2, "427084000": 1, "428750005": 2}),
        ("ptb", {"164865005": 1, "251146004": 1, "426783006": 2}),
    ],
)
def test_real_headers(shared: Path, name: str, codes: dict[str, int]) -> None:
    folder = shared / "data" / "samples" / name
    cohort = open_cohort(folder, "all")
    assert cohort.counts().sum(axis=1).to_dict() == codes
    assert all(path.with_suffix(".mat").is_file() for path in cohort.paths())
