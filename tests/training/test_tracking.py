"""Trackers: every line once, also after a resumption; an error never ends a training."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from recorder import KilledError

from einthoven.errors import TrainingError
from einthoven.files import (
    HISTORY_FILE,
    METRICS_FILE,
    RUN_FILE,
    Json,
    append_line,
    read_json,
    write_json,
)
from einthoven.training import tracking
from einthoven.training.tracking import TRACKERS, TrackingWarning, tracked

RECIPE = {
    "name": "short", "description": "/home/anna/ecgs", "extends": "/home/anna/my.toml",
    "stage1": None, "stage2": {"epochs": 3, "base_lr": 0.01, "betas": [0.9, 0.999]},
}  # fmt: skip
PARAMETERS = {
    "backbone": "tiny", "name": "short", "stage1": "null",
    "stage2.epochs": 3, "stage2.base_lr": 0.01, "stage2.betas": "[0.9, 0.999]",
}  # fmt: skip
SCORE = {"macro_auroc": 0.9, "macro_auprc": 0.8, "f_max": None, "records": 40, "seed": 0}
LOSS = 1.0625  # of the first epoch
Steps = dict[str, list[tuple[int, float]]]


class Server:
    """Tracked runs of a recording writer, which fails while it is told to."""

    def __init__(self) -> None:
        self.runs: dict[str, Steps] = {}
        self.parameters: Json = {}
        self.endings: list[bool] = []
        self.fails = False

    def writer(self, folder: Path, parameters: Json, identity: str) -> Any:
        return Recording(self, folder, parameters, identity)


class Recording:
    """A writer whose server keeps every value."""

    place = "here"

    def __init__(self, server: Server, folder: Path, parameters: Json, identity: str) -> None:
        self.server = server
        self._check()
        self.identity = identity or f"{folder.name}-{len(server.runs)}"
        self.steps = server.runs.setdefault(self.identity, defaultdict(list))
        server.parameters = server.parameters if identity else parameters
        self.latest = {key: steps[-1][1] for key, steps in self.steps.items()}

    def _check(self) -> None:
        if self.server.fails:
            warnings.warn("of the package", DeprecationWarning, stacklevel=1)
            raise OSError("no such server")

    def write(self, values: dict[str, float], step: int) -> None:
        self._check()
        for key, value in values.items():
            self.steps[key].append((step, value))

    def finish(self, *, is_complete: bool) -> None:
        self._check()
        self.server.endings.append(is_complete)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server, reached as the tracker `json`: the name of a package that is always there."""
    server = Server()
    monkeypatch.setitem(TRACKERS, "json", server.writer)  # type: ignore[arg-type]
    monkeypatch.setattr(tracking, "_SECONDS", 0.0)
    return server


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Folder of a run that has just begun."""
    folder = tmp_path / "mine"
    write_json(folder / RUN_FILE, {"request": {"backbone": "tiny", "recipe": RECIPE}})
    return folder


def train(run: Path, progress: Any, epochs: range, stage: str = "stage2") -> None:
    """Write the lines of some epochs of a stage, as the loop does."""
    (run / stage).mkdir(parents=True, exist_ok=True)
    for epoch in epochs:
        line: dict[str, Any] = {"epoch": epoch, "train_loss": LOSS / epoch, "note": None}
        append_line(run / stage / HISTORY_FILE, line)
        progress("stage", epoch, 3, line)


def steps(values: Mapping[str, list[tuple[int, float]]], key: str) -> list[int]:
    return [step for step, _ in values[key]]


def test_lines_recipe_and_test_metrics_are_sent(server: Server, run: Path) -> None:
    seen = []
    with tracked("json", run, lambda *call: seen.append(call)) as progress:
        train(run, progress, range(1, 3), "stage1/lr-0.1")
        train(run, progress, range(1, 4))
        append_line(run / HISTORY_FILE.replace("metrics", "seconds"), {"seconds": 1})
        write_json(run / METRICS_FILE, {"test": SCORE})
    (values,) = server.runs.values()
    assert values == {
        "stage1/lr-0.1/epoch": [(1, 1), (2, 2)],
        "stage1/lr-0.1/train_loss": [(1, LOSS), (2, LOSS / 2)],
        "stage2/epoch": [(1, 1), (2, 2), (3, 3)],
        "stage2/train_loss": [(1, LOSS), (2, LOSS / 2), (3, LOSS / 3)],
        "test/macro_auroc": [(0, 0.9)],
        "test/macro_auprc": [(0, 0.8)],
    }
    assert server.parameters == PARAMETERS
    assert server.endings == [True]
    assert len(seen) == 5


@pytest.mark.parametrize("sent", [1, 2])
def test_a_resumed_run_goes_on_without_doubled_steps(
    server: Server, run: Path, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after the second line was sent; the third is resumed."""
    killed = tracked("json", run)
    progress = killed.__enter__()  # never left, as if the process was killed
    train(run, progress, range(1, 2))
    monkeypatch.setattr(tracking, "_SECONDS", 0.0 if sent == 2 else 1e9)
    train(run, progress, range(2, 3))
    (values,) = server.runs.values()
    assert len(values["stage2/epoch"]) == sent
    for _ in range(2):  # the second time the run is complete
        with tracked("json", run) as progress:
            if not (run / METRICS_FILE).exists():
                train(run, progress, range(3, 4))
                write_json(run / METRICS_FILE, {"test": SCORE})
    assert len(server.runs) == 1
    assert steps(values, "stage2/train_loss") == [1, 2, 3]
    assert steps(values, "test/macro_auroc") == [0]
    assert read_json(run / tracking.TRACKING) == {"json": "mine-0"}


