"""Cohorts, their stores, and options that apply to some of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven.cli.paths import refuse_inside, store_of
from einthoven.cohorts import Cohort, is_cohort
from einthoven.errors import CohortError, StoreError
from einthoven.models import load_model
from einthoven.records import STANDARD_LEADS, read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.signals.store import Store


@pytest.fixture
def hospitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders of the same name whose files are numbered alike."""
    monkeypatch.setenv("EINTHOVEN_CACHE", str(tmp_path / "cache"))
    draws = np.random.default_rng(0)
    folders = tmp_path / "a" / "ecgs", tmp_path / "b" / "ecgs"
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(3):
            signal = draws.normal(0, 0.3, (12, 500))
            write_wfdb(folder / f"{number:05d}", signal, rate=100, leads=STANDARD_LEADS)
    return folders


def test_each_folder_has_a_store_of_its_own(hospitals: tuple[Path, Path]) -> None:
    one, other = (store_of(folder, None) for folder in hospitals)
    assert one.root != other.root
    assert not np.array_equal(one.record("00000").signal, other.record("00000").signal)
    assert store_of(hospitals[0], None).root == one.root


@pytest.mark.parametrize("folder", [".", "./", "..", "../ecgs"])
def test_the_current_folder_is_a_folder(
    folder: str, hospitals: tuple[Path, Path], cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hospitals[0])
    cli("doctor", folder, status=1)  # noise is no ECG
    cli("pack", folder, hospitals[1] / "store")
    cli("convert-ecg", folder, hospitals[1] / "converted")
    assert len(pd.read_csv(hospitals[1] / "converted" / "ecgs.csv")) == 3
    assert is_cohort(Path("/"))


