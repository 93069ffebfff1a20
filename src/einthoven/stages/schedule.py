"""From a recipe's numbers to the loop's."""

from __future__ import annotations

from einthoven.stages.recipe import Pretraining, Stage2
from einthoven.training.loop import Precision, Settings


def loop_settings(
    recipe: Stage2 | Pretraining,
    *,
    micro: int,
    world: int,
    precision: Precision,
    seed: int,
    select: str | None = None,
    shared_draws: bool = False,
) -> Settings:
    """What the loop has to know of a stage whose batches are made of micro-batches of `micro`."""
    return Settings(
        epochs=recipe.epochs,
        base_lr=recipe.base_lr,
        batch_size=recipe.batch_size,
        accumulation=recipe.batch_size // (micro * world),
        warmup_epochs=recipe.warmup_epochs,
        min_lr=recipe.min_lr,
        betas=recipe.betas,
        clip=recipe.clip,
        precision=precision,
        select=select,
        seed=seed,
        shared_draws=shared_draws,
    )
