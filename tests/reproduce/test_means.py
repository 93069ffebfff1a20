"""Mean predictions of table 1's ensembles, kept as runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from einthoven.errors import ReproduceError
from einthoven.evaluate import compare
from einthoven.experiment.ensembles import ENSEMBLE
from einthoven.files import read_json, write_json
from einthoven.predictions import Predictions
from einthoven.reproduce.claims import claim
from einthoven.reproduce.evidence import Evidence
from einthoven.reproduce.experiments import PLAIN, SCRATCH
from einthoven.reproduce.folders import Request
from einthoven.reproduce.grid import Cell
from einthoven.reproduce.means import mean_folder, save_means
from einthoven.reproduce.table_1 import table_1
from einthoven.reproduce.write import write

BACKBONE = "mtecg_tiny_100hz"
MEMBERS = [Cell(BACKBONE, arm, "all-71", 1.0, 0) for arm in (PLAIN, SCRATCH)]


@pytest.fixture
def finished(rows: Request, tmp_path: Path) -> Request:
    """The rows' reproduction with both members of its ensemble finished on the main task."""
    request = replace(rows, out=tmp_path / "out")
    for cell in MEMBERS:
        shutil.copytree(rows.run_folder(cell), request.run_folder(cell))
    return request


def tables(folder: Path) -> list[Predictions]:
    return [Predictions.load(folder / f"{split}.parquet") for split in ("validation", "test")]


def test_the_row_is_a_run_that_compare_reads(finished: Request) -> None:
    (folder,) = save_means(Evidence(finished))
    assert folder == finished.out / "ensembles" / "both--all-71--seed0"
    asked = read_json(folder / "run.json")["request"]
    assert (asked["stage"], asked["task"]) == (ENSEMBLE, "all-71")
    parts = [tables(finished.run_folder(cell) / "predictions") for cell in MEMBERS]
    for mean, *members in zip(tables(folder / "predictions"), *parts, strict=True):
        expected = np.mean([each.probabilities for each in members], axis=0)
        assert np.array_equal(mean.probabilities, expected)
    assert set(read_json(folder / "metrics.json")) >= {"validation", "test"}
    mean, member = (part[1] for part in (tables(folder / "predictions"), parts[0]))
    assert compare(mean, member, resamples=20, undefined_labels="skip").auroc.improved >= 0


def test_the_table_is_the_same_from_the_saved_mean(finished: Request) -> None:
    anew, saved = Evidence(finished), Evidence(finished)
    (folder,) = save_means(saved)
    assert list(saved.means.values()) == [(folder,)]
    assert table_1(saved).numbers == table_1(anew).numbers
    # It is that file which is read: another one there is seen.
    for part in folder.glob("predictions/*.parquet"):
        table = Predictions.load(part)
        replace(table, probabilities=1 - table.probabilities).save(part)
    other = Evidence(finished, means=saved.means)
    assert table_1(other).numbers != table_1(anew).numbers


def test_a_page_of_table_1_saves_it_and_does_so_once(finished: Request, tmp_path: Path) -> None:
    write(finished, "table-1", tmp_path / "page.md")
    folder = mean_folder(finished, "both", "all-71", 0)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    assert len(before) == 4
    write(finished, "grid", tmp_path / "page.md")
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_one_that_was_stopped_goes_on(finished: Request) -> None:
    (folder,) = save_means(Evidence(finished))
    (folder / "metrics.json").unlink()
    (folder / "predictions" / "test.parquet").unlink()
    save_means(Evidence(finished))
    assert (folder / "metrics.json").is_file()
    assert (folder / "predictions" / "test.parquet").is_file()


def test_the_mean_of_runs_that_were_run_again_is_made_again(finished: Request) -> None:
    (folder,) = save_means(Evidence(finished))
    before = tables(folder / "predictions")
    member = finished.run_folder(MEMBERS[0]) / "predictions" / "test.parquet"
    table = Predictions.load(member)
    replace(table, probabilities=table.probabilities / 2).save(member)
    save_means(Evidence(finished))
    after = tables(folder / "predictions")
    assert np.array_equal(after[0].probabilities, before[0].probabilities)
    assert not np.array_equal(after[1].probabilities, before[1].probabilities)


def test_nothing_is_saved_before_all_members_are_finished(finished: Request) -> None:
    shutil.rmtree(finished.run_folder(MEMBERS[1]))
    assert save_means(Evidence(finished)) == []
    assert not (finished.out / "ensembles").exists()


def test_what_another_process_is_saving_is_left_to_it(finished: Request) -> None:
    evidence = Evidence(finished)
    with claim(finished.claims, "both--all-71--seed0"):
        assert save_means(evidence) == []
    assert evidence.means == {}


def test_another_run_in_its_place_is_refused(finished: Request) -> None:
    folder = mean_folder(finished, "both", "all-71", 0)
    write_json(folder / "run.json", {"request": {"stage": "posttrain"}})
    with pytest.raises(ReproduceError, match="no ensemble"):
        save_means(Evidence(finished))


def test_rows_that_read_alike_have_folders_of_their_own(finished: Request) -> None:
    names = ["a b", "a/b", "a-b"]
    folders = {mean_folder(finished, name, "all-71", 0).name for name in names}
    assert len(folders) == 3
    assert "a-b--all-71--seed0" in folders
    assert not any(set("/ ") & set(name) for name in folders)
