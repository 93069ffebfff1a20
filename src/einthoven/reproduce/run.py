"""Where a reproduction keeps its runs, how far they are, and running them.

::

    OUT/runs/RUN/              run folders, as `einthoven posttrain` writes them
    OUT/shared/                pretraining, random encoders, linear probes of several runs
    OUT/against/               predictions of models that table 1 compares with
    OUT/locks/                 one lock file a run, and one for each shared result
    OUT/results.md, figures/   tables, figures, and their numbers as JSON

Any number of processes may work on one folder: a run whose lock is held elsewhere is skipped, and
shared results are waited for.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import torch

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import BackboneError, EinthovenError, PreparationError, ReproduceError
from einthoven.experiment.run import METRICS, run_experiment
from einthoven.files import (
    Json,
    file_sha256,
    locked,
    read_json,
    read_lines,
    write_json,
)
from einthoven.models import (
    Model,
    derived_provenance,
    is_model,
    save_model,
    weights_file,
)
from einthoven.progress import Progress
from einthoven.reproduce.experiment import Experiment, experiment_names, load_experiment
from einthoven.reproduce.grid import Run
from einthoven.signals.store import Store
from einthoven.stages.data import with_fraction
from einthoven.stages.posttrain import posttrain
from einthoven.stages.pretrain import MODEL, check_pretraining, pretrain, suits
from einthoven.stages.recipe import Recipe
from einthoven.training.distributed import Processes
from einthoven.training.run import ABOUT

RUNS, SHARED = "runs", "shared"
RANDOM = "random--"  # prefix of encoders with random weights
_COMPLETE = "complete.json"


class State(StrEnum):
    """Progress of a run."""

    DONE = "done"
    RUNNING = "running"
    PARTIAL = "partial"
    OTHER = "other"  # its folder contains a run with another request
    MISSING = "missing"


@dataclass(frozen=True)
class Reproduction:
    """What is reproduced, from which data, and where; everything but the choice of runs.

    Attributes
    ----------
    experiment : Experiment
    backbone : str
        The command's; empty if the experiment's rows name theirs.
    cohort, store, out : Path
    weights : Path or None
        The backbone's pretrained encoder; without it the experiment pretrains one.
    device : str
        `auto`, `cpu` or `cuda`.
    threads : int or None
    against : tuple of Path
        Further post-trained models for table 1: run folders, folders of other reproductions, model
        folders.
    """

    experiment: Experiment
    backbone: str
    cohort: Path
    store: Path
    out: Path
    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None
    against: tuple[Path, ...] = ()

    @cached_property
    def records_digest(self) -> str | None:
        """Digest of the store's records; None before it is packed."""
        if not (self.store / "store.json").is_file():
            return None
        return str(Store.open(self.store).manifest["records_digest"])

    def open_cohort(self, task: str) -> Cohort:
        """The cohort with a task's labels; read again when its tables have changed.

        Raises
        ------
        CohortError
            If it cannot be opened.
        """
        return _opened(self.cohort.absolute(), task, self.experiment.min_records, *self._tables())

    def _tables(self) -> tuple[tuple[str, int, int], ...]:
        files = sorted(self.cohort.glob("*.csv")) if self.cohort.is_dir() else [self.cohort]
        stats = [(file.name, file.stat()) for file in files if file.is_file()]
        return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)

    def cohort_digest(self, run: Run) -> str | None:
        """Digest of a run's records and labels; None if the cohort's tables are absent."""
        if not self._tables():
            return None
        data = self.recipe(run).data
        return with_fraction(self.open_cohort(run.task), data, seed=run.seed).digest

    def recipe(self, run: Run) -> Recipe:
        """A run's recipe."""
        return self.experiment.recipe(
            run.variant, run.backbone, seed=run.seed, fraction=run.fraction
        )

    def options(self, run: Run) -> dict[str, Any] | None:
        """Fields of a run's backbone config."""
        return self.experiment.options_of(run.backbone)

    def folder(self, run: Run) -> Path:
        """A run's folder."""
        return self.out / RUNS / run.key

    def lock(self, name: str) -> Path:
        """Lock file of a run or shared result."""
        return self.out / "locks" / f"{name}.lock"

    def source_seed(self, run: Run) -> int:
        """Seed of a run's pretraining."""
        return run.seed if self.experiment.source_of(run.backbone).per_seed else 0

    def pretraining(self, run: Run) -> Path:
        """The pretraining run that a run starts from, if no weights are given."""
        return self.out / SHARED / f"pretraining--{run.backbone}--seed{self.source_seed(run)}"

    def random_encoder(self, run: Run) -> Path:
        """An encoder with random weights, for recipes that probe one."""
        return self.out / SHARED / f"{RANDOM}{run.backbone}--seed{run.seed}"

    def weights_of(self, run: Run) -> Path | None:
        """Initial weights of a run, whether or not they exist yet; None for none."""
        if self.recipe(run).initialise == "random":
            return None
        if self.experiment.starts_random(run.variant, run.backbone):
            return self.random_encoder(run)
        if self.weights is not None and run.backbone == self.backbone:
            return self.weights
        return self.pretraining(run) / MODEL

    def is_pretrained_here(self, run: Run) -> bool:
        """Whether a run starts from the encoder that the experiment pretrains."""
        weights = self.weights_of(run)
        return weights is not None and weights not in (self.weights, self.random_encoder(run))

    def probe(self, run: Run, recipe: Recipe, cohort_digest: str) -> Path:
        """A linear probe, shared by all runs with the same request."""
        weights = self.weights_of(run)
        request = {
            "backbone": run.backbone,
            "weights": weights and weights_sha256(weights),
            "cohort": cohort_digest,
            "records": self.records_digest,
            "options": self.options(run),
            "recipe": recipe.to_dict(),
        }
        digest = sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]
        return self.out / SHARED / f"probe--{run.backbone}--{digest}"

    def state(self, run: Run) -> State:
        """Progress of a run."""
        folder = self.folder(run)
        if not (folder / ABOUT).is_file():
            return State.MISSING
        if not self.is_request_of(run, request_of(folder)):
            return State.OTHER
        return State.DONE if (folder / METRICS).is_file() else State.PARTIAL

    def is_request_of(self, run: Run, request: Json) -> bool:
        """Whether a folder's request is that of a run.

        Weights that are absent, and digests of an absent cohort or store, are not compared: runs
        may be read on another machine.
        """
        expected = {
            "backbone": run.backbone,
            "task": run.task,
            "recipe": self.recipe(run).to_dict(),
            "backbone_options": self.options(run),
        }
        if self.records_digest is not None:
            expected["records_digest"] = self.records_digest
        if any(request.get(key) != value for key, value in expected.items()):
            return False
        weights, recorded = self.weights_of(run), request.get("weights")
        if weights is None or recorded is None:
            return weights is None and recorded is None
        if weights.exists() and recorded["sha256"] != weights_sha256(weights):
            return False
        digest = self.cohort_digest(run)  # last because it is the most expensive
        return digest is None or request.get("cohort_digest") == digest


