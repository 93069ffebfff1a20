"""MIMIC-IV-ECG and LUDB: small folders in their layout, which the tests write."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from einthoven.cohorts import Cohort, layout_of, ludb, mimic_iv_ecg, open_cohort
from einthoven.cohorts.mimic_iv_ecg import sentences_of
from einthoven.errors import CohortError

REPORTS = {
    "40": ("10", ["Sinus rhythm with PVC(s)", "Left axis deviation.", "Abnormal ECG"]),
    "41": ("10", ["Sinus rhythm", "Possible inferior infarct with posterior extension"]),
    "42": ("11", ["Atrial fibrillation", "Inferior infarct - age undetermined", "Abnormal ECG"]),
    "43": ("12", []),
}


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    records = [
        {
            "subject_id": subject,
            "study_id": study,
            "file_name": study,
            "ecg_time": "2180-07-23 08:44:00",
            "path": f"files/p10/p{subject}/s{study}/{study}",
        }
        for study, (subject, _) in REPORTS.items()
    ]
    pd.DataFrame(records).to_csv(tmp_path / "record_list.csv", index=False)
    measured = [
        {"subject_id": subject, "study_id": study, "rr_interval": 1000}
        | {f"report_{i}": dict(enumerate(lines)).get(i, "") for i in range(18)}
        for study, (subject, lines) in reversed(REPORTS.items())
    ]
    pd.DataFrame(measured).to_csv(tmp_path / "machine_measurements.csv", index=False)
    return tmp_path


def positives(cohort: Cohort) -> dict[str, list[str]]:
    ids = cohort.ids()
    columns = cohort.matrix.T.astype(bool)
    return {name: ids[has].tolist() for name, has in zip(cohort.labels, columns, strict=True)}


def test_mimic_sentences(mimic: Path) -> None:
    assert layout_of(mimic) is mimic_iv_ecg.LAYOUT
    cohort = open_cohort(mimic)
    assert positives(cohort) == {
        "abnormal ecg": ["40", "42"],
        "atrial fibrillation": ["42"],
        "inferior infarct": ["42"],
        "left axis deviation": ["40"],
        "possible inferior infarct with posterior extension": ["41"],
        "pvc(s)": ["40"],
        "sinus rhythm": ["40", "41"],
    }
    assert cohort.patients().tolist() == ["10", "10", "11"]
    assert cohort.table.loc["40", "split"] == cohort.table.loc["41", "split"]
    assert cohort.paths()[0] == mimic / "files/p10/p10/s40/40"
    assert cohort.left_out == {"without a label of the task": 1}
    assert cohort.licence.id == "ODbL-1.0"
    assert len(open_cohort(mimic, empty_rows="keep")) == 4
    assert open_cohort(mimic, min_records=2).labels == ("abnormal ecg", "sinus rhythm")


def test_mimic_statements(mimic: Path) -> None:
    cohort = open_cohort(mimic, "statements")
    assert positives(cohort) == {
        "SR": ["40", "41"], "AFIB": ["42"], "PVC": ["40"], "IMI": ["42"], "LAD": ["40"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("  Sinus   Rhythm. ", ["sinus rhythm"]),
        ("RBBB with left anterior fascicular block", ["rbbb", "left anterior fascicular block"]),
        ("Anterior infarct, age indeterminate", ["anterior infarct"]),
        ("Consider RBBB with PVCs", ["consider rbbb with pvcs"]),
        ("---", []),
        ("", []),
    ],
)
def test_lines_of_a_report(line: str, sentences: list[str]) -> None:
    assert sentences_of(line) == sentences


def test_mimic_tables_that_do_not_fit(mimic: Path) -> None:
    for column in ("path", "study_id"):
        table = pd.read_csv(mimic / "record_list.csv", dtype=str)
        table.drop(columns=column).to_csv(mimic / "record_list.csv", index=False)
        with pytest.raises(CohortError, match=column):
            open_cohort(mimic)
        pd.concat([table, table.head(1)]).to_csv(mimic / "record_list.csv", index=False)
        with pytest.raises(CohortError, match="study 40"):
            open_cohort(mimic)
        table.to_csv(mimic / "record_list.csv", index=False)
    with pytest.raises(CohortError, match="all-71"):
        open_cohort(mimic, "all-71")


@pytest.fixture
def lobachevsky(tmp_path: Path) -> Path:
    rows = pd.DataFrame(
        {"ID": [1, 2, 3], "Sex": ["F\n", "M\n", "M"], "Age": ["64\n", ">89\n", "51"]}
    )
    for name in ludb.COLUMNS.values():
        rows[name] = ""
    rows["Rhythms"] = ["Sinus bradycardia\n", "Sinus rhythm\n", "Atrial fibrillation\n"]
    rows["Electric axis of the heart"] = [
        "Electric axis of the heart: left axis deviation\n",
        "",
        "",
    ]
    rows["Conduction abnormalities"] = ["", "I degree AV block\nLeft anterior hemiblock\n", ""]
    rows.to_csv(tmp_path / "ludb.csv", index=False)
    return tmp_path


def test_ludb(lobachevsky: Path) -> None:
    assert layout_of(lobachevsky) is ludb.LAYOUT
    cohort = open_cohort(lobachevsky)
    assert positives(cohort) == {
        "Atrial fibrillation": ["3"],
        "Electric axis of the heart: left axis deviation": ["1"],
        "I degree AV block": ["2"],
        "Left anterior hemiblock": ["2"],
        "Sinus bradycardia": ["1"],
        "Sinus rhythm": ["2"],
    }
    assert cohort.paths()[0] == lobachevsky / "data" / "1"
    table = cohort.metadata()
    assert table["age"].fillna(0).tolist() == [64, 0, 51]
    assert table["sex"].tolist() == ["female", "male", "male"]


def test_ludb_tasks(lobachevsky: Path) -> None:
    assert open_cohort(lobachevsky, "conduction").ids().tolist() == ["2"]
    assert set(open_cohort(lobachevsky, "statements").labels) == {
        "SR", "SBRAD", "AFIB", "1AVB", "LAFB", "LAD",
    }  # fmt: skip
    with pytest.raises(CohortError, match="waves"):
        open_cohort(lobachevsky, "waves")
