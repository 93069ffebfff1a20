"""`einthoven convert-ecg`: formats, identities, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import channel, code, counts, data_set, group, limb_leads, write
from pydicom import dcmread
from pydicom.dataset import Dataset

from einthoven.cohorts import open_cohort
from einthoven.cohorts.cohort import CohortWarning
from einthoven.cohorts.convert import convert
from einthoven.errors import CohortError
from einthoven.files import lock_for, locked
from einthoven.records import read_record
from einthoven.records.formats import suffixes
from einthoven.records.wfdb import write_wfdb

Cli = Callable[..., Any]
SECRETS = (
    "Doe",
    "Jane",
    "MRN4711",
    "19530508",
    "20240517",
    "Galliera",
    "Cart",
    "rhythm",
    "2.25.7777777777777777",
)


def text_annotation(text: str) -> Dataset:
    item = Dataset()
    item.AnnotationGroupNumber, item.UnformattedTextValue = 1, text
    return item


def ecg(path: Path, patient: str = "MRN4711", *, seed: int = 5, **elements: Any) -> Path:
    """DICOM file full of identities."""
    path.parent.mkdir(parents=True, exist_ok=True)
    given = {
        "PatientName": "Doe^Jane",
        "PatientID": patient,
        "PatientBirthDate": "19530508",
        "PatientSex": "F",
        "PatientAge": "093Y",
        "AcquisitionDateTime": "20240517093000",
        "InstitutionName": "Galliera",
        "Manufacturer": "Cart of Doe",
        "SOPInstanceUID": "2.25.7777777777777777",
        "WaveformAnnotationSequence": [text_annotation("Sinus rhythm, Jane Doe")],
    }
    dataset = data_set(group(counts(600, seed=seed), limb_leads()), **(given | elements))
    return write(path, dataset)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Folder of three ECGs of two patients."""
    folder = tmp_path / "export"
    ecg(folder / "ward 1" / "Doe_Jane.dcm")
    ecg(folder / "ward 1" / "second.dcm", seed=6)
    ecg(folder / "other.dcm", "MRN0815", seed=7, PatientSex="M", PatientAge="041Y")
    return folder


def all_bytes(folder: Path) -> bytes:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return b"".join(str(file.relative_to(folder)).encode() + file.read_bytes() for file in files)


# ---------------------------------------------------------------------- formats


@pytest.mark.parametrize(("to", "suffix"), [("wfdb", ".hea"), ("dicom", ".dcm"), ("csv", ".csv")])
def test_signals_and_statements_survive(
    to: str, suffix: str, cli: Cli, export: Path, tmp_path: Path
) -> None:
    if suffix not in suffixes():
        pytest.skip(f"no reader of {suffix} files")
    out = tmp_path / "new" / "ecgs"
    cli("convert-ecg", export, out, "--to", to)
    table = pd.read_csv(out / "ecgs.csv", dtype=str)
    assert table.columns.tolist() == ["path", "patient", "age", "sex"]
    assert sorted(table["path"]) == [
        f"other{suffix}", f"ward 1/Doe_Jane{suffix}", f"ward 1/second{suffix}"
    ]  # fmt: skip
    assert sorted(table["patient"]) == ["MRN0815", "MRN4711", "MRN4711"]
    before, after = read_record(export / "other.dcm"), read_record(out / f"other{suffix}")
    np.testing.assert_array_equal(after.signal, before.signal)
    assert (after.rate, after.leads) == (before.rate, before.leads)
    assert before.metadata.items() <= after.metadata.items()
    cohort = open_cohort(out / "ecgs.csv", labels=())
    assert len(cohort) == 3
    assert not list(out.parent.glob("*.refused.csv"))
    assert sorted(path.name for path in out.parent.iterdir()) == ["ecgs"]


def test_files_of_one_name(cli: Cli, tmp_path: Path) -> None:
    ecg(tmp_path / "a.dcm")
    write_wfdb(tmp_path / "A", counts(300, 2).T / 1000, rate=250, leads=["I", "II"])
    ecg(tmp_path / "ecgs.dcm")
    cli(
        "convert-ecg", tmp_path / "a.dcm", tmp_path / "A.hea", tmp_path / "ecgs.dcm", tmp_path / "o"
    )
    table = pd.read_csv(tmp_path / "o" / "ecgs.csv")
    assert table["path"].tolist() == ["a.hea", "A-2.hea", "ecgs-2.hea"]
    assert read_record(tmp_path / "o" / "A-2.hea").rate == 250
    assert table["patient"].tolist() == ["MRN4711", "A-2", "MRN4711"]


