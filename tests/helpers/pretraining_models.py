"""Whole pretraining models, encoder and heads, from public checkpoints or our own tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from einthoven.backbones.registry import create_backbone, entry
from einthoven.objectives import create_objective
from einthoven.weights import ecg_fm, st_mem
from einthoven.weights.fit import Naming, convert, with_newer_weight_norm
from einthoven.weights.safe import read_state

COUNTERS = ("steps",)  # of our pretraining, absent from public files
_ECG_FM_HEADS = {
    "mask_vector": "mask_emb",
    "quantiser.codebook": "quantizer.vars",
    "quantiser.projection.weight": "quantizer.weight_proj.weight",
    "quantiser.projection.bias": "quantizer.weight_proj.bias",
    "target_projection.weight": "project_q.weight",
    "target_projection.bias": "project_q.bias",
    "context_projection.weight": "final_proj.weight",
    "context_projection.bias": "final_proj.bias",
}
_ST_MEM_DECODER = {
    "mask_token": "mask_embedding",
    "positions": "decoder_pos_embed",
    "embed": "to_decoder_embedding",
    "norm": "decoder_norm",
    "head": "decoder_head",
} | {f"blocks.{{}}.{key}": f"decoder_blocks.{{}}.{name}" for key, name in st_mem._IN_BLOCK.items()}


def _without_copy(state: Mapping[str, Tensor], _: object) -> dict[str, Tensor]:
    """The public model contains the patch embedding twice; the other prefix is `encoder.`."""
    return {key: value for key, value in state.items() if not key.startswith("to_patch_embedding.")}


NAMINGS = {
    "ecg_fm": Naming(
        _ECG_FM_HEADS | {f"backbone.{ours}": name for ours, name in ecg_fm._IN_ENCODER.items()},
        tensors=with_newer_weight_norm,
    ),
    "st_mem": Naming(
        {f"backbone.{ours}": f"encoder.{name}" for ours, name in st_mem._IN_ENCODER.items()}
        | {f"decoder.{ours}": name for ours, name in _ST_MEM_DECODER.items()},
        tensors=_without_copy,
    ),
}


def load_pretraining(
    name: str,
    *,
    weights: Path,
    backbone_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A backbone under the objective of its authors, in eval mode, with the weights of a file."""
    family, state = entry(name).family, read_state(weights)
    with torch.device("meta"):
        backbone = create_backbone(name, **{"init": "pretraining", **(backbone_options or {})})
        objective = "ecg_fm" if family == "ecg_fm" else "mae"
        model: Any = create_objective(objective, backbone, **options)
    expected, naming, counters = model.state_dict(), Naming(), {}
    if not any(key.startswith("backbone.") for key in state):
        naming = NAMINGS.get(family, naming)
        counters = {
            key: torch.zeros_like(expected.pop(key), device="cpu")
            for key in COUNTERS
            if key in expected
        }
    tensors = naming.tensors(state, backbone.config)
    ours = convert(tensors, expected, naming, file=weights, what=f"{name}'s pretraining")
    model.load_state_dict(ours | counters, assign=True)
    return model.eval()
