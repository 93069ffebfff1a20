from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from einthoven.cohorts import open_cohort
from einthoven.errors import ReproduceError
from einthoven.files import append_line, read_lines
from einthoven.reproduce.claims import claim
from einthoven.reproduce.experiments import OURS, PLAIN, SCRATCH
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import Cell, cells_of
from einthoven.reproduce.jobs import run_in_jobs
from einthoven.reproduce.plan import check, measured, plan, pretrainings
from einthoven.reproduce.run import Runner

BACKBONE = "mtecg_tiny_100hz"


def cell(arm: str, fraction: float = 1.0, seed: int = 0) -> Cell:
    return Cell(BACKBONE, arm, "all-71", fraction, seed)


def test_nothing_is_known_and_nothing_is_written_before_the_first_epoch(
    whole: Request, tmp_path: Path
) -> None:
    request = replace(whole, out=tmp_path / "new")
    cells = cells_of("grid", request.experiment, BACKBONE)
    planned = plan(request, cells)
    assert {each.state for each in planned} == {State.MISSING}
    assert {each.seconds for each in planned} == {None}
    first = pretrainings(request, cells)
    assert first == [f"pretraining--{BACKBONE}--seed0: recipe demo, 1 epochs"]
    assert pretrainings(request, [cell(SCRATCH)]) == []
    assert not request.out.exists()


def test_what_is_done_costs_nothing(whole: Request) -> None:
    cells = cells_of("grid", whole.experiment, BACKBONE)
    planned = plan(whole, cells)
    assert {(each.state, each.seconds) for each in planned} == {(State.DONE, 0.0)}
    assert pretrainings(whole, cells) == []


def test_costs_follow_from_epochs_that_were_trained(whole: Request, begun: Request) -> None:
    """Two seconds a training epoch, half a second a validation epoch, as the lines say."""
    request = begun
    done = request.run_folder(cell(PLAIN))
    (done / "stage2").mkdir(parents=True)
    (done / "run.json").write_text((whole.run_folder(cell(PLAIN)) / "run.json").read_text())
    line = read_lines(whole.run_folder(cell(PLAIN)) / "stage2" / "metrics.jsonl")[0]
    append_line(
        done / "stage2" / "metrics.jsonl", line | {"seconds": 2.0, "validation_seconds": 0.5}
    )
    speed = measured(request, BACKBONE)
    assert speed is not None
    cohort = open_cohort(request.cohort, "all-71", min_records=8)
    assert speed.train == pytest.approx(2.0 / len(cohort.ids("train")))
    assert speed.validate == pytest.approx(0.5 / len(cohort.ids("validation")))
    costs = {each.cell: each.seconds for each in plan(request, [cell(a) for a in (PLAIN, SCRATCH)])}
    # The one epoch is behind it; validation and test are still to be predicted.
    assert costs[cell(PLAIN)] == pytest.approx(2 * 0.5)
    assert costs[cell(SCRATCH)] == pytest.approx(2.0 + 0.5 + 2 * 0.5)
    ours = [cell(OURS), cell(OURS, 0.5)]
    longer, shorter = [each.seconds for each in plan(request, ours)]
    # A probe of one crop is a third of an epoch until one was measured.
    assert longer == pytest.approx(2.0 + 0.5 + 2 * 0.5 + 2.0 / 3)
    assert shorter == pytest.approx(1.0 + 0.5 + 2 * 0.5 + 1.0 / 3)


def test_what_is_done_needs_no_pretraining(whole: Request, begun: Request) -> None:
    """Its encoder may be elsewhere; and what is not done has its line."""
    source = begun.pretraining(cell(PLAIN))
    (source / "model").unlink()
    assert len(pretrainings(begun, [cell(PLAIN), cell(OURS)])) == 1
    shutil.copytree(whole.run_folder(cell(PLAIN)), begun.run_folder(cell(PLAIN)))
    assert pretrainings(begun, [cell(PLAIN)]) == []


def test_a_network_that_nothing_pretrains_is_refused_where_it_would_be(
    whole: Request, tmp_path: Path
) -> None:
    """Before anything is planned or run; from random weights, or given ones, it goes."""
    request = replace(whole, out=tmp_path / "new", backbone="fcn_wang")
    cells = cells_of("table-1", request.experiment, "fcn_wang")
    for refused in (plan, lambda asked, these: Runner(asked).run(these)):
        with pytest.raises(ReproduceError, match="cannot pretrain fcn_wang") as error:
            refused(request, cells)
        assert "--experiment peers --only row=fcn_wang" in error.value.remedy
    assert not request.out.exists()
    scratch = [
        each for each in cells_of("grid", request.experiment, "fcn_wang") if each.arm == SCRATCH
    ]
    assert {each.state for each in plan(request, scratch)} == {State.MISSING}
    given = replace(request, weights=tmp_path / "model")
    check(given, cells)


def test_folders_to_hold_against_are_looked_at_before_anything_is_run(
    whole: Request, tmp_path: Path
) -> None:
    request = replace(whole, out=tmp_path / "new", against=(tmp_path / "nowhere",))
    cells = [cell(SCRATCH)]
    refusals = [plan, lambda asked, these: Runner(asked).run(these)]
    refusals.append(lambda asked, these: run_in_jobs(asked, these, jobs=2))
    for refused in refusals:
        with pytest.raises(ReproduceError, match="neither a run folder nor"):
            refused(request, cells)
    assert not request.out.exists()


def test_states(whole: Request, begun: Request) -> None:
    folder = begun.run_folder(cell(PLAIN))
    assert begun.state(cell(PLAIN)) is State.MISSING
    folder.mkdir(parents=True)
    (folder / "run.json").write_text((whole.run_folder(cell(PLAIN)) / "run.json").read_text())
    assert begun.state(cell(PLAIN)) is State.PARTIAL
    with claim(begun.claims, cell(PLAIN).key):
        assert begun.state(cell(PLAIN)) is State.RUNNING
        assert begun.state(cell(PLAIN), claimed=True) is State.PARTIAL
    begun.failure(cell(PLAIN)).parent.mkdir()
    begun.failure(cell(PLAIN)).write_text("{}")
    assert begun.state(cell(PLAIN)) is State.FAILED
    (folder / "metrics.json").write_text("{}")
    assert begun.state(cell(PLAIN)) is State.DONE
