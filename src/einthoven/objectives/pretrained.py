"""A masked autoencoder, encoder and decoder, from a checkpoint on disk."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from einthoven.backbones.registry import create_backbone, entry
from einthoven.errors import WeightsError
from einthoven.objectives.mae import MaskedAutoencoder, create_mae
from einthoven.weights.convert import convert, own_parts
from einthoven.weights.safe import read_checkpoint
from einthoven.weights.st_mem import pretraining_parts, pretraining_state
from einthoven.weights.state import state_of

__all__ = ["load_pretraining"]


def load_pretraining(
    name: str,
    *,
    weights: str | PathLike[str],
    backbone_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> MaskedAutoencoder:
    """Build a registered backbone under its masked-reconstruction objective, with weights.

    Parameters
    ----------
    name : str
        A registered backbone.
    weights : path
        ST-MEM's full public checkpoint (228 entries), or a state dict of our own
        `MaskedAutoencoder` of the same backbone.
    backbone_options : mapping, optional
        Fields of the backbone's config.
    **options
        Fields of `MAEConfig`.

    Returns
    -------
    MaskedAutoencoder
        In eval mode, on the CPU.

    Raises
    ------
    WeightsError
        When the file is damaged, unsafe, of another network, or has no decoder.
    """
    state = state_of(read_checkpoint(weights), file=weights)
    own = any(key.startswith("backbone.") for key in state)
    if not own and entry(name).family != "st_mem":
        raise WeightsError(
            f"{weights}: pretraining models of {name} are read in our own naming only",
            remedy="load the encoder alone, with einthoven.weights.load_backbone.",
        )
    overrides = {"init": "pretraining", **(backbone_options or {})}
    with torch.device("meta"):
        model = create_mae(create_backbone(name, **overrides), **options)
    parts = own_parts if own else pretraining_parts
    state = state if own else pretraining_state(state)
    ours = convert(state, model.state_dict(), parts, file=weights, what=f"{name}'s pretraining")
    model.load_state_dict(ours, assign=True)
    return model.eval()
