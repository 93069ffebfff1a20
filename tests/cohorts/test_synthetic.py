"""The cohort on disk: PTB-XL's layout, folds, determinism, refusals."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts.synthetic import statements_made, synthesize
from einthoven.cohorts.synthetic.patients import draw_recordings
from einthoven.errors import CohortError

RHYTHMS = {"SR", "SBRAD", "STACH", "SARRH", "AFIB", "AFLT", "PACE"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("cohorts") / "synthetic", records=600, seed=3)


@pytest.fixture(scope="module")
def database(cohort: Path) -> pd.DataFrame:
    table = pd.read_csv(cohort / "ptbxl_database.csv")
    table["codes"] = table.scp_codes.map(ast.literal_eval)
    return table


def digest(folder: Path) -> str:
    content = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content.update(path.relative_to(folder).as_posix().encode())
        content.update(path.read_bytes())
    return content.hexdigest()


def test_the_tables_have_the_columns_of_ptbxl(cohort: Path, database: pd.DataFrame) -> None:
    header = (cohort / "ptbxl_database.csv").read_text().split("\n")[0].split(",")
    assert len(header) == 28
    assert header[:4] == ["ecg_id", "patient_id", "age", "sex"]
    assert header[11] == "scp_codes"
    assert header[-3:] == ["strat_fold", "filename_lr", "filename_hr"]
    assert database.ecg_id.tolist() == list(range(1, 601))
    assert database.validated_by_human.all()
    assert set(database.sex) == {0, 1}
    assert database.recording_date.is_monotonic_increasing
    assert pd.to_datetime(database.recording_date, format="%Y-%m-%d %H:%M:%S").notna().all()
    assert all(set(codes) <= set(statements_made()) for codes in database.codes)
    assert all(len(RHYTHMS & set(codes)) == 1 for codes in database.codes)


def test_the_statements_are_those_of_ptbxl(cohort: Path, shared: Path) -> None:
    real = shared / "data" / "ptbxl" / "scp_statements.csv"
    if not real.is_file():
        pytest.skip("PTB-XL is not on this machine")
    ours = pd.read_csv(cohort / "scp_statements.csv", index_col=0)
    theirs = pd.read_csv(real, index_col=0)
    assert list(ours) == list(theirs)
    flags = ["diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"]
    pd.testing.assert_frame_equal(ours[flags], theirs[flags])


def test_patients_stay_in_one_fold_and_some_come_back(database: pd.DataFrame) -> None:
    assert (database.groupby("patient_id").strat_fold.nunique() == 1).all()
    visits = database.patient_id.value_counts()
    assert 0.12 < (visits > 1).mean() < 0.24
    assert visits.max() <= 4
    assert set(database.strat_fold) == set(range(1, 11))


@pytest.mark.parametrize(("records", "seed"), [(400, 0), (400, 7), (600, 1), (600, 9)])
def test_every_statement_is_in_train_validation_and_test(records: int, seed: int) -> None:
    recordings, _ = draw_recordings(records, seed)
    assert len(recordings) == records
    for code in statements_made():
        folds = {r.patient: r.fold for r in recordings if code in r.statements}
        counts = Counter(folds.values())
        assert min(counts[9], counts[10]) >= 2, code
        assert len(folds) - counts[9] - counts[10] >= 3, code


def test_records_of_a_patient_share_chronic_statements(database: pd.DataFrame) -> None:
    chronic = {"CLBBB", "CRBBB", "LAFB", "ASMI", "IMI", "AMI", "LVH", "WPW", "PACE", "1AVB"}
    for _, records in database.groupby("patient_id"):
        assert len({frozenset(chronic & set(codes)) for codes in records.codes}) == 1


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    one = synthesize(tmp_path / "one", records=40, seed=5)
    two = synthesize(
        tmp_path / "two",
        records=40,
        seed=5,
        workers=2,
        progress=lambda _, *counts: calls.append(counts),
    )
    other = synthesize(tmp_path / "other", records=40, seed=6)
    assert digest(one) == digest(two)
    assert digest(one) != digest(other)
    assert calls == [(done, 40) for done in range(1, 41)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "other", "two"]


def test_500_hz_has_the_same_beats(tmp_path: Path) -> None:
    low = synthesize(tmp_path / "low", records=6)
    high = synthesize(tmp_path / "high", records=6, rate=500)
    assert (low / "ground_truth.csv").read_bytes() == (high / "ground_truth.csv").read_bytes()
    fine = np.fromfile(high / "records500/00000/00003_hr.dat", "<i2").reshape(-1, 12)
    coarse = np.fromfile(low / "records100/00000/00003_lr.dat", "<i2").reshape(-1, 12)
    assert fine.shape == (5000, 12)
    assert np.corrcoef(fine[::5, 1], coarse[:, 1])[0, 1] > 0.9


def test_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(CohortError, match=tmp_path.name):
        synthesize(tmp_path, records=3)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "wrong", [{"records": 0}, {"records": 100000}, {"rate": 250}, {"workers": 0}, {"seed": -1}]
)
def test_refuses_numbers_out_of_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(CohortError, match=next(iter(wrong))):
        synthesize(tmp_path / "c", **{"records": 3, **wrong})
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "c", records=3, progress=stop)
    assert [p.name for p in tmp_path.rglob("*")] == ["c"]
    assert synthesize(tmp_path / "c", records=3) == tmp_path / "c"
    assert (tmp_path / "c" / "ptbxl_database.csv").is_file()
