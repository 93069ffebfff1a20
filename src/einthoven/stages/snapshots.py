"""Encoders of epochs on the way, as many as a recipe asks for and never more."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einthoven.backbones.contract import Backbone
from einthoven.files import Json
from einthoven.models import Model, save_model
from einthoven.stages.recipe import Pretraining

LOSS = "validation_loss"
_PATTERN = "epoch-*"


@dataclass(frozen=True)
class Snapshots:
    """Keeps what the recipe asks for; what it no longer asks for is deleted.

    Which epochs are kept is a function of the epochs' losses alone. A run that was killed between
    a deletion and the next file does the epoch again, and so writes the file again.

    Attributes
    ----------
    folder : Path
        Where the model folders go, `epoch-0010` and so on.
    backbone : Backbone
        In training.
    recipe : Pretraining
        Its `keep_every`, `keep_last` and `keep_best`.
    config : dict
        Descriptive entries of every model, beside its epoch.
    fingerprints : dict of str to str
        Fingerprints of the training records.
    """

    folder: Path
    backbone: Backbone
    recipe: Pretraining
    config: Json
    fingerprints: dict[str, str]

    def update(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Bring the folder up to date after the last epoch of `history`."""
        kept = kept_epochs(history, self.recipe)
        names = {f"epoch-{epoch:04d}" for epoch in kept}
        for place in self.folder.glob(_PATTERN):
            if place.name not in names:
                shutil.rmtree(place)
        now = history[-1]["epoch"]
        if now in kept:
            config = {**self.config, "epoch": now}
            network = self.backbone
            model = Model(
                network, network.preparation, config=config, fingerprints=self.fingerprints
            )
            save_model(model, self.folder / f"epoch-{now:04d}", overwrite=True)


def kept_epochs(history: Sequence[Mapping[str, Any]], recipe: Pretraining) -> set[int]:
    """Epochs whose encoders are kept once those of `history` are done."""
    epochs = [line["epoch"] for line in history]
    kept = set(epochs[len(epochs) - recipe.keep_last :])
    if recipe.keep_every:
        kept |= {epoch for epoch in epochs if epoch % recipe.keep_every == 0}
    scored = [line for line in history if math.isfinite(line.get(LOSS, math.nan))]
    if recipe.keep_best and scored:
        kept.add(min(scored, key=lambda line: float(line[LOSS]))["epoch"])
    return kept
