"""The predictions table: round trips, checks, refusals."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from einthoven.errors import EvaluationError
from einthoven.files import write_json
from einthoven.predictions import Predictions
from einthoven.predictions.table import DIGEST, METADATA_KEY, NO_DIGEST, run_table, table_file

LABELS = ("NORM", "ISC_", "LAO/LAE", "PRC(S)")


def table(**changes: object) -> Predictions:
    rng = np.random.default_rng(3)
    values: dict[str, object] = {
        "labels": LABELS,
        "records": [f"{i:05d}_hr" for i in range(6)],
        "patients": ["007", "007", "NA", "", "x,y", "12"],
        "targets": rng.integers(0, 2, (6, 4)),
        "probabilities": rng.random((6, 4)),
        "metadata": {"split": "test", "version": "1.0.3"},
    }
    return Predictions(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "deep/er/p.PQ"])
def test_round_trip_keeps_values_and_the_order_of_labels(tmp_path: Path, name: str) -> None:
    saved = table()
    saved.save(tmp_path / name)
    loaded = Predictions.load(tmp_path / name)
    assert loaded.labels == LABELS
    assert loaded.records.tolist() == saved.records.tolist()
    assert loaded.patients.tolist() == saved.patients.tolist()
    assert loaded.targets is not None
    np.testing.assert_array_equal(loaded.targets, saved.targets)
    np.testing.assert_array_equal(loaded.probabilities, saved.probabilities)
    assert loaded.metadata == ({DIGEST: NO_DIGEST} if name.endswith("csv") else saved.metadata)
    assert [p.name for p in (tmp_path / name).parent.iterdir()] == [Path(name).name]


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
def test_columns_are_those_of_the_documented_format(tmp_path: Path, name: str) -> None:
    table().save(tmp_path / name)
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    columns = [
        "record",
        "patient",
        *(f"{k}:{s}" for k in ("target", "probability") for s in LABELS),
    ]
    assert read(tmp_path / name).columns.tolist() == columns


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
def test_targets_may_be_unknown(tmp_path: Path, name: str) -> None:
    table(targets=None).save(tmp_path / name)
    assert Predictions.load(tmp_path / name).targets is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"records": ["a", "b", "a", "c", "d", "e"]}, r": a\b"),
        ({"labels": ("A", "B", "A", "C")}, r": A\b"),
        ({"labels": ("A", "B")}, r"\(6, 4\).*\(6, 2\)"),
        ({"labels": "ABCD"}, "<U4"),
        ({"labels": ("A", "B", "C", "")}, "labels A, B, C, "),
        ({"patients": ["a"]}, "1 patients"),
        ({"records": ["a", "b"], "patients": ["", ""]}, "2 (patients|records)"),
        ({"targets": np.full((6, 4), 2)}, "NORM .*00000_hr .*2"),
        ({"targets": np.zeros((5, 4))}, r"\(5, 4\).*6 records"),
        ({"targets": np.full((6, 4), "1")}, "<U1"),
        ({"probabilities": np.full((6, 4), 1.5)}, r"1\.5.*24 values"),
        ({"probabilities": np.full((6, 4), np.nan)}, "nan"),
        ({"records": np.zeros((6, 1), dtype=int)}, r"\(6, 1\)"),
    ],
)
def test_invalid_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        table(**changes)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        (["record"], "columns record "),
        (["target:ISC_"], "columns target:ISC_ "),
        (["probability:NORM"], "columns probability:NORM "),
        ([f"probability:{s}" for s in LABELS], "probability:NORM, probability:ISC_"),
        ([f"{k}:{s}" for k in ("target", "probability") for s in LABELS], "probability:LABEL"),
    ],
)
def test_the_error_names_missing_columns(
    tmp_path: Path, name: str, dropped: list[str], message: str
) -> None:
    frame = table().to_arrow().to_pandas().drop(columns=dropped)
    if name.endswith("csv"):
        frame.to_csv(tmp_path / name, index=False)
    else:
        frame.to_parquet(tmp_path / name)
    with pytest.raises(EvaluationError, match=message):
        Predictions.load(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("record,patient,probability:A,probability:A\n1,1,0.5,0.5\n", r": probability:A\b"),
        ("record,patient,probability:A\n1,1,high\n", "probability:A hold"),
        ("record,patient,probability:A\n1,1,\n2,1,0.5\n", "A .*1 .*nan"),
        ("record,patient,probability:A\n1,1,nan\n", "probability:A"),
        ("", r"p\.csv"),
        ("record,patient,probability:A\n1,1,0.5\n1,1,0.5,0.5,0.5\n", r"p\.csv"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(EvaluationError, match=message):
        Predictions.load(tmp_path / "p.csv")


def test_a_csv_table_of_another_encoding_is_refused(tmp_path: Path) -> None:
    text = "record,patient,probability:\u00c9\na,p,0.5\n"
    (tmp_path / "p.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(EvaluationError, match=r"p\.csv") as caught:
        Predictions.load(tmp_path / "p.csv")
    assert "UTF-8" in caught.value.remedy


def test_integer_ids_of_another_program_become_names(tmp_path: Path) -> None:
    frame = pd.DataFrame({"record": [1, 2], "patient": [7, 7], "probability:A": [0.5, 1.0]})
    frame.to_parquet(tmp_path / "p.parquet")
    loaded = Predictions.load(tmp_path / "p.parquet")
    assert loaded.records.tolist() == ["1", "2"]
    assert loaded.patients.tolist() == ["7", "7"]


def test_other_suffixes_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"\.parquet, \.pq"):
        table().save(tmp_path / "p.xlsx")
    with pytest.raises(EvaluationError, match=r"p\.parquet"):
        Predictions.load(tmp_path / "p.parquet")
    (tmp_path / "q.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(EvaluationError, match=r"q\.parquet"):
        Predictions.load(tmp_path / "q.parquet")
    good = table().to_arrow()
    for metadata in (b"3", b"[1]", b'"x"', b"null"):
        changed = good.replace_schema_metadata({METADATA_KEY: metadata})
        pq.write_table(changed, tmp_path / "q.parquet")
        with pytest.raises(EvaluationError, match=r"q\.parquet"):
            Predictions.load(tmp_path / "q.parquet")
    for place, column in enumerate(("record", "patient")):
        for values in ([["a"]] * len(good), [[str(i)] * (i + 1) for i in range(len(good))]):
            pq.write_table(good.set_column(place, column, pa.array(values)), tmp_path / "q.parquet")
            with pytest.raises(EvaluationError, match=column):
                Predictions.load(tmp_path / "q.parquet")


def test_with_labels_selects_columns_in_order() -> None:
    whole = table()
    few = whole.with_labels(["PRC(S)", "ISC_"])
    assert few.labels == ("PRC(S)", "ISC_")
    assert few.targets is not None
    assert whole.targets is not None
    np.testing.assert_array_equal(few.targets, whole.targets[:, [3, 1]])
    np.testing.assert_array_equal(few.probabilities, whole.probabilities[:, [3, 1]])
    assert few.records.tolist() == whole.records.tolist()
    assert few.metadata == whole.metadata
    assert table(targets=None).with_labels(["NORM"]).targets is None
    with pytest.raises(EvaluationError, match="lack LVH"):
        whole.with_labels(["NORM", "LVH"])
    with pytest.raises(EvaluationError):
        whole.with_labels([])


def test_with_positives_selects_labels() -> None:
    targets = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0], *[[0] * 4] * 3])
    counted = table(targets=targets)  # 3, 2, 0 and 1 positives
    assert counted.with_positives(1).labels == ("NORM", "ISC_", "PRC(S)")
    assert counted.with_positives(2).labels == ("NORM", "ISC_")
    assert counted.with_positives(0).labels == LABELS
    with pytest.raises(EvaluationError, match=r"4 positives.*NORM.*3"):
        counted.with_positives(4)
    with pytest.raises(EvaluationError, match="no targets"):
        table(targets=None).with_positives(1)


def test_missing_patients_are_unknown(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    for gap in (None, float("nan")):
        frame = pd.DataFrame(
            {"record": ["a", "b"], "patient": [gap, "p"], "probability:A": [0.5, 1.0]}
        )
        frame.to_parquet(file)
        assert Predictions.load(file).patients.tolist() == ["", "p"]
    frame.assign(patient=None).to_parquet(file)
    assert Predictions.load(file).patients.tolist() == ["", ""]


def test_a_file_without_its_digest_is_unverified_or_refused(tmp_path: Path) -> None:
    file, again = tmp_path / "p.parquet", tmp_path / "q.parquet"
    table().save(file)
    assert Predictions.load(file, of_run=True).is_verified
    pq.write_table(table().to_arrow().replace_schema_metadata({METADATA_KEY: b"{}"}), file)
    with pytest.raises(EvaluationError, match="digest"):
        Predictions.load(file)
    pd.DataFrame(table().to_arrow().to_pandas()).to_parquet(file)  # it may be another tool's
    with pytest.raises(EvaluationError, match="digest"):
        Predictions.load(file, of_run=True)
    loaded = Predictions.load(file)
    assert not loaded.is_verified
    loaded.save(again)
    assert not Predictions.load(again).is_verified
    assert not Predictions.load(again).with_labels(["NORM"]).is_verified


def test_a_table_of_another_split_or_run_is_refused(tmp_path: Path) -> None:
    for split in ("validation", "test"):
        file = table_file(tmp_path, split)
        file.parent.mkdir(exist_ok=True)
        table(metadata={"split": split}).save(file)
    ours = table(metadata={"split": "test"})
    assert run_table(tmp_path, "test").digest == ours.digest
    write_json(tmp_path / "metrics.json", {"predictions": {"test": ours.digest}})
    assert run_table(tmp_path, "validation").metadata["split"] == "validation"
    shutil.copy(table_file(tmp_path, "validation"), table_file(tmp_path, "test"))
    with pytest.raises(EvaluationError, match="validation"):
        run_table(tmp_path, "test")
    replace(ours, probabilities=1 - ours.probabilities).save(table_file(tmp_path, "test"))
    with pytest.raises(EvaluationError, match=r"metrics\.json"):
        run_table(tmp_path, "test")
    ours.save(table_file(tmp_path, "test"))
    assert run_table(tmp_path, "test").digest == ours.digest


def test_patients_are_spelt_in_one_way() -> None:
    spelt = table(patients=["17", "17.0", " 17", "007", "p 1 ", ""])
    assert spelt.patients.tolist() == ["17", "17", "17", "007", "p 1", ""]
    assert table(patients=[17.0, np.nan, 3, 4, 5, 6]).patients[:3].tolist() == ["17", "", "3"]


def test_a_flipped_bit_of_predictions_is_found(tmp_path: Path) -> None:
    """Whatever is still accepted is the same table."""
    file = tmp_path / "p.parquet"
    saved = table(targets=None)
    saved.save(file)
    sound, found = file.read_bytes(), 0
    for place in range(0, len(sound), 5):
        damaged = bytearray(sound)
        damaged[place] ^= 8
        file.write_bytes(damaged)
        try:
            loaded = Predictions.load(file)
        except EvaluationError:
            found += 1
        else:
            assert loaded.digest == saved.digest
    assert found
