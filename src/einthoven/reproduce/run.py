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

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path

import torch

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import BackboneError, EinthovenError, PreparationError, ReproduceError
from einthoven.experiment.run import run_experiment
from einthoven.files import (
    METRICS_FILE,
    RUN_FILE,
    STORE_FILE,
    Json,
    file_sha256,
    locked,
    write_json,
)
from einthoven.models import Model, derived_provenance, is_model, save_model, weights_file
from einthoven.progress import Progress
from einthoven.reproduce.experiment import Experiment
from einthoven.reproduce.grid import Run
from einthoven.signals.store import Store
from einthoven.stages.data import with_fraction
from einthoven.stages.posttrain import posttrain
from einthoven.stages.pretrain import MODEL, check_pretraining, pretrain
from einthoven.stages.recipe import Recipe
from einthoven.tasks import Task
from einthoven.training.distributed import Processes
from einthoven.training.run import RunFolder

RUNS, SHARED = "runs", "shared"
_COMPLETE = "complete.json"


class State(StrEnum):
    """Progress of a run."""

    DONE = "done"
    RUNNING = "running"  # in another process
    PARTIAL = "partial"
    OTHER = "other"  # its folder contains a run with another request
    MISSING = "missing"
    FAILED = "failed"


def _silent(line: str) -> None:
    """Log nothing."""


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
        As `einthoven.inference.device_of` accepts it.
    threads : int or None
    progress : Progress, optional
        Progress of training and prediction.
    log : callable
        Receives one line when something starts or ends.
    """

    experiment: Experiment
    backbone: str
    cohort: Path
    store: Path
    out: Path
    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None
    progress: Progress | None = None
    log: Callable[[str], None] = _silent

    @cached_property
    def records_digest(self) -> str | None:
        """Digest of the store's records; None before it is packed."""
        if not (self.store / STORE_FILE).is_file():
            return None
        return str(Store.open(self.store).manifest["records_digest"])

    def open_cohort(self, task: str) -> Cohort:
        """The cohort with a task's labels, read once.

        Raises CohortError if it cannot be opened.
        """
        target = self.experiment.targets.get(task, task)
        cohort = _opened(self.cohort.absolute(), target, self.experiment.min_records)
        return cohort if target is task else replace(cohort, task=task)

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

    def pretraining(self, backbone: str, name: str = "") -> Path:
        """The pretraining run that a backbone starts from without `weights`; one of several."""
        return self.out / SHARED / f"pretraining--{backbone}--{name or 'seed0'}"

    def weights_of(self, run: Run) -> Path | None:
        """Initial weights of a run, whether or not they exist yet; None for none."""
        if self.recipe(run).initialise == "random":
            return None
        if self._probes_random(run):
            parts = "random", run.backbone, run.pretraining, f"seed{run.seed}"
            return self.out / SHARED / "--".join(filter(None, parts))
        if self.weights is not None and run.backbone == self.backbone:
            return self.weights
        return self.pretraining(run.backbone, run.pretraining) / MODEL

    def _probes_random(self, run: Run) -> bool:
        # Only a recipe without probe builds the random network itself.
        source = self.experiment.source_of(run.backbone, run.pretraining)
        is_random = source is not None and not source.recipe
        return is_random or self.experiment.variants[run.variant].start == "random"

    def state(self, run: Run) -> State:
        """Progress of a run."""
        folder = self.folder(run)
        if not (folder / RUN_FILE).is_file():
            return State.MISSING
        if not self._is_request_of(run, RunFolder(folder).request):
            return State.OTHER
        return State.DONE if (folder / METRICS_FILE).is_file() else State.PARTIAL

    def _is_request_of(self, run: Run, request: Json) -> bool:
        # Absent weights, and the digest of an absent store, are not compared: runs may be read on
        # another machine. The cohort comes last because it takes the longest.
        recipe, weights, recorded = self.recipe(run), self.weights_of(run), request.get("weights")
        expected = {
            "backbone": run.backbone,
            "task": run.task,
            "recipe": recipe.to_dict(),
            "backbone_options": self.experiment.options_of(run.backbone) or None,
            "records_digest": self.records_digest or request.get("records_digest"),
        }
        if any(request.get(key) != value for key, value in expected.items()):
            return False
        if weights is None or recorded is None:
            if weights is not recorded:
                return False
        elif weights.exists() and recorded["sha256"] != weights_sha256(weights):
            return False
        cohort = with_fraction(self.open_cohort(run.task), recipe.data, seed=run.seed)
        return bool(request.get("cohort_digest") == cohort.digest)

    def check(self, runs: Sequence[Run]) -> None:
        """Refuse, before anything is trained, runs whose backbone cannot be pretrained.

        Raises ReproduceError if the experiment's pretraining does not suit the backbone.
        """
        needed = {self.weights_of(run) for run in runs}
        for backbone, name in dict.fromkeys((run.backbone, run.pretraining) for run in runs):
            encoder = self.pretraining(backbone, name) / MODEL
            if encoder not in needed or is_model(encoder):
                continue
            recipe, options = self.experiment.pretraining_of(backbone, name)
            try:
                check_pretraining(recipe, backbone, options)
            except (BackboneError, PreparationError) as error:
                raise ReproduceError(
                    f"experiment {self.experiment.name} cannot pretrain {backbone}: "
                    f"{error.problem} (recipe {recipe.name}, objective {recipe.objective})",
                    remedy="pass --weights, or choose another --experiment: "
                    "`einthoven reproduce list`",
                ) from error

    def states(self, runs: Sequence[Run]) -> dict[Run, State]:
        """Progress of runs; trains nothing and writes nothing.

        Raises ReproduceError if `check` refuses the runs.
        """
        self.check(runs)
        states = {}
        for run in runs:
            states[run], lock = self.state(run), self.lock(run.key)
            if states[run] is not State.DONE and lock.is_file():
                with locked(lock, wait=False) as free:
                    states[run] = states[run] if free else State.RUNNING
        return states

    def run(self, runs: Sequence[Run]) -> dict[Run, State]:
        """Run everything that is neither done nor locked by another process.

        A run that is refused or diverges is logged as failed and does not stop the others. The
        states are done, failed, or running in another process.

        Raises EinthovenError if a shared result (pretraining, random encoder) fails, and
        ReproduceError if `check` refuses the runs, or under torchrun.
        """
        if self._training["processes"].world > 1:
            raise ReproduceError(
                "the runs of a reproduction are not distributed over processes",
                remedy="start it without torchrun, and use --shard to run several side by side",
            )
        if self.threads:
            torch.set_num_threads(self.threads)
        self.check(runs)
        states = {}
        for run in runs:
            with locked(self.lock(run.key), wait=False) as free:
                if not free:
                    states[run] = State.RUNNING
                elif self.state(run) is State.DONE:
                    states[run] = State.DONE
                else:
                    states[run] = self._run(run)
        return states

    @cached_property
    def _training(self) -> Json:
        """Arguments of every training."""
        return {"processes": Processes(self.device), "progress": self.progress}

    def _run(self, run: Run) -> State:
        start, weights = time.monotonic(), self._weights(run)
        self.log(f"{run.key}: started")
        options = self.experiment.options_of(run.backbone)
        arguments: Json = {"weights": weights, "options": options} | self._training
        try:
            cohort, store = self.open_cohort(run.task), Store.open(self.store)
            self._copy_probe(run, cohort, store, arguments)
            run_experiment(
                cohort,
                store,
                run.backbone,
                recipe=self.recipe(run),
                out=self.folder(run),
                resamples=self.experiment.resamples,
                **arguments,
            )
        except EinthovenError as error:
            self.log(f"{run.key}: {error}")
            return State.FAILED
        self.log(f"{run.key}: done, {(time.monotonic() - start) / 60:.1f} min")
        return State.DONE

    def _weights(self, run: Run) -> Path | None:
        """Initial weights of a run, made if they are missing."""
        weights = self.weights_of(run)
        if weights is None or weights == self.weights:
            return weights
        shared = weights if self._probes_random(run) else weights.parent
        with locked(self.lock(shared.name)):
            if is_model(weights):
                return weights
            if self._probes_random(run):
                source = self.experiment.source_of(run.backbone, run.pretraining)
                options = self.experiment.options_of(run.backbone)
                options |= source.options if source and run.pretraining else {}
                network = create_backbone(run.backbone, seed=run.seed, **options)
                provenance = derived_provenance(None) | {"initialisation": "random"}
                config = {"provenance": provenance, "seed": run.seed}
                save_model(Model(network, network.preparation, config=config), weights)
            else:
                self._pretrain(run.backbone, run.pretraining)
        return weights

    def _pretrain(self, backbone: str, name: str) -> None:
        folder = self.pretraining(backbone, name)
        recipe, options = self.experiment.pretraining_of(backbone, name)
        self.log(f"{folder.name}: started")
        cohort = open_cohort(self.cohort, empty_rows="keep")
        store = Store.open(self.store)
        pretrain(
            cohort, store, backbone, recipe=recipe, out=folder, options=options, **self._training
        )

    def _copy_probe(self, run: Run, cohort: Cohort, store: Store, arguments: Json) -> None:
        """Copy the run's linear probe into its folder, trained once for all runs that share it.

        A probe is trained before and apart from fine-tuning, by the same code and seed: taking it
        from another run of the same request gives the same bits.
        """
        recipe, folder, weights = self.recipe(run), self.folder(run), arguments["weights"]
        if recipe.stage1 is None or (folder / RUN_FILE).is_file():
            return
        recipe = recipe.model_copy(
            update={"name": "linear-probe", "description": "", "stage2": None}
        )
        request = {
            "backbone": run.backbone,
            "weights": weights and weights_sha256(weights),
            "cohort": cohort.digest,
            "records": self.records_digest,
            "options": arguments["options"],
            "recipe": recipe.to_dict(),
        }
        digest = sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]
        shared = self.out / SHARED / f"probe--{run.backbone}--{digest}"
        with locked(self.lock(shared.name)):
            if not (shared / _COMPLETE).is_file():
                self.log(f"{shared.name}: started, for {run.key}")
                posttrain(cohort, store, run.backbone, recipe=recipe, out=shared, **arguments)
                write_json(shared / _COMPLETE, {})
        stage1 = folder / "stage1"
        shutil.rmtree(stage1, ignore_errors=True)
        shutil.copytree(shared / "stage1", stage1, copy_function=_copy_or_link)


@cache
def _opened(path: Path, task: str | Task, min_records: int) -> Cohort:
    return open_cohort(path, task, min_records=min_records)


@cache
def weights_sha256(weights: Path) -> str:
    """SHA-256 of a weights file, or of the weights of a model folder."""
    return file_sha256(weights_file(weights))


def _copy_or_link(source: str, target: str) -> None:
    # Features are large, and their files are replaced as a whole; others are appended to.
    if source.endswith((".safetensors", ".npy")):
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)
