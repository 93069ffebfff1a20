"""Every cell once, in any number of processes, and bit for bit what one process makes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from einthoven.cohorts import open_cohort
from einthoven.errors import ReproduceError
from einthoven.experiment.run import run_experiment
from einthoven.files import read_json
from einthoven.reproduce import run
from einthoven.reproduce.claims import claim
from einthoven.reproduce.experiments import NO_PROBE, OURS, PLAIN, PROBE, SCRATCH, SCRATCH_OURS
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import Cell, cells_of, only, shard
from einthoven.reproduce.jobs import run_in_jobs
from einthoven.reproduce.run import Runner
from einthoven.signals.store import Store
from einthoven.training.distributed import Processes

BACKBONE = "mtecg_tiny_100hz"
# Runs the cells of argv[2:] of the pickled request argv[1], and says what begins and what is done.
SCRIPT = """
import pickle, sys
from pathlib import Path
from einthoven.reproduce.grid import cells_of, only
from einthoven.reproduce.run import Runner

class Loud:
    def began(self, stage, epochs, steps): self.stage = stage
    def stepped(self, epoch, step, loss, lr): print("step of", self.stage, flush=True)
    def epoch_ended(self, entry): pass
    def ended(self, stage): pass

request = pickle.loads(Path(sys.argv[1]).read_bytes())
cells = only(cells_of("grid", request.experiment, request.backbone), sys.argv[2:])
Runner(request, Loud(), tell=lambda line: print(line, flush=True)).run(cells)
"""


def cell(arm: str, task: str = "all-71", fraction: float = 1.0, seed: int = 0) -> Cell:
    return Cell(BACKBONE, arm, task, fraction, seed)


def started(request: Request, folder: Path, *filters: str) -> subprocess.Popen[str]:
    file = folder / "request.pickle"
    file.write_bytes(pickle.dumps(request))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, file, *filters],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def contents(request: Request, of: Cell) -> dict[str, bytes]:
    folder = request.run_folder(of)
    files = ["predictions/test.parquet", "predictions/validation.parquet"]
    files += ["bundle/model.safetensors"]
    return {name: (folder / name).read_bytes() for name in files}


def test_every_cell_is_done_and_nothing_is_claimed(whole: Request) -> None:
    cells = cells_of("grid", whole.experiment, BACKBONE)
    assert {whole.state(each) for each in cells} == {State.DONE}
    assert not list(whole.claims.glob("*.lock"))
    assert len(list((whole.out / "runs").iterdir())) == len(cells)
    assert not list(whole.out.rglob("*.writing"))
    assert not list(whole.out.rglob("*.copying"))


def test_a_cell_is_what_posttrain_makes_of_its_recipe(
    whole: Request, tmp_path: Path, synthetic_path: Path, synthetic_store: Store
) -> None:
    """Bit for bit, although its probe was trained apart and shared."""
    alone = tmp_path / "alone"
    run_experiment(
        open_cohort(synthetic_path, "all-71", min_records=8),
        synthetic_store,
        BACKBONE,
        recipe=whole.recipe(cell(OURS)),
        out=alone,
        weights=whole.weights_of(cell(OURS)),
        options=whole.experiment.options_of(BACKBONE),
        resamples=20,
        processes=Processes("cpu"),
    )
    for name, content in contents(whole, cell(OURS)).items():
        assert (alone / name).read_bytes() == content, name
    asked = [
        read_json(folder / "run.json")["request"]
        for folder in (alone, whole.run_folder(cell(OURS)))
    ]
    assert asked[0] == asked[1]


def test_a_probe_is_computed_once_for_all_cells_that_ask_for_it(whole: Request) -> None:
    def features(of: Cell) -> int:
        file = whole.run_folder(of) / "stage1" / "features" / "train-0.npy"
        return file.stat().st_ino

    assert features(cell(OURS)) == features(cell(PROBE))
    assert features(cell(OURS)) == features(cell("without-stochastic-depth"))
    others = [cell(OURS, seed=1), cell(OURS, fraction=0.5), cell(OURS, "superclass-5")]
    others += [cell(SCRATCH_OURS)]
    assert len({features(each) for each in [cell(OURS), *others]}) == 5
    assert len(list((whole.out / "shared").glob("probe--*"))) == 5
    assert not (whole.run_folder(cell(NO_PROBE)) / "stage1").exists()


def test_weights_come_from_one_pretraining_or_from_nowhere(whole: Request) -> None:
    assert [p.name for p in (whole.out / "shared").glob("pretraining--*")] == [
        f"pretraining--{BACKBONE}--seed0"
    ]

    def source(of: Cell) -> Any:
        return read_json(whole.run_folder(of) / "run.json")["request"]["weights"]

    assert source(cell(OURS)) == source(cell(OURS, seed=1)) == source(cell(PLAIN))
    assert source(cell(SCRATCH)) is None
    assert source(cell(SCRATCH_OURS))["path"].endswith(f"random--{BACKBONE}--seed0.safetensors")


def test_parts_that_were_run_apart_are_put_together(
    whole: Request, begun: Request, tmp_path: Path
) -> None:
    """As docs/reproduce.md says: one pretraining for all, then the folders of both, less claims."""
    cells = cells_of("grid", whole.experiment, BACKBONE)
    machines = [replace(whole, out=tmp_path / name) for name in ("one", "two")]
    for machine, part in zip(machines, ("1/2", "2/2"), strict=True):
        shutil.copytree(begun.out / "shared", machine.out / "shared")
        for each in shard(cells, part):
            shutil.copytree(whole.run_folder(each), machine.run_folder(each))
    mine, theirs = machines
    running = shard(cells, "2/2")[0]
    with claim(theirs.claims, running.key):
        for name in ("runs", "shared"):
            shutil.copytree(theirs.out / name, mine.out / name, dirs_exist_ok=True)
        assert theirs.state(running) is State.RUNNING
    assert {mine.state(each) for each in cells} == {State.DONE}
    assert Runner(mine).run(cells).done == [each.key for each in cells]


def test_a_part_with_a_pretraining_of_its_own_is_another_run(
    whole: Request, begun: Request
) -> None:
    shutil.copytree(whole.run_folder(cell(PLAIN)), begun.run_folder(cell(PLAIN)))
    assert begun.state(cell(PLAIN)) is State.DONE
    begun.pretraining(cell(PLAIN)).joinpath("model").write_bytes(b"made elsewhere")
    assert begun.state(cell(PLAIN)) is State.OTHER


def test_given_weights_are_taken_instead(whole: Request, tmp_path: Path) -> None:
    given = whole.weights_of(cell(OURS))
    request = replace(whole, out=tmp_path, weights=given)
    assert request.weights_of(cell(PLAIN)) == given
    assert request.weights_of(cell(SCRATCH)) is None
    other = Cell("st_mem_tiny", PLAIN, "all-71", 1.0, 0)
    assert request.weights_of(other) == request.pretraining(other) / "model"


def test_finished_cells_are_not_touched_again(whole: Request) -> None:
    folder = whole.run_folder(cell(OURS))
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    said: list[str] = []
    outcome = Runner(whole, tell=said.append).run([cell(OURS), cell(PLAIN)])
    assert outcome.done == [cell(OURS).key, cell(PLAIN).key]
    assert not said
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_reproduction_goes_on(begun: Request, whole: Request, tmp_path: Path) -> None:
    with started(begun, tmp_path, "arm=post-training", "task=all-71", "seed=1") as process:
        assert process.stdout is not None
        steps = (line for line in process.stdout if line.startswith("step of stage 2"))
        for _ in range(3):
            next(steps)
        os.kill(process.pid, signal.SIGKILL)
    killed = cell(OURS, seed=1)
    assert (begun.claims / f"{killed.key}.lock").is_file()
    assert begun.state(killed) is State.PARTIAL
    assert Runner(begun).run([killed]).done == [killed.key]
    assert contents(begun, killed) == contents(whole, killed)


def test_two_processes_share_the_cells_and_none_is_done_twice(
    begun: Request, whole: Request, tmp_path: Path
) -> None:
    filters = (f"arm={OURS},{PLAIN},{PROBE},{SCRATCH}", "task=all-71", "fraction=1", "seed=0")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    processes = [started(begun, folder, *filters) for folder in folders]
    said = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    ended = [[line for line in lines if ": done" in line] for lines in said]
    began = [line for lines in said for line in lines if line.endswith(": begins")]
    cells = only(cells_of("grid", begun.experiment, BACKBONE), filters)
    assert sorted(line.split(":")[0] for lines in ended for line in lines) == sorted(
        each.key for each in cells
    )
    assert len(began) == len(cells)
    probes = [line for lines in said for line in lines if line.startswith("probe--")]
    assert len(probes) == 1
    for each in cells:
        assert contents(begun, each) == contents(whole, each), each.key


def test_cells_of_others_are_left_to_them(begun: Request) -> None:
    with claim(begun.claims, cell(PLAIN).key):
        outcome = Runner(begun).run([cell(PLAIN), cell(SCRATCH)])
        assert begun.state(cell(PLAIN)) is State.RUNNING
    assert outcome.done == [cell(SCRATCH).key]
    assert outcome.elsewhere == [cell(PLAIN).key]


def test_shared_work_of_others_is_waited_for(
    begun: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(begun)
    waits: list[float] = []
    held = claim(begun.claims, f"random--{BACKBONE}--seed0")
    held.__enter__()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        held.__exit__(None, None, None)

    monkeypatch.setattr(run.time, "sleep", wait)
    assert runner.run([cell(SCRATCH_OURS)]).done == [cell(SCRATCH_OURS).key]
    assert waits == [run.POLL]


def test_a_cell_that_fails_is_noted_and_does_not_stop_the_others(begun: Request) -> None:
    folder = begun.run_folder(cell(PLAIN))
    folder.mkdir(parents=True)
    other = {"request": {"stage": "posttrain", "backbone": "another"}}
    (folder / "run.json").write_text(json.dumps(other))
    assert begun.state(cell(PLAIN)) is State.OTHER
    outcome = Runner(begun).run([cell(PLAIN), cell(SCRATCH)])
    assert outcome.done == [cell(SCRATCH).key]
    assert "another" in outcome.failed[cell(PLAIN).key]
    assert "another" in read_json(begun.failure(cell(PLAIN)))["problem"]
    (folder / "run.json").unlink()
    assert begun.state(cell(PLAIN)) is State.FAILED
    assert Runner(begun).run([cell(PLAIN)]).done == [cell(PLAIN).key]
    assert not begun.failure(cell(PLAIN)).exists()


def test_a_changed_recipe_is_another_run(whole: Request) -> None:
    changed = whole.experiment.model_copy(update={"schedule": ("stage2.epochs=2",)})
    request = replace(whole, experiment=changed)
    assert request.state(cell(PLAIN)) is State.OTHER
    outcome = Runner(request).run([cell(PLAIN)])
    assert "another recipe" in outcome.failed[cell(PLAIN).key]
    request.failure(cell(PLAIN)).unlink()
    assert whole.state(cell(PLAIN)) is State.DONE


def test_other_weights_are_another_run(whole: Request, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another encoder")
    request = replace(whole, weights=other)
    assert request.state(cell(PLAIN)) is State.OTHER
    assert request.state(cell(SCRATCH)) is State.DONE


def test_a_probe_left_by_a_process_that_died_before_its_run_began_is_replaced(
    begun: Request, whole: Request
) -> None:
    stale = begun.run_folder(cell(PROBE)) / "stage1"
    stale.mkdir(parents=True)
    (stale / "from-another-recipe").touch()
    assert Runner(begun).run([cell(PROBE)]).done
    assert not (stale / "from-another-recipe").exists()
    assert contents(begun, cell(PROBE)) == contents(whole, cell(PROBE))


def test_training_ends_when_a_claim_is_lost(begun: Request) -> None:
    class Thief:
        """Takes the cell's claim away at its first step."""

        def began(self, stage: str, epochs: int, steps: int) -> None:
            pass

        def stepped(self, epoch: int, step: int, loss: float, lr: float) -> None:
            for file in begun.claims.glob(f"{cell(PLAIN).key}.lock"):
                file.write_text('{"token": "another"}')

        def epoch_ended(self, entry: dict[str, Any]) -> None:
            pass

        def ended(self, stage: str) -> None:
            pass

    outcome = Runner(begun, Thief()).run([cell(PLAIN)])
    assert outcome.elsewhere == [cell(PLAIN).key]
    assert not outcome.failed
    assert not begun.failure(cell(PLAIN)).exists()
    assert not (begun.run_folder(cell(PLAIN)) / "metrics.json").exists()


def test_several_jobs(begun: Request, whole: Request, capfd: pytest.CaptureFixture[str]) -> None:
    cells = [cell(PLAIN), cell(SCRATCH)]
    outcome = run_in_jobs(begun, cells, jobs=2)
    assert outcome.done == [each.key for each in cells]
    assert not outcome.elsewhere
    assert f"{cell(PLAIN).key}: done" in capfd.readouterr().err
    for each in cells:
        assert contents(begun, each) == contents(whole, each)


def test_torchrun_is_refused(begun: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "world", property(lambda self: 2))
    with pytest.raises(ReproduceError, match="--jobs"):
        Runner(begun)
