"""Data and settings of the stages, from a cohort, a store and a recipe."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from einthoven.backbones.contract import Backbone, UnfittedWarning
from einthoven.backbones.inference import Aggregate, Precision
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError, PreparationError, RecipeError
from einthoven.progress import Progress
from einthoven.signals.augment import Augmentation, create_augmentation
from einthoven.signals.batches import SignalSource, Source
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import resampled_length
from einthoven.signals.store import Store
from einthoven.stages.recipe import Data, Optimisation, Stage2
from einthoven.stages.validation import LOSS, best_by
from einthoven.tasks import Criterion
from einthoven.training.distributed import Processes
from einthoven.training.optim import Cycle, Settings, scaled_lr


@dataclass(frozen=True, kw_only=True)
class Context:
    """Settings that the stages of a recipe share.

    `augment` is applied to training crops, `aggregate` to the outputs of evaluation crops;
    `criterion` is the loss.
    """

    seed: int
    augment: Augmentation | None = None
    aggregate: Aggregate = "probability"
    criterion: Criterion = field(default_factory=Criterion)
    precision: Precision = "fp32"
    processes: Processes = field(default_factory=Processes)
    progress: Progress | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A cohort, its store, and the preparation of signals.

    Quarantined records are left out of every split.
    """

    cohort: Cohort
    store: Store
    preparation: Preparation

    def source(self, split: str) -> SignalSource:
        """Records of a split.

        Raises
        ------
        CohortError
            If the split is empty.
        """
        cohort = self.usable
        ids = cohort.ids(split)
        if not len(ids):
            raise CohortError(
                f"{cohort.name}: no records in {split}",
                remedy="check the folds, or the number of records",
            )
        return SignalSource(
            self.store,
            self.store.rows(ids),
            cohort.targets(split),
            self.preparation,
            cohort.patients(split),
        )

    def check_lengths(self, *splits: str) -> None:
        """Refuse records of these splits that are too short for the crop, and name one."""
        usable = self.usable
        rows = self.store.rows(np.concatenate([usable.ids(split) for split in splits]))
        for rate, samples, places in self.store.groups(rows):
            try:
                resampled_length(self.preparation, samples, rate=rate)
            except PreparationError as error:
                first = self.store.index.index[rows[places[0]]]
                raise PreparationError(
                    f"{self.cohort.name}: {len(places)} records of {samples / rate:g} s at "
                    f"{rate:g} Hz, such as {first!r}: {error.problem}",
                    remedy=error.remedy,
                ) from error

    @cached_property
    def usable(self) -> Cohort:
        """Cohort without quarantined records."""
        return self.cohort.select(self.store.without_quarantined(self.cohort.ids()))


def adapt_preparation(preparation: Preparation, data: Data) -> Preparation:
    """Preparation with the recipe's crop length, short records, evaluation crops and centring."""
    if data.crop_seconds is not None:
        preparation = preparation.with_window(seconds=data.crop_seconds)
    if data.evaluation_crops is not None:
        preparation = preparation.with_evaluation_crops(data.evaluation_crops)
    if data.short == "pad":
        preparation = preparation.padding()
    return preparation.centred() if data.centre else preparation


def augmentation(data: Data) -> Augmentation | None:
    """Augmentation of training crops."""
    if data.augmentation == "none":
        return None
    options = {} if data.augmentation == "lead-mask" else {"level": data.augmentation_level}
    return create_augmentation(data.augmentation, **options)


def with_fraction(cohort: Cohort, data: Data, *, seed: int) -> Cohort:
    """Cohort with the recipe's share of training records."""
    return cohort if data.fraction == 1 else cohort.fraction(data.fraction, seed=seed)


def micro_batch(settings: Optimisation, *, records: int, world: int) -> int:
    """Number of records in a forward pass of one process.

    Raises
    ------
    RecipeError
        If the batch does not divide into such passes, or there are too few records for it.
    """
    batch = settings.batch_size
    micro = settings.micro_batch or batch // world
    if micro < 1 or batch % (micro * world):
        raise RecipeError(
            f"batch_size {batch} does not divide into {world} processes and micro-batches of "
            f"{micro}",
            remedy="choose a batch size that is a multiple of processes x micro_batch",
        )
    if records < world:
        raise RecipeError(
            f"{records} training records for {world} processes", remedy="start fewer processes"
        )
    if batch > micro * world and records < batch:
        raise RecipeError(
            f"batch_size {batch} is more than the {records} training records, and micro-batches "
            f"of {micro} cannot fill it",
            remedy=f"choose a batch_size of at most {records}, or leave micro_batch out",
        )
    return micro


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Precision on a device: `auto` is bf16 on a GPU and fp32 on a CPU."""
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return "bf16" if precision == "bf16" else "fp32"


def loop_settings(
    recipe: Optimisation, *, micro: int, context: Context, shared_draws: bool = False
) -> Settings:
    """Settings of the training loop for micro-batches of `micro` records."""
    settings = Settings(
        epochs=recipe.epochs,
        base_lr=recipe.base_lr,
        batch_size=recipe.batch_size,
        accumulation=recipe.batch_size // (micro * context.processes.world),
        warmup_epochs=recipe.warmup_epochs,
        min_lr=recipe.min_lr,
        betas=recipe.betas,
        eps=recipe.eps,
        clip=recipe.clip,
        precision=context.precision,
        seed=context.seed,
        shared_draws=shared_draws,
    )
    if not isinstance(recipe, Stage2):
        return settings
    select, lowest = {
        "best": best_by(context.criterion.form),
        "lowest-loss": (LOSS, True),
        "last": (None, False),
    }[recipe.select]
    settings = replace(
        settings, optimiser=recipe.optimiser, select=select, lowest=lowest, ema=recipe.ema
    )
    if recipe.schedule == "one-cycle":
        return replace(settings, cycle=recipe.one_cycle or Cycle())
    if recipe.schedule == "constant":  # a cosine between equal rates
        return replace(settings, min_lr=scaled_lr(recipe.base_lr, recipe.batch_size))
    return settings


def check_fit(backbone: Backbone, source: Source, samples: int | None = None) -> None:
    """Prepare and encode one record, to refuse a crop of a wrong length early.

    `samples` is the length of what is encoded if it is a part of the crop.
    """
    crop = source.crops(np.arange(1), torch.zeros(1, dtype=torch.long))[..., :samples]
    was_training = backbone.training
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfittedWarning)  # fitted later
        backbone.eval().features(crop)
    backbone.train(was_training)