@pytest.mark.parametrize("to", ["wfdb", "dicom", "csv"])
def test_patients_survive_a_second_conversion(to: str, export: Path, tmp_path: Path) -> None:
    convert([export], tmp_path / "o", to=to)
    (tmp_path / "o" / "ecgs.csv").unlink()  # which also names them
    convert([tmp_path / "o"], tmp_path / "p", to=to)
    table = pd.read_csv(tmp_path / "p" / "ecgs.csv")
    assert sorted(table["patient"]) == ["MRN0815", "MRN4711", "MRN4711"]
    records = [read_record(tmp_path / "p" / path) for path in table["path"]]
    assert [record.patient for record in records] == table["patient"].tolist()
    assert all("patient" not in record.metadata for record in records)


def test_files_that_are_called_by_their_identifiers(cli: Cli, tmp_path: Path) -> None:
    ecg(tmp_path / "in" / "1.2.840.17")
    ecg(tmp_path / "in" / "1.2.840.18")
    cli("convert-ecg", tmp_path / "in", tmp_path / "o")
    table = pd.read_csv(tmp_path / "o" / "ecgs.csv")
    assert table["path"].tolist() == ["1_2_840_17.hea", "1_2_840_18.hea"]
    assert read_record(tmp_path / "in" / "1.2.840.17").name == "1.2.840.17"


def test_columns_of_a_table_stay(cli: Cli, export: Path, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "path": ["other.dcm", "ward 1/second.dcm"],
            "patient": ["007", "8"],
            "record": ["x", "y"],
            "AFIB": [1, 0],
            "lvef": [55.5, None],
            "comment": ["Doe", "none"],
        }
    )
    table.to_csv(export / "labels.csv", index=False)
    cli("convert-ecg", export / "labels.csv", tmp_path / "o", "--to", "dicom")
    new = pd.read_csv(tmp_path / "o" / "ecgs.csv", dtype={"patient": str})
    assert new["patient"].tolist() == ["007", "8"]
    pd.testing.assert_frame_equal(
        new[["record", "AFIB", "lvef", "comment"]], table[["record", "AFIB", "lvef", "comment"]]
    )
    cohort = open_cohort(tmp_path / "o" / "ecgs.csv", labels=["AFIB"])
    assert cohort.targets().ravel().tolist() == [1, 0]


def test_labels_and_splits_of_a_data_set(cli: Cli, synthetic_path: Path, tmp_path: Path) -> None:
    cli("convert-ecg", synthetic_path, tmp_path / "o", "--anonymise")
    before, after = (
        open_cohort(synthetic_path, empty_rows="keep"),
        open_cohort(tmp_path / "o/ecgs.csv"),
    )
    assert after.labels == before.labels
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(
            np.sort(after.targets(split).sum(axis=1)), np.sort(before.targets(split).sum(axis=1))
        )
        assert len(set(after.patients(split))) == len(set(before.patients(split)))


@pytest.mark.parametrize("anonymise", [False, True])
@pytest.mark.filterwarnings("ignore::einthoven.cohorts.cohort.CohortWarning")
def test_unlabelled_records_of_a_data_set(anonymise: bool, tmp_path: Path) -> None:
    folder, signal = tmp_path / "in", counts(300, 2).T / 1000
    stated = {
        "a": ["Age: 74", "Sex: Male", "Dx: 164889003"],
        "b": ["Age: 50", "Sex: F", "Dx: 164873001"],  # known, and none of the labels
        "c": ["Age: 9", "Sex: NaN", "Dx: "],
        "d": ["age: 33", "sex: male"],
    }
    for name, comments in stated.items():
        write_wfdb(folder / name, signal, rate=250, leads=["I", "II"], comments=comments)
    ecg(folder / "e.dcm", PatientAge="041Y")
    convert([folder], tmp_path / "o", to="wfdb", anonymise=anonymise)
    table = pd.read_csv(tmp_path / "o" / "ecgs.csv").set_index("age").sort_index(ascending=False)
    assert table.index.tolist() == [74, 50, 41, 33, 9]
    assert table["sex"].fillna("").tolist() == ["male", "female", "female", "male", ""]
    labels = table.drop(columns=["path", "patient", "sex"])
    assert labels["AF"].fillna(-1).tolist() == [1, 0, -1, -1, -1]
    assert labels.notna().sum(axis=1).tolist() == [26, 26, 0, 0, 0]
    assert open_cohort(tmp_path / "o" / "ecgs.csv").counts().sum().sum() == 1