def request_of(folder: Path) -> Json:
    """The request of a run folder."""
    request: Json = read_json(folder / ABOUT)["request"]
    return request


@lru_cache(maxsize=8)
def _opened(path: Path, task: str, min_records: int, *tables: tuple[str, int, int]) -> Cohort:
    # `tables` invalidates the cache when a file changes.
    return open_cohort(path, task, **({"min_records": min_records} if min_records else {}))


def weights_sha256(weights: Path) -> str:
    """SHA-256 of a weights file, or of the weights of a model folder."""
    file = weights_file(weights)
    return _digest(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(file: Path, modified: int) -> str:
    # `modified` invalidates the cache when the file changes.
    return file_sha256(file)


def check(reproduction: Reproduction, runs: Sequence[Run]) -> None:
    """Refuse, before anything is trained, runs whose backbone cannot be pretrained.

    Raises
    ------
    ReproduceError
        If the experiment's pretraining does not suit the backbone, or an encoder or other runs in
        the folder belong to another pretraining.
    """
    experiment = reproduction.experiment
    pretrained = [run for run in runs if reproduction.is_pretrained_here(run)]
    for run in pretrained:
        _check_encoder(reproduction, run)
    missing = [run for run in pretrained if not is_model(reproduction.pretraining(run) / MODEL)]
    for backbone in dict.fromkeys(run.backbone for run in missing):
        recipe = experiment.pretraining_recipe(backbone, 0)
        try:
            check_pretraining(recipe, backbone, experiment.pretraining_options(backbone))
        except (BackboneError, PreparationError) as error:
            raise ReproduceError(
                f"experiment {experiment.name} cannot pretrain {backbone}: {error.problem} "
                f"(recipe {recipe.name}, objective {recipe.objective})",
                remedy=f"pass --weights, or choose {_alternatives(backbone)}",
            ) from error


def _check_encoder(reproduction: Reproduction, run: Run) -> None:
    folder = reproduction.pretraining(run)
    if (folder / ABOUT).is_file():
        recipe = reproduction.experiment.pretraining_recipe(
            run.backbone, reproduction.source_seed(run)
        )
        if request_of(folder)["recipe"] != json.loads(json.dumps(recipe.to_dict())):
            raise ReproduceError(
                f"{folder} was pretrained by another recipe than that of experiment "
                f"{reproduction.experiment.name}",
                remedy="choose another folder: --out",
            )
    elif recorded := _recorded_weights(reproduction, run):
        raise ReproduceError(
            f"runs in {reproduction.out} started from {recorded}, which is not in {folder.parent}",
            remedy=f"pass it as --weights, copy {folder.name} into {folder.parent}, or choose "
            "another --out",
        )


def _recorded_weights(reproduction: Reproduction, run: Run) -> str:
    """Name and digest of a pretrained encoder that finished runs of a backbone started from."""
    for file in sorted((reproduction.out / RUNS).glob(f"{run.backbone}--*/{ABOUT}")):
        weights = request_of(file.parent).get("weights")
        if weights is not None and not Path(weights["path"]).name.startswith(RANDOM):
            return f"{Path(weights['path']).name} (SHA-256 {weights['sha256'][:12]})"
    return ""


def _alternatives(backbone: str) -> str:
    """Experiments that train or pretrain a backbone."""
    suitable = []
    for experiment in map(load_experiment, experiment_names()):
        if experiment.table_1_only:
            if any(row.backbone == backbone for row in experiment.rows):
                suitable.append(experiment.name)
        elif suits(
            experiment.pretraining_recipe(backbone, 0),
            backbone,
            experiment.pretraining_options(backbone),
        ):
            suitable.append(experiment.name)
    return f"--experiment {' or '.join(suitable) or 'with a pretraining that suits it'}"


@dataclass(frozen=True)
class Planned:
    """A run, its progress, and the seconds that it still takes; None if not yet known."""

    run: Run
    state: State
    seconds: float | None


def plan(reproduction: Reproduction, runs: Sequence[Run]) -> list[Planned]:
    """Progress and cost of runs; trains nothing and writes nothing.

    The cost is that of the remaining epochs of fine-tuning, from the median epoch of the same
    backbone in this folder.

    Raises
    ------
    ReproduceError
        If `check` refuses the runs.
    """
    check(reproduction, runs)
    speeds = {name: _seconds_a_record(reproduction, name) for name in {r.backbone for r in runs}}
    planned = []
    for run in runs:
        state, speed = reproduction.state(run), speeds[run.backbone]
        if state is not State.DONE and _is_locked(reproduction.lock(run.key)):
            state = State.RUNNING
        seconds = 0.0 if state is State.DONE else None
        if seconds is None and speed is not None:
            stage2 = reproduction.recipe(run).stage2
            epochs = stage2.epochs - len(_epochs(reproduction.folder(run))) if stage2 else 0
            records = len(reproduction.open_cohort(run.task).ids("train"))
            seconds = max(0, epochs) * speed * run.fraction * records
        planned.append(Planned(run, state, seconds))
    return planned


def _is_locked(file: Path) -> bool:
    if not file.is_file():
        return False
    with locked(file, wait=False) as free:
        return not free


def _seconds_a_record(reproduction: Reproduction, backbone: str) -> float | None:
    """Median seconds of an epoch a training record, validation included."""
    speeds = []
    for file in sorted((reproduction.out / RUNS).glob(f"{backbone}--*/{ABOUT}")):
        request = request_of(file.parent)
        records = len(reproduction.open_cohort(request["task"]).ids("train"))
        trained = records * request["recipe"]["data"]["fraction"]
        for epoch in _epochs(file.parent):
            speeds.append((epoch["seconds"] + epoch["validation_seconds"]) / trained)
    return median(speeds) if speeds else None


def _epochs(folder: Path) -> list[Json]:
    return read_lines(folder / "stage2" / "metrics.jsonl")


@dataclass
class Outcome:
    """Keys of the runs that are done, failed (with the error) or running elsewhere."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)


@dataclass
class Runner:
    """One process that runs parts of a reproduction.

    Attributes
    ----------
    reproduction : Reproduction
    progress : Progress, optional
        Progress of training and prediction.
    log : callable
        Receives one line when something starts or ends.
    """

    reproduction: Reproduction
    progress: Progress | None = None
    log: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        self.store = Store.open(self.reproduction.store)
        self.processes = Processes(self.reproduction.device)
        if self.processes.world > 1:
            raise ReproduceError(
                "the runs of a reproduction are not distributed over processes",
                remedy="start it without torchrun, and use --shard to run several side by side",
            )
        if self.reproduction.threads:
            torch.set_num_threads(self.reproduction.threads)

    def run(self, runs: Sequence[Run]) -> Outcome:
        """Run everything that is neither done nor locked by another process.

        A run that is refused or diverges is recorded and does not stop the others.

        Raises
        ------
        EinthovenError
            If a shared result (pretraining, random encoder) fails.
        ReproduceError
            If `check` refuses the runs.
        """
        check(self.reproduction, runs)
        outcome = Outcome()
        for run in runs:
            with locked(self.reproduction.lock(run.key), wait=False) as free:
                if not free:
                    outcome.elsewhere.append(run.key)
                elif self.reproduction.state(run) is State.DONE:
                    outcome.done.append(run.key)
                else:
                    self._run(run, self._weights(run), outcome)
        return outcome

    def _run(self, run: Run, weights: Path | None, outcome: Outcome) -> None:
        start = time.monotonic()
        self.log(f"{run.key}: started")
        try:
            self._copy_probe(run, weights)
            run_experiment(
                self.reproduction.open_cohort(run.task),
                self.store,
                run.backbone,
                recipe=self.reproduction.recipe(run),
                out=self.reproduction.folder(run),
                weights=weights,
                options=self.reproduction.options(run),
                resamples=self.reproduction.experiment.resamples,
                processes=self.processes,
                progress=self.progress,
            )
        except EinthovenError as error:
            outcome.failed[run.key] = str(error)
            self.log(f"{run.key}: {error}")
        else:
            outcome.done.append(run.key)
            self.log(f"{run.key}: done, {(time.monotonic() - start) / 60:.1f} min")

    def _weights(self, run: Run) -> Path | None:
        """Initial weights of a run, made if they are missing."""
        weights = self.reproduction.weights_of(run)
        if weights in (None, self.reproduction.weights):
            return weights
        assert weights is not None
        is_random = weights == self.reproduction.random_encoder(run)
        with locked(self.reproduction.lock((weights if is_random else weights.parent).name)):
            if is_model(weights):
                return weights
            if is_random:
                self._write_random(run, weights)
            else:
                self._pretrain(run)
        return weights

    def _pretrain(self, run: Run) -> None:
        folder, seed = self.reproduction.pretraining(run), self.reproduction.source_seed(run)
        experiment = self.reproduction.experiment
        self.log(f"{folder.name}: started")
        pretrain(
            open_cohort(self.reproduction.cohort, empty_rows="keep"),
            self.store,
            run.backbone,
            recipe=experiment.pretraining_recipe(run.backbone, seed),
            out=folder,
            options=experiment.pretraining_options(run.backbone),
            processes=self.processes,
            progress=self.progress,
        )

    def _write_random(self, run: Run, folder: Path) -> None:
        options = self.reproduction.options(run) or {}
        network = create_backbone(run.backbone, seed=run.seed, **options)
        config = {"provenance": derived_provenance(None), "seed": run.seed}
        save_model(Model(network, network.preparation, config=config), folder)

    def _copy_probe(self, run: Run, weights: Path | None) -> None:
        """Copy the run's linear probe into its folder, trained once for all runs that share it.

        A probe is trained before and apart from fine-tuning, by the same code and seed: taking it
        from another run of the same request gives the same bits.
        """
        recipe, folder = self.reproduction.recipe(run), self.reproduction.folder(run)
        if recipe.stage1 is None or (folder / ABOUT).is_file():
            return
        probe_only = recipe.model_copy(
            update={"name": "linear-probe", "description": "", "stage2": None}
        )
        cohort = self.reproduction.open_cohort(run.task)
        shared = self.reproduction.probe(run, probe_only, cohort.digest)
        with locked(self.reproduction.lock(shared.name)):
            if not (shared / _COMPLETE).is_file():
                self.log(f"{shared.name}: started, for {run.key}")
                posttrain(
                    cohort,
                    self.store,
                    run.backbone,
                    recipe=probe_only,
                    out=shared,
                    weights=weights,
                    options=self.reproduction.options(run),
                    processes=self.processes,
                    progress=self.progress,
                )
                write_json(shared / _COMPLETE, {})
        copy_folder(shared / "stage1", folder / "stage1")


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder atomically; cached features are linked."""
    temporary = target.with_name(target.name + ".copying")
    for old in (temporary, target):
        shutil.rmtree(old, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, temporary, copy_function=_link_features)
    os.replace(temporary, target)


def _link_features(source: str, target: str) -> None:
    # Features are large and written once; everything else may be appended to.
    if source.endswith(".npy"):
        try:
            os.link(source, target)
        except OSError:
            pass
        else:
            return
    shutil.copy2(source, target)


def finished_runs(folder: Path) -> Iterator[tuple[Path, Json]]:
    """Finished runs of a reproduction's folder, with their requests."""
    for file in sorted((folder / RUNS).glob(f"*/{ABOUT}")):
        if (file.parent / METRICS).is_file():
            yield file.parent, request_of(file.parent)
