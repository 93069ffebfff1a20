"""Running cells: each once, by whichever process claims it first, with shared work done once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import EinthovenError, ReproduceError
from einthoven.experiment.run import run_experiment
from einthoven.files import write_json
from einthoven.models import Model, derived_provenance, save_model
from einthoven.progress import Progress
from einthoven.reproduce.claims import Claim, claim
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import Cell
from einthoven.reproduce.plan import check
from einthoven.signals.store import Store
from einthoven.stages.posttrain import posttrain
from einthoven.stages.pretrain import pretrain
from einthoven.training.distributed import Processes
from einthoven.training.run import ABOUT

POLL = 5.0
"""Seconds between two looks at what other processes are at."""
_COMPLETE = "complete.json"
Tell = Callable[[str], None]


@dataclass
class Outcome:
    """What a call of `run_cells` came to, as keys of cells."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)


@dataclass
class Runner:
    """One process at work on a reproduction.

    Attributes
    ----------
    request : Request
    progress : Progress, optional
        Progress of training and prediction.
    tell : callable
        Told in one line what begins and what is over.
    """

    request: Request
    progress: Progress | None = None
    tell: Tell = lambda line: None

    def __post_init__(self) -> None:
        self._cohorts: dict[str, Cohort] = {}
        self.store = Store.open(self.request.store)
        self.processes = Processes(self.request.device)
        if self.processes.world > 1:
            raise ReproduceError(
                "a reproduction is no single training that several processes share",
                remedy="start it without torchrun; --jobs or --shard runs cells side by side",
            )
        if self.request.threads:
            torch.set_num_threads(self.request.threads)

    def run(self, cells: Sequence[Cell]) -> Outcome:
        """Run every cell that is not done and that no other process is at.

        Cells that others are at are left to them; what waits for shared work of others is
        waited for. A cell that is refused or diverges is noted and does not stop the others.

        Raises
        ------
        EinthovenError
            When shared work (pretraining, a random encoder) is refused: nothing could go on.
        ReproduceError
            Before anything is trained, when these cells or the page after them could only fail.
        """
        check(self.request, cells)
        outcome, todo = Outcome(), list(cells)
        while todo:
            waiting = False
            for cell in todo:
                with claim(self.request.claims, cell.key) as mine:
                    if mine is None:
                        continue
                    went_on = self._run(cell, mine, outcome)
                waiting = True
                if went_on:
                    todo.remove(cell)
                    break  # look from the first one on: what it waited for may be ready
            else:
                if not waiting:  # all that is left is claimed by others
                    outcome.elsewhere += [cell.key for cell in todo]
                    break
                time.sleep(POLL)
        return outcome

    def _run(self, cell: Cell, mine: Claim, outcome: Outcome) -> bool:
        """Run a claimed cell; False when shared work of another process is not ready yet."""
        if self._finished(cell):
            outcome.done.append(cell.key)
            return True
        weights = self._weights(cell)
        if weights is NOT_YET:
            return False
        self.request.failure(cell).unlink(missing_ok=True)
        began = time.monotonic()
        try:
            if not self._probed(cell, weights):
                return False
            self.tell(f"{cell.key}: begins")
            run_experiment(
                self._cohort(cell.task),
                self.store,
                cell.backbone,
                recipe=self.request.recipe(cell),
                out=self.request.run_folder(cell),
                weights=weights,
                options=self._options(cell),
                resamples=self.request.experiment.resamples,
                processes=self.processes,
                progress=Guarded(mine, self.progress),
            )
        except EinthovenError as error:
            if not mine.is_held():  # the folder is another process's now, and so is the outcome
                self.tell(f"{cell.key}: {error}")
                outcome.elsewhere.append(cell.key)
                return True
            write_json(self.request.failure(cell), {"problem": error.problem, "at": time.time()})
            outcome.failed[cell.key] = str(error)
            self.tell(f"{cell.key}: {error}")
            return True
        outcome.done.append(cell.key)
        self.tell(f"{cell.key}: done, {(time.monotonic() - began) / 60:.1f} min")
        return True

    def _finished(self, cell: Cell) -> bool:
        # Our own claim is on it, so it cannot be `running`.
        return self.request.state(cell, claimed=True) is State.DONE

    def _weights(self, cell: Cell) -> Path | None:
        """The file a cell starts from, made where it is ours to make; NOT_YET for another's."""
        file = self.request.weights_of(cell)
        if file is None or file == self.request.weights:
            return file
        if file.is_file():
            return file
        random = file == self.request.random_encoder(cell)
        name = file.parent.name if random else file.parent.parent.name
        with claim(self.request.claims, name) as mine:
            if mine is None:
                return NOT_YET
            if random:
                self._write_random(cell, file)
            else:
                self._pretrain(cell, mine)
        return file

    def _pretrain(self, cell: Cell, mine: Claim) -> None:
        folder, seed = self.request.pretraining(cell), self.request.source_seed(cell)
        self.tell(f"{folder.name}: begins")
        pretrain(
            open_cohort(self.request.cohort, empty_rows="keep"),
            self.store,
            cell.backbone,
            recipe=self.request.experiment.pretraining_recipe(cell.backbone, seed),
            out=folder,
            options=self.request.experiment.pretraining_options(cell.backbone),
            processes=self.processes,
            progress=Guarded(mine, self.progress),
        )

    def _write_random(self, cell: Cell, file: Path) -> None:
        network = create_backbone(cell.backbone, seed=cell.seed, **(self._options(cell) or {}))
        config = {"provenance": derived_provenance(None), "seed": cell.seed}
        save_model(Model(network, network.preparation, config=config), file.parent)

    def _probed(self, cell: Cell, weights: Path | None) -> bool:
        """Put the cell's linear probe into its folder, computed once for all cells that share it.

        A probe is trained before and apart from fine-tuning, by the same code and seed, so that
        taking it from another cell of the same request changes no bit.
        """
        recipe, folder = self.request.recipe(cell), self.request.run_folder(cell)
        if recipe.stage1 is None or (folder / ABOUT).is_file():
            return True
        alone = recipe.model_copy(
            update={"name": "linear-probe", "description": "", "stage2": None}
        )
        cohort = self._cohort(cell.task)
        shared = self.request.probe(cell, alone, cohort.digest)
        if not (shared / _COMPLETE).is_file():
            with claim(self.request.claims, shared.name) as ours:
                if ours is None:
                    return False
                self.tell(f"{shared.name}: begins, for {cell.key}")
                posttrain(
                    cohort,
                    self.store,
                    cell.backbone,
                    recipe=alone,
                    out=shared,
                    weights=weights,
                    options=self._options(cell),
                    processes=self.processes,
                    progress=Guarded(ours, self.progress),
                )
                write_json(shared / _COMPLETE, {})
        copy_whole(shared / "stage1", folder / "stage1")
        return True

    def _options(self, cell: Cell) -> dict[str, Any] | None:
        return self.request.experiment.options_of(cell.backbone)

    def _cohort(self, task: str) -> Cohort:
        if task not in self._cohorts:
            self._cohorts[task] = self.request.opened(task)
        return self._cohorts[task]


NOT_YET = Path("<another process is at it>")


@dataclass
class Guarded:
    """Progress that stops training once another process has taken the claim over."""

    claim: Claim
    inner: Progress | None
    _looked: float = 0.0

    def __call__(
        self, task: str, done: int, total: int, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Check the claim every few seconds and after every epoch."""
        if time.monotonic() - self._looked > POLL or "train_loss" in (metrics or {}):
            self._looked = time.monotonic()
            self.claim.refuse_if_lost()
        if self.inner:
            self.inner(task, done, total, metrics)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a folder so that it is there whole or not at all; cached features are linked."""
    temporary = target.with_name(target.name + ".copying")
    for old in (temporary, target):
        shutil.rmtree(old, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, temporary, copy_function=_link_features)
    os.replace(temporary, target)


def _link_features(source: str, target: str) -> None:
    # They are written once and large; everything else may still be appended to.
    if source.endswith(".npy"):
        try:
            os.link(source, target)
        except OSError:
            pass
        else:
            return
    shutil.copy2(source, target)
