"""Every run once, in any number of processes, and bit for bit as in one process."""

from __future__ import annotations

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
from einthoven.errors import ReproduceError, TrainingError
from einthoven.experiment.run import run_experiment
from einthoven.files import locked
from einthoven.reproduce.experiment import (
    NO_PROBE,
    PLAIN,
    POST,
    PROBE,
    SCRATCH,
    SCRATCH_POST,
    PretrainingSource,
    load_experiment,
)
from einthoven.reproduce.grid import Run, only, runs_of, shard
from einthoven.reproduce.run import Reproduction, State
from einthoven.signals.store import Store
from einthoven.training.distributed import Processes
from einthoven.training.run import RunFolder

BACKBONE = "mtecg_tiny_100hz"
# Runs part of the pickled reproduction argv[1]; prints what starts and what is done.
SCRIPT = """
import pickle, sys
from dataclasses import replace
from pathlib import Path
from einthoven.reproduce.grid import only, runs_of

reproduction = pickle.loads(Path(sys.argv[1]).read_bytes())
runs = only(runs_of("grid", reproduction.experiment, reproduction.backbone), sys.argv[2:])
replace(reproduction, log=lambda line: print(line, flush=True)).run(runs)
"""


def run(variant: str, task: str = "all-71", fraction: float = 1.0, seed: int = 0) -> Run:
    return Run(BACKBONE, variant, task, fraction, seed)


def started(reproduction: Reproduction, folder: Path, *filters: str) -> subprocess.Popen[str]:
    file = folder / "reproduction.pickle"
    file.write_bytes(pickle.dumps(reproduction))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, file, *filters],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def predictions(reproduction: Reproduction, of: Run) -> list[bytes]:
    folder = reproduction.folder(of) / "predictions"
    return [(folder / f"{split}.parquet").read_bytes() for split in ("validation", "test")]


def test_a_run_equals_a_posttrain_run_by_its_recipe(
    whole: Reproduction, tmp_path: Path, synthetic_path: Path, synthetic_store: Store
) -> None:
    """Bit for bit, although its probe was trained apart and shared."""
    alone = tmp_path / "runs" / run(POST).key
    run_experiment(
        open_cohort(synthetic_path, "all-71", min_records=8),
        synthetic_store,
        BACKBONE,
        recipe=whole.recipe(run(POST)),
        out=alone,
        weights=whole.weights_of(run(POST)),
        options=whole.experiment.options_of(BACKBONE),
        resamples=20,
        processes=Processes("cpu"),
    )
    other = replace(whole, out=tmp_path)
    assert predictions(other, run(POST)) == predictions(whole, run(POST))
    assert RunFolder(alone).request == RunFolder(whole.folder(run(POST))).request


def test_a_probe_is_trained_once_for_all_runs_that_share_it(whole: Reproduction) -> None:
    def features(of: Run) -> int:
        return (whole.folder(of) / "stage1" / "features" / "train-0.npy").stat().st_ino

    assert features(run(POST)) == features(run(PROBE)) == features(run("without-stochastic-depth"))
    others = [run(POST, seed=1), run(POST, fraction=0.5), run(POST, "superclass-5")]
    assert len({features(each) for each in [run(POST), *others, run(SCRATCH_POST)]}) == 5
    assert len(list((whole.out / "shared").glob("probe--*"))) == 5
    assert not (whole.folder(run(NO_PROBE)) / "stage1").exists()


def test_initial_weights(whole: Reproduction, tmp_path: Path) -> None:
    assert len(list((whole.out / "shared").glob("pretraining--*"))) == 1

    def weights(of: Run) -> Any:
        return RunFolder(whole.folder(of)).request["weights"]

    assert weights(run(POST)) == weights(run(POST, seed=1)) == weights(run(PLAIN))
    assert weights(run(SCRATCH)) is None
    assert weights(run(SCRATCH_POST))["is_random"]
    assert not weights(run(POST))["is_random"]
    passed = replace(whole, out=tmp_path, weights=whole.weights_of(run(POST)))
    assert passed.weights_of(run(PLAIN)) == passed.weights
    assert passed.weights_of(run(SCRATCH)) is None
    other = Run("st_mem_tiny", PLAIN, "all-71", 1.0, 0)
    assert passed.weights_of(other) == passed.pretraining("st_mem_tiny") / "model"


def test_finished_runs_are_not_touched(whole: Reproduction) -> None:
    folder = whole.folder(run(POST))
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    lines: list[str] = []
    states = replace(whole, log=lines.append).run([run(POST), run(PLAIN)])
    runs = runs_of("grid", whole.experiment, BACKBONE)
    assert {file.name for file in (whole.out / "runs").iterdir()} == {each.key for each in runs}
    assert not list(whole.out.rglob("*.tmp"))
    assert states == dict.fromkeys([run(POST), run(PLAIN)], State.DONE)
    assert not lines
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_reproduction_resumes(
    begun: Reproduction, whole: Reproduction, tmp_path: Path
) -> None:
    killed = run(POST, seed=1)
    with started(begun, tmp_path, "variant=post-training", "task=all-71", "seed=1") as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith(f"{killed.key}: started"))
        os.kill(process.pid, signal.SIGKILL)
    assert begun.state(killed) in (State.MISSING, State.PARTIAL)
    assert begun.run([killed]) == {killed: State.DONE}
    assert predictions(begun, killed) == predictions(whole, killed)


