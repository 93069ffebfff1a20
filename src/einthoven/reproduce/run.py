"""Where a reproduction keeps its runs, how far they are, and running them.

::

    OUT/runs/RUN/              run folders, as `einthoven posttrain` writes them
    OUT/shared/                pretraining, random encoders, linear probes of several runs
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
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path

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
from einthoven.reproduce.experiment import Experiment
from einthoven.reproduce.grid import Run
from einthoven.signals.store import Store
from einthoven.stages.data import with_fraction
from einthoven.stages.posttrain import posttrain
from einthoven.stages.pretrain import MODEL, check_pretraining, pretrain
from einthoven.stages.recipe import Recipe
from einthoven.training.distributed import Processes
from einthoven.training.run import ABOUT

RUNS, SHARED = "runs", "shared"
RANDOM = "random--"  # prefix of encoders with random weights
_COMPLETE = "complete.json"


class State(StrEnum):
    """Progress of a run."""

    DONE = "done"
    RUNNING = "running"  # in another process
    PARTIAL = "partial"
    OTHER = "other"  # its folder contains a run with another request
    MISSING = "missing"
    FAILED = "failed"


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
    """

    experiment: Experiment
    backbone: str
    cohort: Path
    store: Path
    out: Path
    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None

    @cached_property
    def records_digest(self) -> str | None:
        """Digest of the store's records; None before it is packed."""
        if not (self.store / "store.json").is_file():
            return None
        return str(Store.open(self.store).manifest["records_digest"])

    def open_cohort(self, task: str) -> Cohort:
        """The cohort with a task's labels, read once.

        Raises
        ------
        CohortError
            If it cannot be opened.
        """
        return _opened(self.cohort.absolute(), task, self.experiment.min_records)

    def recipe(self, run: Run) -> Recipe:
        """A run's recipe."""
        return self.experiment.recipe(
            run.variant, run.backbone, seed=run.seed, fraction=run.fraction
        )

    def folder(self, run: Run) -> Path:
        """A run's folder."""
        return self.out / RUNS / run.key

    def lock(self, name: str) -> Path:
        """Lock file of a run or shared result."""
        return self.out / "locks" / f"{name}.lock"

    def pretraining(self, backbone: str) -> Path:
        """The pretraining run that a backbone starts from, if no weights are given."""
        return self.out / SHARED / f"pretraining--{backbone}--seed0"

    def random_encoder(self, run: Run) -> Path:
        """An encoder with random weights, for recipes that probe one."""
        return self.out / SHARED / f"{RANDOM}{run.backbone}--seed{run.seed}"

    def weights_of(self, run: Run) -> Path | None:
        """Initial weights of a run, whether or not they exist yet; None for none."""
        if self.recipe(run).initialise == "random":
            return None
        if self.experiment.starts_random(run.variant):
            return self.random_encoder(run)
        if self.weights is not None and run.backbone == self.backbone:
            return self.weights
        return self.pretraining(run.backbone) / MODEL

    def probe(self, run: Run, recipe: Recipe, cohort_digest: str) -> Path:
        """A linear probe, shared by all runs with the same request."""
        weights = self.weights_of(run)
        request = {
            "backbone": run.backbone,
            "weights": weights and weights_sha256(weights),
            "cohort": cohort_digest,
            "records": self.records_digest,
            "options": self.experiment.options_of(run.backbone),
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

        Absent weights, and the digest of an absent store, are not compared: runs may be read on
        another machine.
        """
        expected = {
            "backbone": run.backbone,
            "task": run.task,
            "recipe": self.recipe(run).to_dict(),
            "backbone_options": self.experiment.options_of(run.backbone),
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
        data, cohort = self.recipe(run).data, self.open_cohort(run.task)  # last: the most expensive
        digest = with_fraction(cohort, data, seed=run.seed).digest
        return bool(request.get("cohort_digest") == digest)


def request_of(folder: Path) -> Json:
    """The request of a run folder."""
    request: Json = read_json(folder / ABOUT)["request"]
    return request


@cache
def _opened(path: Path, task: str, min_records: int) -> Cohort:
    return open_cohort(path, task, **({"min_records": min_records} if min_records else {}))


@cache
def weights_sha256(weights: Path) -> str:
    """SHA-256 of a weights file, or of the weights of a model folder."""
    return file_sha256(weights_file(weights))


def check(reproduction: Reproduction, runs: Sequence[Run]) -> None:
    """Refuse, before anything is trained, runs whose backbone cannot be pretrained.

    Raises
    ------
    ReproduceError
        If the experiment's pretraining does not suit the backbone.
    """
    experiment = reproduction.experiment
    for backbone in dict.fromkeys(run.backbone for run in runs):
        encoder = reproduction.pretraining(backbone) / MODEL
        own = [run for run in runs if run.backbone == backbone]
        if is_model(encoder) or encoder not in map(reproduction.weights_of, own):
            continue
        recipe = experiment.pretraining_recipe(backbone)
        try:
            check_pretraining(recipe, backbone, experiment.pretraining_options(backbone))
        except (BackboneError, PreparationError) as error:
            raise ReproduceError(
                f"experiment {experiment.name} cannot pretrain {backbone}: {error.problem} "
                f"(recipe {recipe.name}, objective {recipe.objective})",
                remedy="pass --weights, or choose another --experiment: `einthoven reproduce list`",
            ) from error


def plan(reproduction: Reproduction, runs: Sequence[Run]) -> dict[Run, State]:
    """Progress of runs; trains nothing and writes nothing.

    Raises
    ------
    ReproduceError
        If `check` refuses the runs.
    """
    check(reproduction, runs)
    states = {run: reproduction.state(run) for run in runs}
    return {
        run: State.RUNNING
        if state is not State.DONE and _is_locked(reproduction.lock(run.key))
        else state
        for run, state in states.items()
    }


def _is_locked(file: Path) -> bool:
    if not file.is_file():
        return False
    with locked(file, wait=False) as free:
        return not free


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

    def run(self, runs: Sequence[Run]) -> dict[Run, State]:
        """Run everything that is neither done nor locked by another process.

        A run that is refused or diverges is logged as failed and does not stop the others.

        Returns
        -------
        dict of Run to State
            Done, failed, or running in another process.

        Raises
        ------
        EinthovenError
            If a shared result (pretraining, random encoder) fails.
        ReproduceError
            If `check` refuses the runs.
        """
        check(self.reproduction, runs)
        states = {}
        for run in runs:
            with locked(self.reproduction.lock(run.key), wait=False) as free:
                if not free:
                    states[run] = State.RUNNING
                elif self.reproduction.state(run) is State.DONE:
                    states[run] = State.DONE
                else:
                    states[run] = self._run(run, self._weights(run))
        return states

    def _run(self, run: Run, weights: Path | None) -> State:
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
                options=self.reproduction.experiment.options_of(run.backbone),
                resamples=self.reproduction.experiment.resamples,
                processes=self.processes,
                progress=self.progress,
            )
        except EinthovenError as error:
            self.log(f"{run.key}: {error}")
            return State.FAILED
        self.log(f"{run.key}: done, {(time.monotonic() - start) / 60:.1f} min")
        return State.DONE

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
                self._pretrain(run.backbone)
        return weights

    def _pretrain(self, backbone: str) -> None:
        experiment, folder = self.reproduction.experiment, self.reproduction.pretraining(backbone)
        self.log(f"{folder.name}: started")
        pretrain(
            open_cohort(self.reproduction.cohort, empty_rows="keep"),
            self.store,
            backbone,
            recipe=experiment.pretraining_recipe(backbone),
            out=folder,
            options=experiment.pretraining_options(backbone),
            processes=self.processes,
            progress=self.progress,
        )

    def _write_random(self, run: Run, folder: Path) -> None:
        options = self.reproduction.experiment.options_of(run.backbone) or {}
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
                    options=self.reproduction.experiment.options_of(run.backbone),
                    processes=self.processes,
                    progress=self.progress,
                )
                write_json(shared / _COMPLETE, {})
        stage1 = folder / "stage1"
        shutil.rmtree(stage1, ignore_errors=True)
        shutil.copytree(shared / "stage1", stage1, copy_function=_link_features)


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
    """Finished runs in a reproduction's folder, of any experiment, with their requests."""
    for file in sorted((folder / RUNS).glob(f"*/{ABOUT}")):
        if (file.parent / METRICS).is_file():
            yield file.parent, request_of(file.parent)