def test_age_and_sex_of_headers_of_other_spelling(tmp_path: Path) -> None:
    signal = counts(300, 2).T / 1000
    for name, age in {"a": "57", "b": "not known"}.items():
        comments = [f"Age: {age}", "Sex: F"]
        write_wfdb(tmp_path / "in" / name, signal, rate=250, leads=["I", "II"], comments=comments)
    convert([tmp_path / "in"], tmp_path / "o", to="csv")
    table = pd.read_csv(tmp_path / "o" / "ecgs.csv")
    assert table["age"].fillna(-1).tolist() == [57, -1]
    assert table["sex"].tolist() == ["female", "female"]


def test_signals_of_no_step_are_rounded(tmp_path: Path) -> None:
    lead = channel(code("I", "99X"), ChannelBaseline="0.33", ChannelSensitivity="4.9")
    write(tmp_path / "a.dcm", data_set(group(counts(600, 1), [lead])))
    result = convert([tmp_path / "a.dcm"], tmp_path / "o", to="wfdb")
    assert (result.converted, result.rounded, result.step) == (1, 1, 0.1)
    difference = read_record(tmp_path / "o/a").signal - read_record(tmp_path / "a.dcm").signal
    assert 0 < np.abs(difference).max() < 0.051e-3


def test_an_empty_folder_is_filled(cli: Cli, export: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    (out / ".partial").mkdir(parents=True)
    (out / ".partial" / "of_a_killed_conversion.dat").write_bytes(b"")
    before = out.stat().st_ino
    cli("convert-ecg", export / "other.dcm", out)
    assert sorted(path.name for path in out.iterdir()) == ["ecgs.csv", "other.dat", "other.hea"]
    assert out.stat().st_ino == before  # perhaps a mounted disk, or the current folder


# ---------------------------------------------------------------------- refusals


def test_a_bad_file_does_not_stop_the_others(cli: Cli, export: Path, tmp_path: Path) -> None:
    (export / "bad.dcm").write_bytes((export / "other.dcm").read_bytes()[:900])
    result = cli("convert-ecg", export, tmp_path / "o", status=1)
    refused = pd.read_csv(tmp_path / "o.refused.csv")
    assert refused["record"].tolist() == [str(export / "bad.dcm")]
    assert refused[["refused", "remedy"]].notna().all(axis=None)
    assert "o.refused.csv" in result.err
    assert len(pd.read_csv(tmp_path / "o" / "ecgs.csv")) == 3
    (export / "bad.dcm").unlink()
    cli("convert-ecg", export, tmp_path / "p")
    cli("convert-ecg", export, tmp_path / "o", status=1)  # not empty


def test_nothing_is_left_of_a_conversion_without_result(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM")
    result = cli("convert-ecg", tmp_path / "bad.dcm", tmp_path / "gone", tmp_path / "o", status=1)
    assert result.remedies == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.dcm", "o.refused.csv"]
    assert len(pd.read_csv(tmp_path / "o.refused.csv")) == 2


@pytest.mark.parametrize("rate", [100, 5000])
def test_a_rate_that_only_some_formats_allow(rate: int, tmp_path: Path) -> None:
    leads = [f"V{number}" for number in range(1, 10)] + ["I", "II", "III", "X"]
    write_wfdb(tmp_path / "a", counts(600, 13).T / 1000, rate=rate, leads=leads)
    with pytest.raises(CohortError):
        convert([tmp_path / "a.hea"], tmp_path / "o", to="dicom")
    refused = pd.read_csv(tmp_path / "o.refused.csv")
    assert refused["record"].tolist() == [str(tmp_path / "a.hea")]
    assert convert([tmp_path / "a.hea"], tmp_path / "o", to="wfdb").converted == 1
    assert not (tmp_path / "o.refused.csv").exists()


def test_a_place_of_another_conversion_is_refused(export: Path, tmp_path: Path) -> None:
    staging = tmp_path / ".o.partial"
    staging.mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    arguments: dict[str, Any] = {"to": "wfdb", "anonymise": True, "mapping": tmp_path / "map.csv"}
    for taken in ("o", "map.csv"):
        with locked(lock_for(tmp_path / taken)):
            for place in (tmp_path, tmp_path / "link"):
                with pytest.raises(CohortError, match=taken):
                    convert([export], place / "o", **arguments)
            assert staging.is_dir()
    convert([export], tmp_path / "o", **arguments)
    assert not staging.exists()


def test_places_that_are_refused(cli: Cli, export: Path, tmp_path: Path) -> None:
    outside = tmp_path / "map.csv"
    for arguments in (
        (export, export / "o"),
        (export, tmp_path / "o", "--mapping", outside),
        (export, tmp_path / "o", "--anonymise", "--mapping", tmp_path / "o" / "map.csv"),
        (export, tmp_path / "o", "--anonymise", "--mapping", export / "other.dcm"),
        (export, export / "other.dcm"),
        (export, tmp_path / "one.dcm"),
        (tmp_path / "gone", tmp_path / "o"),
    ):
        assert cli("convert-ecg", *arguments, status=1).remedies == 1
    assert cli("convert-ecg", export, tmp_path / "o", "--to", "pdf", status=2)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".csv") == ["export"]
    assert not outside.exists()


# ---------------------------------------------------------------------- identities


@pytest.mark.parametrize("to", ["wfdb", "dicom", "csv"])
def test_nothing_identifies(to: str, cli: Cli, export: Path, tmp_path: Path) -> None:
    if to == "csv" and ".csv" not in suffixes():
        pytest.skip("no reader of CSV files")
    out, mapping = tmp_path / "o", tmp_path / "map.csv"
    assert all(secret.encode() in all_bytes(export) for secret in SECRETS)
    cli("convert-ecg", export, out, "--to", to, "--anonymise", "--mapping", mapping)
    written = all_bytes(out)
    assert [
        secret for secret in (*SECRETS, "MRN0815", "2024-05", "ward") if secret.encode() in written
    ] == []
    table = pd.read_csv(out / "ecgs.csv")
    assert [Path(path).stem for path in table["path"]] == ["1", "2", "3"]
    assert sorted(table["age"]) == [41, 90, 90]
    assert sorted(table["patient"]) in (["P1", "P1", "P2"], ["P1", "P2", "P2"])
    numbers = pd.read_csv(mapping, dtype=str)
    assert numbers["source"].map(lambda path: Path(path).name).sort_values().tolist() == [
        "Doe_Jane.dcm", "other.dcm", "second.dcm"
    ]  # fmt: skip
    assert numbers.groupby("patient")["number"].nunique().tolist() == [1, 1]
    for source, path in zip(numbers["source"], numbers["path"], strict=True):
        before, after = read_record(source), read_record(out / path)
        np.testing.assert_array_equal(after.signal, before.signal)
        assert after.metadata["sex"] == before.metadata["sex"]


def test_numbers_have_no_gaps_and_files_of_many_records_are_converted(
    cli: Cli, export: Path, tmp_path: Path
) -> None:
    record = read_record(export / "other.dcm")
    stated = {"rate": record.rate, "unit": "mV", "leads": np.array(record.leads)}
    np.savez(tmp_path / "two.npz", ecgs=np.stack([record.signal] * 2), **stated)
    bad = [tmp_path / f"{place}.scp" for place in range(7)]
    for path in bad:
        path.write_bytes(b"x" * 300)
    sources = [export / "other.dcm", tmp_path / "two.npz", *bad]
    cli("convert-ecg", *sources, tmp_path / "o", "--anonymise", status=1)
    table = pd.read_csv(tmp_path / "o" / "ecgs.csv", dtype=str)
    assert [Path(path).stem for path in table["path"]] == ["01", "02", "03"]
    assert sorted(table["patient"].str.removeprefix("P")) == ["01", "02", "03"]


@pytest.mark.parametrize("is_anonymous", [True, False])
def test_patients_behind_a_placeholder_stay_distinct(tmp_path: Path, is_anonymous: bool) -> None:
    """Files that another program has anonymised have the same text in place of their patients."""
    patients = ["REMOVED", "removed", "MRN1", "MRN1", "NA"]
    for number, patient in enumerate(patients):
        ecg(tmp_path / "export" / f"{number}.dcm", patient, seed=number)
    with pytest.warns(CohortWarning, match="placeholder.* 3 "):
        convert([tmp_path / "export"], tmp_path / "o", to="wfdb", anonymise=is_anonymous)
    written = pd.read_csv(tmp_path / "o" / "ecgs.csv")
    assert sorted(written["patient"].value_counts()) == [1, 1, 1, 2]
    table = tmp_path / "table.csv"  # a user's own names are no placeholders
    rows = {"path": [f"export/{n}.dcm" for n in range(5)], "patient": ["NA", "x", "NA", "b", "c"]}
    pd.DataFrame(rows).to_csv(table, index=False)
    with pytest.warns(CohortWarning, match="'NA'"):
        convert([table], tmp_path / "p", to="wfdb", anonymise=is_anonymous)
    written = pd.read_csv(tmp_path / "p" / "ecgs.csv", keep_default_na=False)
    assert sorted(written["patient"].value_counts()) == [1, 1, 1, 2]


@pytest.mark.parametrize("to", ["wfdb", "dicom", "csv"])
def test_two_persons_behind_one_identifier_are_named(to: str, tmp_path: Path) -> None:
    """Demonstration files of a vendor: each is a record, and no number tells them apart."""
    paths = ["a/1.dcm", "b/1.dcm", "2.dcm"]
    for path, patient, sex in zip(paths, ("9999", "9999", "17"), "FMF", strict=True):
        ecg(tmp_path / "export" / path, patient, seed=len(path), PatientSex=sex)
    for is_anonymous in (True, False):
        out = tmp_path / str(is_anonymous)
        with pytest.warns(CohortWarning, match="both sexes: 1"):
            convert([tmp_path / "export"], out, to=to, anonymise=is_anonymous)
        written = pd.read_csv(out / "ecgs.csv")
        assert written["path"].nunique() == 3
        assert sorted(written["patient"].value_counts()) == [1, 2]
        assert {read_record(out / path).signal.shape for path in written["path"]} == {(3, 600)}


@pytest.mark.parametrize("arguments", [["--anonymise"], []])
def test_dicom_states_that_identities_were_removed(
    arguments: list[str], cli: Cli, export: Path, tmp_path: Path
) -> None:
    cli("convert-ecg", export / "other.dcm", tmp_path / "o", "--to", "dicom", *arguments)
    dataset = dcmread(next((tmp_path / "o").glob("*.dcm")))
    assert dataset.get("PatientIdentityRemoved") == ("YES" if arguments else None)


def test_columns_that_may_identify_are_left_out(export: Path, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "path": ["other.dcm", "ward 1/second.dcm", "ward 1/Doe_Jane.dcm"],
            "patient": ["a", "b", "b"],
            "record": ["x", "y", "z"],
            "mrn": [100001, 100002, 100003],
            "comment": ["Doe", "", ""],
            "split": ["train", "test", "test"],
            "AFIB": [1, 0, 0],
            "age": ["95 y", "50", ""],
            "sex": ["F", "male", "Jane"],
        }
    )
    table.to_csv(export / "labels.csv", index=False)
    result = convert([export / "labels.csv"], tmp_path / "o", to="wfdb", anonymise=True)
    assert set(result.dropped) == {"record", "mrn", "comment"}
    new = pd.read_csv(tmp_path / "o" / "ecgs.csv")
    assert new.columns.tolist() == ["path", "patient", "age", "sex", "split", "AFIB"]
    assert sorted(new["age"].dropna()) == [50, 90]
    table.assign(age=["95 y", "6 months", "300"]).to_csv(export / "labels.csv", index=False)
    with pytest.warns(CohortWarning, match="300"):
        convert([export / "labels.csv"], tmp_path / "p", to="wfdb", anonymise=True)
    assert sorted(pd.read_csv(tmp_path / "p" / "ecgs.csv")["age"].dropna()) == [0.5, 90, 90]
    assert set(new["sex"].dropna()) == {"female", "male"}
    assert new.loc[new["AFIB"] == 1, "split"].tolist() == ["train"]


