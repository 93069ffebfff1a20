"""Where a reproduction keeps its runs, and how far each of them is.

::

    OUT/runs/CELL/             run folders, as `einthoven posttrain` leaves them
    OUT/shared/                pretraining, random encoders, linear probes that several cells use
    OUT/ensembles/             mean predictions of table 1's rows of several networks
    OUT/against/               predictions of the bundles that they are held against
    OUT/claims/                who is at work on what
    OUT/failures/CELL.json     why a cell stopped, until it is run again
    OUT/results.md, figures/   tables, figures, and their numbers as JSON
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from einthoven.cohorts import Cohort, open_cohort
from einthoven.experiment.run import METRICS
from einthoven.files import read_json, read_lines
from einthoven.models import WEIGHTS, is_model, read_config, weights_file
from einthoven.reproduce.claims import holder
from einthoven.reproduce.experiments import OURS, Experiment
from einthoven.reproduce.grid import WHOLE, Cell, cells_of
from einthoven.signals.store import Store
from einthoven.stages.data import with_fraction
from einthoven.stages.posttrain import file_digest
from einthoven.stages.pretrain import MODEL
from einthoven.stages.recipe import Recipe
from einthoven.training.run import ABOUT

RUNS, SHARED = "runs", "shared"
RANDOM = "random--"  # how the files of encoders with random weights begin
OPTIONS = "backbone_options"


class State(StrEnum):
    """How far a cell is."""

    DONE = "done"
    RUNNING = "running"
    PARTIAL = "partial"
    FAILED = "failed"
    OTHER = "other"  # its folder holds a run with another request
    MISSING = "missing"


@dataclass(frozen=True)
class Request:
    """What is reproduced, from what, and where; everything but the choice of cells.

    Attributes
    ----------
    experiment : Experiment
    backbone : str
        The command's; empty where the experiment's rows name all of them.
    cohort, store, out : Path
    weights : Path or None
        The backbone's pretrained encoder; the experiment pretrains one without it.
    device : str
        `auto`, `cpu` or `cuda`.
    threads : int or None
        Of each process.
    against : tuple of Path
        Where table 1 looks for post-trained models beside `out`: run folders, folders of other
        reproductions, bundles.
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

    @property
    def claims(self) -> Path:
        """Folder of lock files."""
        return self.out / "claims"

    @cached_property
    def records_digest(self) -> str | None:
        """What the store holds; None before it is packed."""
        if not (self.store / "store.json").is_file():
            return None
        return str(Store.open(self.store).manifest["records_digest"])

    def opened(self, task: str) -> Cohort:
        """The cohort with a task's labels; read again when its tables have changed.

        Raises
        ------
        CohortError
            When it cannot be opened.
        """
        return _opened(self.cohort.absolute(), task, self.experiment.min_records, *self._tables())

    def cohort_digest(self, cell: Cell) -> str | None:
        """What a cell's run records of its cohort, labels included.

        None where the cohort's tables are not: runs may be read elsewhere.
        """
        if not self._tables():
            return None
        data = self.recipe(cell).data
        return with_fraction(self.opened(cell.task), data, seed=cell.seed).digest

    def _tables(self) -> tuple[tuple[str, int, int], ...]:
        files = sorted(self.cohort.glob("*.csv")) if self.cohort.is_dir() else [self.cohort]
        stats = [(file.name, file.stat()) for file in files if file.is_file()]
        return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)

    def recipe(self, cell: Cell) -> Recipe:
        """A cell's recipe."""
        return self.experiment.recipe(
            cell.arm, cell.backbone, seed=cell.seed, fraction=cell.fraction
        )

    def run_folder(self, cell: Cell) -> Path:
        """A cell's run."""
        return self.out / RUNS / cell.key

    def failure(self, cell: Cell) -> Path:
        """Why a cell stopped."""
        return self.out / "failures" / f"{cell.key}.json"

    def pretraining(self, cell: Cell) -> Path:
        """The pretraining run that a cell starts from, when no weights are given."""
        return self.out / SHARED / f"pretraining--{cell.backbone}--seed{self.source_seed(cell)}"

    def source_seed(self, cell: Cell) -> int:
        """Seed of a cell's pretraining."""
        return cell.seed if self.experiment.source_of(cell.backbone).per_seed else 0

    def random_encoder(self, cell: Cell) -> Path:
        """An encoder with random weights, for recipes that probe one."""
        return self.out / SHARED / f"{RANDOM}{cell.backbone}--seed{cell.seed}" / WEIGHTS

    def weights_of(self, cell: Cell) -> Path | None:
        """The file that a cell starts from, whether or not it is there yet; None for none."""
        if self.recipe(cell).initialise == "random":
            return None
        if self.experiment.starts_random(cell.arm, cell.backbone):
            return self.random_encoder(cell)
        if self.weights is not None and cell.backbone == self.backbone:
            return self.weights
        return self.pretraining(cell) / MODEL / WEIGHTS

    def has_other_source(self, cell: Cell) -> bool:
        """Whether the encoder that is here for a cell was made as another experiment says."""
        file = self.weights_of(cell)
        if file is None or file == self.weights or not file.is_file():
            return False
        if file == self.random_encoder(cell):
            options = self.experiment.options_of(cell.backbone) or {}
            options_then = read_config(file)[OPTIONS]
            return any(options_then.get(key) != value for key, value in _plain(options).items())
        about = self.pretraining(cell) / ABOUT
        if not about.is_file():
            return False
        asked = read_json(about)["request"]
        recipe = self.experiment.pretraining_recipe(cell.backbone, self.source_seed(cell))
        options = self.experiment.pretraining_options(cell.backbone) or {}
        # An objective may have set more of them, such as the scale of the input.
        had = asked.get(OPTIONS, {})
        same = {key: had.get(key) for key in options} == _plain(options)
        return not same or asked["recipe"] != _plain(recipe.to_dict())

    def probe(self, cell: Cell, alone: Recipe, cohort_digest: str) -> Path:
        """The run of a linear probe, shared by all cells that ask for the same."""
        weights = self.weights_of(cell)
        asked = {
            "backbone": cell.backbone,
            "weights": digest_of(weights) if weights else None,
            "cohort": cohort_digest,
            "records": self.records_digest,
            "options": self.experiment.options_of(cell.backbone),
            "recipe": alone.to_dict(),
        }
        short = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        return self.out / SHARED / f"probe--{cell.backbone}--{short}"

    def state(self, cell: Cell, *, claimed: bool = False) -> State:
        """How far a cell is; `claimed` by ourselves, so that it does not count as running."""
        if not claimed and holder(self.claims, cell.key):
            return State.RUNNING
        folder = self.run_folder(cell)
        if not (folder / ABOUT).is_file():
            return State.FAILED if self.failure(cell).is_file() else State.MISSING
        if not self.is_same(cell, read_json(folder / ABOUT)["request"]):
            return State.OTHER
        if (folder / METRICS).is_file():
            return State.DONE
        return State.FAILED if self.failure(cell).is_file() else State.PARTIAL

    def is_same(self, cell: Cell, asked: dict[str, Any]) -> bool:
        """Whether a run asked for what the cell asks for."""
        wanted = {
            "backbone": cell.backbone,
            "task": cell.task,
            "recipe": self.recipe(cell).to_dict(),
            OPTIONS: self.experiment.options_of(cell.backbone),
        }
        if self.records_digest is not None:
            wanted["records_digest"] = self.records_digest
        if any(asked.get(key) != value for key, value in wanted.items()):
            return False
        if not self._has_same_weights(cell, asked.get("weights")):
            return False
        cohort = self.cohort_digest(cell)  # last: it is the dearest to know
        return cohort is None or asked.get("cohort_digest") == cohort

    def _has_same_weights(self, cell: Cell, had: dict[str, str] | None) -> bool:
        file = self.weights_of(cell)
        if file is None or had is None:
            return file is None and had is None
        if file.is_file():
            return had["sha256"] == digest_of(file) and not self.has_other_source(cell)
        if file == self.random_encoder(cell):
            return Path(had["path"]).name == file.parent.name
        # Nobody names an encoder and none is here: what the runs started from is what they say.
        return list(self.recorded_weights(cell)) == [had["sha256"]]

    def recorded_weights(self, cell: Cell) -> dict[str, Path]:
        """Encoders that runs of this experiment started from, as the runs recorded them.

        Of the runs that share a cell's pretraining, finished or not; by SHA-256.
        """
        found: dict[str, Path] = {}
        for other in cells_of("grid", self.experiment, self.backbone):
            file = self.run_folder(other) / ABOUT
            if other.backbone != cell.backbone or not file.is_file():
                continue
            had = read_json(file)["request"].get("weights")
            if had is None or Path(had["path"]).name.startswith(RANDOM):
                continue
            if self.source_seed(other) == self.source_seed(cell):
                found[had["sha256"]] = Path(had["path"])
        return found

    def unnamed_weights(self) -> dict[str, Path]:
        """The same of the command's backbone, where neither the command nor a pretraining here
        says which encoder it is; else nothing."""
        if self.weights is not None or not self.backbone or self.experiment.table_1_only:
            return {}
        cell = Cell(self.backbone, OURS, self.experiment.main_task, WHOLE, 0)
        known = is_model(self.pretraining(cell) / MODEL)
        return {} if known else self.recorded_weights(cell)

    def epochs_done(self, cell: Cell) -> int:
        """Epochs of fine-tuning that a cell has behind it."""
        return len(read_lines(self.run_folder(cell) / "stage2" / "metrics.jsonl"))


def _plain(value: Any) -> Any:
    """As it is read back from a file."""
    return json.loads(json.dumps(value))


@lru_cache(maxsize=8)
def _opened(path: Path, task: str, min_records: int, *tables: tuple[str, int, int]) -> Cohort:
    # `tables` tells what was read before a change from what is there now.
    return open_cohort(path, task, **({"min_records": min_records} if min_records else {}))


_digests: dict[tuple[Path, int, int], str] = {}


def digest_of(file: Path) -> str:
    """SHA-256 of a file or a model's weights, computed once as long as they stay the same."""
    file = weights_file(file)
    stat = file.stat()
    key = (file.resolve(), stat.st_mtime_ns, stat.st_size)
    if key not in _digests:
        _digests[key] = file_digest(file)
    return _digests[key]
