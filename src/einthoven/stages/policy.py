"""Settings that depend on the size of the cohort: the values that a recipe leaves to `auto`.

The limits are assumptions. What has been measured about them, and about the logistic regression, is
in docs/recipes.md, "Small cohorts".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from einthoven.stages.recipe import Recipe, Stage2
from einthoven.tasks import negatives, positives
from einthoven.tasks.kind import Form
from einthoven.tasks.task import Matrix

MOST_SOLVED = 5000
"""Most training records for which the probe is a logistic regression."""
MIN_FOR_SELECTION = 10
"""Fewest positives (median over labels) in validation for which AUROC selects the epoch."""
SMALLEST_BATCH = 8
FEWEST_TUNED = 1000
"""Fewest training and validation records for which fine-tuning is tried after a probe."""
MOST_REFITTED = 2000
"""Most training and validation records for which the model is trained again on both."""


@dataclass(frozen=True)
class Decision:
    """Value of a recipe's key that was left to `auto`, and its reason."""

    key: str
    value: object
    reason: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value} ({self.reason})"


def resolve_auto(
    recipe: Recipe, targets: Matrix, validation: Matrix, form: Form = "labels"
) -> tuple[Recipe, list[Decision]]:
    """Replace every `auto` of a recipe's stages, for `(records, labels)` targets of both splits.

    Classes and numbers, the `form` of the targets, select an epoch by their loss.

    Returns
    -------
    recipe : Recipe
        The recipe with concrete values.
    decisions : list of Decision
        Every value that was left to `auto`, with its reason.
    """
    decisions: list[Decision] = []
    records = len(targets)
    total = records + len(validation)
    together = f"{total:,} training and validation records, limit"
    undecided = recipe.stage1 and recipe.stage2 and recipe.stage2.keep == "auto"
    if undecided:
        reason = f"{together} {FEWEST_TUNED:,}"
        if total < FEWEST_TUNED:
            decisions.append(Decision("stage2", "none", reason))
            recipe = recipe.model_copy(update={"stage2": None})
        else:
            decisions.append(Decision("stage2.keep", "better", reason))
    if recipe.stage1 and recipe.stage1.solver == "auto":
        is_solved = recipe.head == "linear" and records <= MOST_SOLVED
        reason = f"{records:,} training records, limit {MOST_SOLVED:,}"
        if recipe.head != "linear":
            reason = f"the head {recipe.head} has no closed solution"
        solver = "logistic" if is_solved else "adamw"
        decisions.append(Decision("stage1.solver", solver, reason))
    if recipe.stage2 and recipe.stage2.select == "auto" and form != "labels":
        decisions.append(Decision("stage2.select", "lowest-loss", f"the targets are {form}"))
    elif recipe.stage2 and recipe.stage2.select == "auto":
        rarer = np.minimum(positives(validation), negatives(validation))
        median = float(np.median(rarer[rarer > 0])) if rarer.any() else 0.0
        decisions.append(
            Decision(
                "stage2.select",
                "best" if median >= MIN_FOR_SELECTION else "lowest-loss",
                f"positives per label in validation: median {median:g}, limit {MIN_FOR_SELECTION}",
            )
        )
    if recipe.stage2 and (batch := _batch(recipe.stage2, records)) != recipe.stage2.batch_size:
        decisions.append(
            Decision(
                "stage2.batch_size",
                batch,
                f"{records:,} training records, at least {recipe.stage2.min_steps} steps",
            )
        )
    if recipe.refit == "auto":
        few = len(validation) > 0 and total <= MOST_REFITTED
        value = "always" if few else "never"
        decisions.append(Decision("refit", value, f"{together} {MOST_REFITTED:,}"))
    changes: dict[str, dict[str, object]] = {}
    for decision in decisions:
        section, _, key = decision.key.rpartition(".")
        changes.setdefault(section, {})[key] = decision.value
    updates = {key: value for key, value in changes.pop("", {}).items() if key != "stage2"}
    for name, new in changes.items():
        updates[name] = getattr(recipe, name).model_copy(update=new)
    return recipe.model_copy(update=updates), decisions


def _batch(stage: Stage2, records: int) -> int:
    """The recipe's batch, halved until the epochs have `min_steps` steps or it is the smallest."""
    batch = stage.batch_size
    while (
        stage.epochs * max(1, records // batch) < stage.min_steps
        and batch // 2 >= max(SMALLEST_BATCH, stage.micro_batch or 0)
        and batch % 2 == 0
    ):
        batch //= 2
    return batch
