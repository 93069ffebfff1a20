"""Training of a final model with what was selected in an earlier training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median_high
from typing import Any

from einthoven.files import HISTORY_FILE, Json, read_lines
from einthoven.stages.posttrain import GAIN, gains
from einthoven.stages.recipe import Recipe, Stage1, Stage2
from einthoven.stages.validation import LOSS, SELECT

REFIT = "refit"
"""Folder of the training in a run folder."""


def refit_recipe(
    recipe: Recipe, selections: Sequence[Mapping[str, Any]], folders: Sequence[Path]
) -> Recipe:
    """Recipe of a final training, with what was selected in one or more earlier ones.

    Fine-tuning lasts as many epochs as the median of the selected ones, and its learning rate falls
    to the end within them: a network taken from a high rate is overconfident. The warm-up keeps its
    share. Fine-tuning is left out if it was
    compared with the probe and does not gain on the validation records of all trainings together
    (`gains`). AdamW trains the probe to its last epoch, at the rate with the best mean over the
    trainings.

    Parameters
    ----------
    recipe : Recipe
        Recipe of the earlier trainings.
    selections : sequence of mapping
        Provenance of each: its `recipe` without `auto`, `selected_epoch` by stage and `kept_stage`.
    folders : sequence of path
        Run folder of each.
    """
    changes: dict[str, Any] = {"refit": "never"}
    if recipe.stage1:
        fixed: dict[str, Any] = {"solver": selections[0]["recipe"]["stage1"]["solver"]}
        if fixed["solver"] == "adamw":
            rate = _rate(recipe.stage1, folders)
            fixed |= {"select": "last", "base_lr_sweep": (), "base_lr": rate}
        changes["stage1"] = recipe.stage1.model_copy(update=fixed)
    if recipe.stage2:
        epochs = [s["selected_epoch"].get("stage2") for s in selections]
        changes["stage2"] = None
        outcomes = [folder / "stage2" / GAIN for folder in folders]
        compared = all(file.is_file() for file in outcomes)
        if None not in epochs and (not compared or gains(outcomes)):
            changes["stage2"] = _shortened(recipe.stage2, median_high(epochs))
    return recipe.model_copy(update=changes)


def _shortened(stage: Stage2, epochs: int) -> Stage2:
    """Fine-tuning of a given number of epochs, kept to the last, with the warm-up in proportion."""
    fixed = {
        "epochs": epochs,
        "warmup_epochs": stage.warmup_epochs * epochs / stage.epochs,
        "min_steps": 0,  # the batch is that of the earlier trainings
        "select": "last",
        "keep": "always",
    }
    return stage.model_copy(update=fixed)


def joint_policy(selections: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Decisions of several trainings, each once, with its `folds` and the reason in the first."""
    decisions: dict[tuple[str, object], Json] = {}
    for number, selection in enumerate(selections, 1):
        for decision in selection.get("policy") or ():
            key = decision["key"], decision["value"]
            decisions.setdefault(key, {**decision, "folds": []})["folds"].append(number)
    return list(decisions.values())


def _rate(stage: Stage1, folders: Sequence[Path]) -> float:
    """Learning rate with the best validation AUROC, or loss, of the kept epochs in the mean."""

    def value(rate: float) -> float:
        files = [folder / "stage1" / f"lr-{rate:g}" / HISTORY_FILE for folder in folders]
        first = 0 if stage.select == "best" else -1
        epochs = (read_lines(file, least=1)[first:] for file in files)
        return float(mean(max(line.get(SELECT, -line[LOSS]) for line in lines) for lines in epochs))

    rates = stage.base_lr_sweep
    return max(rates, key=value) if rates else stage.base_lr