def test_packing_names_recordings_under_several_names(
    hospitals: tuple[Path, Path], cli: Any, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    assert "identical" not in cli("pack", hospitals[0], store, "--workers", 1).err
    for file in hospitals[0].glob("00000.*"):
        shutil.copy(file, hospitals[0] / f"copy{file.suffix}")
    for file in hospitals[0].glob("copy.hea"):
        file.write_text(file.read_text().replace("00000", "copy"))
    err = cli("pack", hospitals[0], tmp_path / "another", "--workers", 1).err
    assert all(name in err for name in ("'00000'", "'copy'"))


def test_another_folder_s_store_is_refused(hospitals: tuple[Path, Path], tmp_path: Path) -> None:
    store_of(hospitals[0], tmp_path / "store")
    assert len(store_of(hospitals[0], tmp_path / "store")) == 3
    with pytest.raises(StoreError, match="'00000'"):
        store_of(hospitals[1], tmp_path / "store")
    shutil.rmtree(hospitals[0])  # the store is enough
    hospitals[0].mkdir()
    assert len(store_of(hospitals[0], tmp_path / "store")) == 3


@pytest.fixture
def own(tmp_path: Path, synthetic: Cohort) -> Path:
    """A table with a label, and a column of words that is none."""
    table = synthetic.table.reset_index()[["path", "patient", "record", "split"]]
    label = synthetic.labels[int(synthetic.matrix.sum(axis=0).argmax())]
    table[label] = synthetic.matrix[:, synthetic.labels.index(label)]
    table["path"] = [str(path) for path in synthetic.paths()]
    table.assign(ward="AB-1").to_csv(tmp_path / "own.csv", index=False)
    return tmp_path / "own.csv"


def test_columns_that_are_no_labels_are_left_out_by_name(
    cli: Any, own: Path, synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EINTHOVEN_CACHE", str(tmp_path / "cache"))
    label = synthetic.labels[int(synthetic.matrix.sum(axis=0).argmax())]
    for verb in (["doctor", own], ["embed", own, "--out", tmp_path / "e.npy", "--split", "test"]):
        result = cli(*verb, status=1)
        assert all(word in result.err for word in ("'ward'", "'AB-1'", "--target"))
        cli(*verb, "--label", label)
    assert len(np.load(tmp_path / "e.npy")) == len(synthetic.ids("test"))


def test_options_of_the_other_kind_of_cohort_are_refused(
    cli: Any, own: Path, synthetic_path: Path, hospitals: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        (("posttrain", own, "--out", out, "--task", "rhythm-12"), "--task"),
        (("pack", own, out, "--rate", 100), "--rate"),
        (("pack", hospitals[0], out, "--rate", 100), "--rate"),
        (("posttrain", synthetic_path, "--out", out, "--label", "NORM"), "--target"),
        (("doctor", synthetic_path, "--label", "NORM"), "NORM"),
    ):
        result = cli(*arguments, status=1)
        assert message in " ".join(result.err.split())
        assert not out.exists()


def test_runs_inside_the_folder_of_a_cohort_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    folder.mkdir()
    (folder / "table.csv").write_text("")
    for out in (folder, folder / "runs" / "a", folder / ".." / "cohort"):
        with pytest.raises(CohortError, match=str(out)):
            refuse_inside(out, folder)
    refuse_inside(tmp_path / "cohort-run", folder)
    refuse_inside(folder / "run", folder / "table.csv")


@pytest.fixture
def limb(tmp_path: Path, synthetic: Cohort, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 60 records that hold only I and II."""
    monkeypatch.setenv("EINTHOVEN_CACHE", str(tmp_path / "cache"))
    label = int(synthetic.matrix.sum(axis=0).argmax())
    rows = []
    for number, file in enumerate(synthetic.paths()[:60]):
        record = read_record(file).select(("I", "II"))
        write_wfdb(tmp_path / f"r{number}", record.signal, rate=record.rate, leads=record.leads)
        rows.append((f"r{number}.hea", f"p{number}", int(synthetic.matrix[number, label])))
    table = pd.DataFrame(rows, columns=["path", "patient", "label"])
    table.to_csv(tmp_path / "limb.csv", index=False)
    return tmp_path / "limb.csv"


@pytest.mark.filterwarnings("ignore::einthoven.stages.leakage.LeakageWarning")
def test_a_network_of_few_leads_is_trained_on_records_of_these(
    cli: Any, made: Any, limb: Path, tiny_backbone: str, tmp_path: Path
) -> None:
    options = (
        "posttrain", limb, "--backbone", tiny_backbone, "--weights", made.encoder, "--recipe",
        "linear-probe", "--device", "cpu", "--resamples", 0, "--allow-leakage", "--folds", 3,
    )  # fmt: skip
    refused = cli(*options, "--out", tmp_path / "twelve", status=1)
    assert "--leads" in refused.err
    cli(*options, "--leads", "I,II", "--out", tmp_path / "run")
    assert load_model(tmp_path / "run" / "model").preparation.sources == ("I", "II")
    packed = [Store.open(file.parent) for file in tmp_path.glob("cache/stores/*/store.json")]
    assert [(store.leads, len(store)) for store in packed] == [(("I", "II"), 60)]
    cli("evaluate", "--model", tmp_path / "run" / "model", "--cohort", limb, "--split", "test",
        "--resamples", 0, "--device", "cpu")  # fmt: skip


def test_the_leads_that_are_packed_are_all_twelve_where_records_have_them(
    hospitals: tuple[Path, Path], tmp_path: Path
) -> None:
    """A store of twelve leads shows what weights have seen; it is used until a record lacks one."""
    whole = store_of(hospitals[0], None, leads=("I", "II"))
    assert whole.leads == STANDARD_LEADS
    assert store_of(hospitals[0], None).root == whole.root
    signal = np.random.default_rng(1).normal(0, 0.3, (2, 500))
    write_wfdb(hospitals[1] / "00003", signal, rate=100, leads=("I", "II"))
    assert len(store_of(hospitals[1], None)) == 3
    for _ in range(2):
        few = store_of(hospitals[1], None, leads=("I", "II"))
        assert (few.leads, len(few)) == (("I", "II"), 4)
