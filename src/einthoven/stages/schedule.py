"""From a recipe's numbers to the loop's."""

from __future__ import annotations

from dataclasses import replace

from einthoven.stages.recipe import OneCycleTable, Pretraining, Stage2
from einthoven.stages.selection import LOSS, SELECT
from einthoven.training.optim import Cycle, Precision, Settings, scaled_lr

# Metric and whether its lowest value is the best; the last epoch is kept without one.
_SELECTED = {"best": (SELECT, False), "lowest-loss": (LOSS, True), "last": (None, False)}


def loop_settings(
    recipe: Stage2 | Pretraining,
    *,
    micro: int,
    world: int,
    precision: Precision,
    seed: int,
    shared_draws: bool = False,
) -> Settings:
    """What the loop has to know of a stage whose batches are made of micro-batches of `micro`."""
    settings = Settings(
        epochs=recipe.epochs,
        base_lr=recipe.base_lr,
        batch_size=recipe.batch_size,
        accumulation=recipe.batch_size // (micro * world),
        warmup_epochs=recipe.warmup_epochs,
        min_lr=recipe.min_lr,
        betas=recipe.betas,
        clip=recipe.clip,
        precision=precision,
        seed=seed,
        shared_draws=shared_draws,
    )
    return _of_fine_tuning(settings, recipe) if isinstance(recipe, Stage2) else settings


def _of_fine_tuning(settings: Settings, recipe: Stage2) -> Settings:
    select, lowest = _SELECTED[recipe.select]
    settings = replace(settings, optimiser=recipe.optimiser, select=select, lowest=lowest)
    if recipe.schedule == "one-cycle":
        shape = recipe.one_cycle or OneCycleTable()
        return replace(settings, cycle=Cycle(**shape.model_dump()))
    if recipe.schedule == "constant":  # a cosine that ends where it begins
        return replace(settings, min_lr=scaled_lr(recipe.base_lr, recipe.batch_size))
    return settings
