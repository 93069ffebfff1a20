"""Which runs count as those that a reproduction asks for: labels, cohort and weights included."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from einthoven.errors import CohortError, ReproduceError
from einthoven.files import read_json, write_json
from einthoven.reproduce.evidence import Evidence
from einthoven.reproduce.experiments import OURS, PLAIN, SCRATCH, SCRATCH_OURS
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import Cell, cells_of
from einthoven.reproduce.plan import check, plan, pretrainings
from einthoven.reproduce.tables import table_2
from einthoven.reproduce.wording import command

BACKBONE = "mtecg_tiny_100hz"


def cell(arm: str, fraction: float = 1.0) -> Cell:
    return Cell(BACKBONE, arm, "all-71", fraction, 0)


@pytest.mark.parametrize("few", [0, 20])
def test_a_run_on_other_labels_is_another_run(whole: Request, few: int) -> None:
    """The runs are on the labels that eight records carry."""
    changed = whole.experiment.model_copy(update={"min_records": few})
    request = replace(whole, experiment=changed)
    labels = [read_json(whole.run_folder(cell(PLAIN)) / "run.json")["request"]["labels"]]
    labels.append(list(request.opened("all-71").labels))
    assert labels[0] != labels[1]
    assert whole.state(cell(PLAIN)) is State.DONE
    assert {request.state(cell(arm)) for arm in (PLAIN, SCRATCH)} == {State.OTHER}
    assert request.state(cell(PLAIN, 0.5)) is State.OTHER


def test_labels_that_the_cohort_does_not_have_are_no_finished_run(whole: Request) -> None:
    changed = whole.experiment.model_copy(update={"min_records": 500})
    with pytest.raises(CohortError, match="no label of 500 records"):
        replace(whole, experiment=changed).state(cell(PLAIN))


def test_a_run_on_other_records_is_another_run(whole: Request, tmp_path: Path) -> None:
    """Whole and in part: the digest is of the share that was trained on."""
    for each in (cell(PLAIN), cell(PLAIN, 0.5)):
        asked = read_json(whole.run_folder(each) / "run.json")["request"]
        assert whole.cohort_digest(each) == asked["cohort_digest"]
    assert whole.cohort_digest(cell(PLAIN)) != whole.cohort_digest(cell(PLAIN, 0.5))
    request = replace(whole, cohort=tmp_path / "cohort")
    request.cohort.mkdir()
    for file in whole.cohort.glob("*.csv"):
        shutil.copy(file, request.cohort)
    assert request.state(cell(PLAIN)) is State.DONE
    table = request.cohort / "ptbxl_database.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-1]) + "\n")
    assert request.state(cell(PLAIN)) is State.OTHER


def test_runs_can_be_read_where_their_cohort_is_not(whole: Request, tmp_path: Path) -> None:
    request = replace(whole, cohort=tmp_path)
    assert request.cohort_digest(cell(PLAIN)) is None
    assert request.state(cell(PLAIN)) is State.DONE


@pytest.fixture
def alone(whole: Request, tmp_path: Path) -> Request:
    """All runs, copied without the shared folder that their encoders lie in."""
    request = replace(whole, out=tmp_path / "alone")
    shutil.copytree(whole.out / "runs", request.out / "runs")
    return request


def test_runs_without_their_encoder_say_what_they_started_from(
    alone: Request, whole: Request
) -> None:
    cells = cells_of("grid", alone.experiment, BACKBONE)
    assert {alone.state(each) for each in cells} == {State.DONE}
    had = read_json(whole.run_folder(cell(OURS)) / "run.json")["request"]["weights"]
    assert alone.unnamed_weights() == {had["sha256"]: Path(had["path"])}
    text = " ".join(table_2(Evidence(alone)).text.split())
    assert f"* Weights: `model`, SHA-256 {had['sha256'][:12]}, as the runs" in text
    assert "pretrained on folds 1 to 8" not in text
    assert "--weights ENCODER" in command(alone, "table-2")
    assert f"--weights {had['path']}" in command(alone, "table-2", exact=True)
    assert whole.unnamed_weights() == {}
    assert "--weights" not in command(whole, "table-2")
    given = replace(alone, weights=Path(had["path"]))
    assert given.unnamed_weights() == {}


def test_no_second_encoder_is_pretrained_beside_such_runs(alone: Request) -> None:
    """It would make runs of another request of them."""
    cells = cells_of("grid", alone.experiment, BACKBONE)
    assert pretrainings(alone, cells) == []
    check(alone, cells)
    shutil.rmtree(alone.run_folder(cell(PLAIN)))
    assert "--weights ENCODER" in table_2(Evidence(alone)).text
    for refused in (check, plan):
        with pytest.raises(ReproduceError, match="name that encoder with --weights"):
            refused(alone, cells)
    check(alone, [cell(SCRATCH), cell(OURS)])
    check(replace(alone, out=alone.out / "new"), cells)


def test_runs_of_several_encoders_are_not_taken_for_one(alone: Request) -> None:
    file = alone.run_folder(cell(PLAIN)) / "run.json"
    about = read_json(file)
    about["request"]["weights"] |= {"sha256": 64 * "f"}
    write_json(file, about)
    assert {alone.state(cell(arm)) for arm in (PLAIN, OURS)} == {State.OTHER}
    assert alone.state(cell(SCRATCH)) is State.DONE
    assert alone.state(cell(SCRATCH_OURS)) is State.DONE
    text = " ".join(table_2(Evidence(alone)).text.split())
    assert "Weights: not known, for the runs recorded `model`, SHA-256" in text
    assert "name one of them with `--weights`" in text


def test_a_run_from_random_weights_is_no_run_from_an_encoder(alone: Request) -> None:
    """Either is a file; what tells them apart without it is its name."""
    for one, other in ((PLAIN, SCRATCH_OURS), (SCRATCH_OURS, PLAIN)):
        file = alone.run_folder(cell(one)) / "run.json"
        about = read_json(file)
        theirs = read_json(alone.run_folder(cell(other)) / "run.json")["request"]["weights"]
        write_json(file, {**about, "request": about["request"] | {"weights": theirs}})
        assert alone.state(cell(one)) is State.OTHER
        write_json(file, about)
        assert alone.state(cell(one)) is State.DONE


def test_an_encoder_of_another_experiment_is_not_taken(whole: Request, begun: Request) -> None:
    """In the same folder: the other pretrained the same network otherwise."""
    source = whole.experiment.source_of(BACKBONE)
    longer = source.model_copy(update={"set": (*source.set, "epochs=7")})
    other = whole.experiment.model_copy(update={"pretraining": longer})
    for request in (whole, begun):
        assert not request.has_other_source(cell(OURS))
        changed = replace(request, experiment=other)
        assert changed.has_other_source(cell(OURS))
        with pytest.raises(ReproduceError, match="made by another experiment"):
            check(changed, [cell(OURS)])
    assert replace(whole, experiment=other).state(cell(OURS)) is State.OTHER
    assert replace(whole, experiment=other).state(cell(SCRATCH)) is State.DONE