@pytest.mark.parametrize("when", ["from the start", "in between", "at the end"])
def test_an_error_of_the_tracker_is_one_warning(server: Server, run: Path, when: str) -> None:
    """The training goes on, and a repeated command sends what is missing."""
    server.fails = when == "from the start"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with tracked("json", run) as progress:
            train(run, progress, range(1, 2))
            server.fails |= when == "in between"
            train(run, progress, range(2, 4))
            server.fails = True
    assert [each.category for each in caught] == [TrackingWarning]
    server.fails = False
    with tracked("json", run):
        pass
    (values,) = server.runs.values()
    assert steps(values, "stage2/epoch") == [1, 2, 3]


def test_a_refused_run_is_not_begun(server: Server, run: Path) -> None:
    with pytest.raises(TrainingError), tracked("json", run):
        raise TrainingError("the folder holds another run", remedy="choose another")
    assert not server.runs


def test_a_missing_package_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a folder of its name, such as those that wandb writes, on the path."""
    (tmp_path / "no_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("no_tracker", "no_other_tracker"):
        with pytest.raises(TrainingError) as refusal, tracked(name, run):
            pytest.fail("begun")
        assert refusal.value.remedy == f"pip install {name}"


def test_without_a_tracker_the_progress_is_unchanged(run: Path) -> None:
    with tracked(None, run, print) as progress:
        assert progress is print


def interrupted(tracker: str, run: Path) -> None:
    """Train one epoch, and stop."""
    with tracked(tracker, run) as progress:
        train(run, progress, range(1, 2))
        raise KilledError


def resumed(tracker: str, run: Path) -> None:
    """Train one epoch, stop, and resume to the end."""
    with pytest.raises(KilledError):
        interrupted(tracker, run)
    time.sleep(1.1)  # wandb's folders have the time in seconds in their names
    with tracked(tracker, run) as progress:
        train(run, progress, range(2, 4))
        write_json(run / METRICS_FILE, {"test": SCORE})


def test_tensorboard(run: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    resumed("tensorboard", run)
    events = EventAccumulator(str(run)).Reload()
    assert [event.step for event in events.Scalars("stage2/train_loss")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("test/macro_auroc")] == [pytest.approx(0.9)]
    assert len(list(run.glob("events.*"))) == 1


def test_mlflow(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # where it makes folders
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    resumed("mlflow", run)
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("einthoven")
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, "stage2/train_loss")
    steps = [(each.step, each.value) for each in history]
    assert steps == [(1, LOSS), (2, LOSS / 2), (3, LOSS / 3)]
    assert found.data.metrics["test/macro_auroc"] == 0.9
    assert found.data.params == {key: str(value) for key, value in PARAMETERS.items()}
    assert found.data.tags == {"mlflow.runName": "mine"}
    assert (found.info.run_name, found.info.status) == ("mine", "FINISHED")


def test_mlflow_without_a_server(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.warns(TrackingWarning), tracked("mlflow", run) as progress:
        train(run, progress, range(1, 4))


def test_wandb_offline(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last folder contains the whole run, and no path."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    resumed("wandb", run)
    wandb.teardown()  # its process writes the file after the run was ended
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    written = file.read_bytes()
    for epoch in (1, 2, 3):
        assert str(LOSS / epoch).encode() in written
    assert b"stage2.base_lr" in written
    assert str(run.parent).encode() not in written
    assert b"/home/anna" not in written
