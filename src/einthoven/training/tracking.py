"""Copies of a run's metrics in TensorBoard, MLflow or Weights & Biases.

The JSON lines of the run folder are the truth. While a run trains, the lines that the tracked run
does not contain yet are sent. Nothing is therefore doubled when a run is resumed, and a tracker
that was out of reach receives what it missed when the command is repeated.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pandas import json_normalize

from einthoven.errors import TrainingError
from einthoven.files import HISTORY_FILE, METRICS_FILE, Json, read_json, read_lines, write_json
from einthoven.progress import Progress
from einthoven.training.run import RunFolder

log = logging.getLogger(__name__)
TRACKING = "tracking.json"
_SECONDS = 2.0  # between two readings of the JSON lines
_LEFT_OUT = ("description", "extends")  # of a recipe: free text, and perhaps a path


class TrackingWarning(UserWarning):
    """Metrics no longer reach the tracker."""


class Writer(Protocol):
    """A tracked run, with the name of its run folder; new, or the earlier one of an identity.

    `identity` is that of this run, empty if it is not needed again, `place` where to look at it,
    and `latest` the last value of every metric that it contains.
    """

    identity: str
    place: str
    latest: Mapping[str, float]

    def __init__(self, folder: Path, parameters: Json, identity: str) -> None: ...

    def write(self, values: dict[str, float], step: int) -> None:
        """Add the values of a step."""

    def finish(self, *, is_complete: bool) -> None:
        """End the tracked run."""


class TensorBoard(Writer):
    """Event file in the run folder, written anew from the first line when a run is resumed."""

    def __init__(self, folder: Path, parameters: Json, identity: str) -> None:
        from torch.utils import tensorboard

        module: Any = tensorboard  # without types
        for file in folder.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = module.SummaryWriter(str(folder))
        for summary in module.summary.hparams(parameters, {}):
            self._writer.file_writer.add_summary(summary)
        self.identity, self.place = "", f"tensorboard --logdir {folder.parent}"
        self.latest = {}

    def write(self, values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def finish(self, *, is_complete: bool) -> None:
        self._writer.close()


class Mlflow(Writer):
    """Run of the experiment MLFLOW_EXPERIMENT_NAME, or `einthoven`, of MLFLOW_TRACKING_URI."""

    def __init__(self, folder: Path, parameters: Json, identity: str) -> None:
        # By default, a server that does not answer is waited for during several minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        # Runs of the client, unlike those of `start_run`, have no tags of user, script and commit.
        self._client: Any = MlflowClient()
        if not identity:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "einthoven")
            found = self._client.get_experiment_by_name(name)
            number = found.experiment_id if found else self._client.create_experiment(name)
            identity = self._client.create_run(number, run_name=folder.name).info.run_id
            for key, value in parameters.items():
                self._client.log_param(identity, key, value)
        self._client.update_run(identity, status="RUNNING")
        self.identity, self.place = identity, f"run {identity}"
        self.latest = self._client.get_run(identity).data.metrics

    def write(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        names = {key: re.sub(r"[^\w\-. :/]", "_", key) for key in values}
        metrics = [Metric(names[key], value, now, step) for key, value in values.items()]
        self._client.log_batch(self.identity, metrics)

    def finish(self, *, is_complete: bool) -> None:
        self._client.set_terminated(self.identity, "FINISHED" if is_complete else "FAILED")


class Wandb(Writer):
    """Run of the project WANDB_PROJECT, or `einthoven`.

    Offline (WANDB_MODE), it is written anew from the first line when a run is resumed.
    """

    def __init__(self, folder: Path, parameters: Json, identity: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.identity = identity or uuid.uuid4().hex
        settings = wandb.Settings(  # no command, script, output, machine or user
            console="off", disable_code=True, disable_git=True, disable_job_creation=True,
            host="-", init_timeout=30, login_timeout=30, program="-", save_code=False, silent=True,
            x_disable_machine_info=True, x_disable_meta=True, x_disable_stats=True,
            x_save_requirements=False,
        )  # fmt: skip
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "einthoven"), name=folder.name,
            id=self.identity, resume="allow", config=parameters, dir=folder, settings=settings,
        )  # fmt: skip
        place = Path(self._run.dir).parent
        self.place = f"wandb sync {place}" if self._run.offline else str(self._run.url)
        if self._run.offline:
            for other in {*place.parent.glob(f"offline-run-*-{self.identity}")} - {place}:
                shutil.rmtree(other)
        self.latest = dict(self._run.summary)

    def write(self, values: dict[str, float], step: int) -> None:
        for key in values:
            if key.endswith("/epoch"):
                self._run.define_metric(key.removesuffix("epoch") + "*", step_metric=key)
        self._run.log(values)

    def finish(self, *, is_complete: bool) -> None:
        self._run.finish(exit_code=0 if is_complete else 1)


TRACKERS: dict[str, type[Writer]] = {"tensorboard": TensorBoard, "mlflow": Mlflow, "wandb": Wandb}


@contextmanager
def tracked(
    tracker: str | None, folder: str | Path, progress: Progress | None = None
) -> Iterator[Progress | None]:
    """Send the metrics of the run that the block trains to one of `TRACKERS`; None sends nothing.

    Yields the progress to pass to the training; `progress` is called as well. An error of the
    tracker is issued as a `TrackingWarning`, once, and the training goes on.

    Raises
    ------
    TrainingError
        If the tracker's package is not installed.
    """
    if tracker is None:
        yield progress
        return
    check_tracker(tracker)
    copy, is_complete = _Copy(tracker, Path(folder).resolve(), progress), False
    try:
        yield copy
        is_complete = True
    finally:
        if is_complete or copy.writer is not None:  # a refused run is not begun
            copy.send(ended=True, is_complete=is_complete)


def check_tracker(tracker: str) -> None:
    """Refuse a tracker whose package is not installed."""
    spec = find_spec(tracker)
    if spec is None or spec.origin is None:  # a folder of that name is no package
        raise TrainingError(f"{tracker} is not installed", remedy=f"pip install {tracker}")


class _Copy:
    """Progress that also sends the lines of a run folder to a tracker."""

    def __init__(self, tracker: str, folder: Path, progress: Progress | None) -> None:
        self.tracker, self.folder, self.progress = tracker, folder, progress
        self.writer: Writer | None = None
        self._sent: dict[str, float] = {}
        self._is_lost, self._read_at = False, -math.inf

    def __call__(
        self, task: str, completed: int, total: int, metrics: Mapping[str, float] | None = None, /
    ) -> None:
        if self.progress is not None:
            self.progress(task, completed, total, metrics)
        is_epoch = metrics is not None and "train_loss" in metrics
        if is_epoch and time.monotonic() - self._read_at > _SECONDS:
            self.send()
            self._read_at = time.monotonic()

    def send(self, *, ended: bool = False, is_complete: bool = False) -> None:
        if self._is_lost:
            return
        try:
            with warnings.catch_warnings(action="ignore"):
                self.writer = self.writer or self._open()
                self._write(self.writer, with_test=is_complete)
                if ended:
                    self.writer.finish(is_complete=is_complete)
        except Exception as error:  # packages raise whatever servers and disks run into
            self._is_lost = True
            reason = str(error).strip() or type(error).__name__
            text = f"{reason}; the training goes on, and repeating the command sends the rest"
            warnings.warn(f"--track {self.tracker}: {text}", TrackingWarning, stacklevel=2)

    def _open(self) -> Writer:
        file = self.folder / TRACKING
        known, request = read_json(file) if file.is_file() else {}, RunFolder(self.folder).request
        recipe = {key: value for key, value in request["recipe"].items() if key not in _LEFT_OUT}
        (table,) = json_normalize({"backbone": request["backbone"], **recipe}).to_dict("records")
        parameters = {
            str(key): value if isinstance(value, bool | int | float | str) else json.dumps(value)
            for key, value in table.items()
        }
        writer = TRACKERS[self.tracker](self.folder, parameters, known.get(self.tracker, ""))
        if writer.identity:
            write_json(file, {**known, self.tracker: writer.identity})
        self._sent = dict(writer.latest)
        log.info(f"tracked by {self.tracker}: {writer.place}")
        return writer

    def _write(self, writer: Writer, *, with_test: bool) -> None:
        for file in sorted(self.folder.rglob(HISTORY_FILE)):
            stage = file.parent.relative_to(self.folder).as_posix()
            for line in read_lines(file):
                if line["epoch"] > self._sent.get(f"{stage}/epoch", 0):
                    values = _numbers(stage, line)
                    writer.write(values, line["epoch"])
                    self._sent |= values
        if with_test and (self.folder / METRICS_FILE).is_file():  # not after pretraining
            values = _numbers("test", _measures(read_json(self.folder / METRICS_FILE)["test"]))
            if not any(key.startswith("test/") for key in self._sent):
                writer.write(values, 0)


def _measures(score: Json) -> Json:
    from einthoven.report.measures import measured

    areas = {key: score.get(key) for key in ("macro_auroc", "macro_auprc", "f_max")}
    return areas | {item.key: item.values[item.metric] for item in measured(score)}


def _numbers(stage: str, line: Json) -> dict[str, float]:
    return {
        f"{stage}/{key}": float(value)
        for key, value in line.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