def test_two_processes_share_the_runs(
    begun: Reproduction, whole: Reproduction, tmp_path: Path
) -> None:
    filters = (f"variant={POST},{PLAIN},{PROBE}", "task=all-71", "fraction=1", "seed=0")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    processes = [started(begun, folder, *filters) for folder in folders]
    lines = [line for p in processes for line in p.communicate()[0].splitlines()]
    assert [process.returncode for process in processes] == [0, 0]
    assert len([line for line in lines if line.startswith("probe--")]) == 1
    runs = only(runs_of("grid", begun.experiment, BACKBONE), filters)
    done = sorted(line.split(":")[0] for line in lines if ": done" in line)
    assert done == sorted(each.key for each in runs)
    for each in runs:
        assert predictions(begun, each) == predictions(whole, each), each.key


def test_locked_runs_are_skipped(begun: Reproduction) -> None:
    assert begun.states([run(SCRATCH)]) == {run(SCRATCH): State.MISSING}
    with locked(begun.lock(run(PLAIN).key)):
        states = begun.run([run(PLAIN), run(SCRATCH)])
        assert begun.states([run(PLAIN), run(SCRATCH)]) == states
    assert states == {run(PLAIN): State.RUNNING, run(SCRATCH): State.DONE}


def test_a_failure_does_not_stop_the_other_runs(begun: Reproduction) -> None:
    folder = begun.folder(run(PLAIN))
    folder.mkdir(parents=True)
    shutil.copytree(begun.pretraining(BACKBONE), folder, dirs_exist_ok=True)
    assert begun.state(run(PLAIN)) is State.OTHER
    states = begun.run([run(PLAIN), run(SCRATCH)])
    assert states == {run(PLAIN): State.FAILED, run(SCRATCH): State.DONE}
    shutil.rmtree(folder)
    assert begun.run([run(PLAIN)]) == {run(PLAIN): State.DONE}


def test_another_recipe_or_encoder_is_another_run(whole: Reproduction, tmp_path: Path) -> None:
    changed = whole.experiment.model_copy(update={"schedule": ("stage2.epochs=2",)})
    assert replace(whole, experiment=changed).state(run(PLAIN)) is State.OTHER
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another encoder")
    assert replace(whole, weights=other).state(run(PLAIN)) is State.OTHER
    assert replace(whole, weights=other).state(run(SCRATCH)) is State.DONE


def test_a_stale_probe_is_replaced(begun: Reproduction, whole: Reproduction) -> None:
    stale = begun.folder(run(PROBE)) / "stage1"
    stale.mkdir(parents=True)
    (stale / "from-another-recipe").touch()
    assert begun.run([run(PROBE)]) == {run(PROBE): State.DONE}
    assert not (stale / "from-another-recipe").exists()
    assert predictions(begun, run(PROBE)) == predictions(whole, run(PROBE))


def test_parts_of_two_machines_are_merged(
    whole: Reproduction, begun: Reproduction, tmp_path: Path
) -> None:
    runs = runs_of("grid", whole.experiment, BACKBONE)
    merged = replace(whole, out=tmp_path / "merged")
    for part in ("1/2", "2/2"):
        machine = replace(whole, out=tmp_path / part.replace("/", "-"))
        shutil.copytree(begun.out / "shared", machine.out / "shared")
        for each in shard(runs, part):
            shutil.copytree(whole.folder(each), machine.folder(each))
        shutil.copytree(machine.out, merged.out, dirs_exist_ok=True)
    assert merged.run(runs) == dict.fromkeys(runs, State.DONE)


def test_a_backbone_that_cannot_be_pretrained_is_refused(
    whole: Reproduction, tmp_path: Path
) -> None:
    other = replace(
        whole, out=tmp_path, backbone="s4_tiny", experiment=load_experiment("published")
    )
    with pytest.raises(ReproduceError, match="s4_tiny") as refused:
        other.check(runs_of("table-2", other.experiment, "s4_tiny"))
    assert refused.value.remedy is not None


def test_a_pretraining_by_another_recipe_is_refused(whole: Reproduction, tmp_path: Path) -> None:
    """By the comparison of requests in the run folder; the other run's files stay."""
    source = PretrainingSource(recipe="demo", set=("epochs=2",))
    other = whole.experiment.model_copy(update={"pretraining": (source,)})
    changed = replace(whole, experiment=other, out=tmp_path / "changed")
    folder = changed.pretraining(BACKBONE)
    folder.mkdir(parents=True)
    shutil.copy(whole.pretraining(BACKBONE) / "run.json", folder)
    with pytest.raises(TrainingError, match=r"recipe\W\w+: \d; now \d"):
        changed.run([run(PLAIN)])


def test_torchrun_is_refused(begun: Reproduction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "world", property(lambda self: 2))
    with pytest.raises(ReproduceError) as refused:
        begun.run([])
    assert refused.value.remedy is not None