def test_a_fold_with_text_and_codes_that_are_not_known(cli: Cli, tmp_path: Path) -> None:
    folds: dict[str, list[object]] = {"a": ["Miller 25", 1], "b": [2, 1]}
    for name, fold in folds.items():
        folder = tmp_path / name
        folder.mkdir()
        write_wfdb(folder / "x", counts(600, 1).T / 1000, rate=500, leads=["I"])
        write_wfdb(folder / "y", counts(600, 1).T / 1000, rate=500, leads=["I"])
        with (folder / "x.hea").open("a") as header:
            header.write("# Dx: 426783006,19551224,Miller\n")
        columns = {"path": ["x", "y"], "patient": ["m", "n"], "split": ["train", "test"]}
        table = pd.DataFrame({**columns, "fold": fold, "Hans_Miller": [0, 1]})
        table.to_csv(folder / "labels.csv", index=False)
        result = convert([folder / "labels.csv"], folder / "o", to="wfdb", anonymise=True)
        assert result.unknown_codes == 2
        assert result.binary_columns == ("Hans_Miller",)
        assert ("fold" in result.dropped) == (name == "a")
        assert b"19551224" not in all_bytes(folder / "o")
    printed = cli("convert-ecg", tmp_path / "a" / "labels.csv", tmp_path / "p", "--anonymise").err
    assert "Hans_Miller" in printed
