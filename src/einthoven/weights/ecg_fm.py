"""Tensor names in ECG-FM's public checkpoints.

Two kinds are public, both written by fairseq with the tensors in ``checkpoint["model"]``: the
pretrained network (215 tensors) and classifiers (209), in which the network has the prefix
`encoder.`, beside the head, `proj.*`. The blocks of the pretrained network begin with `encoder.` as
well, so a classifier is recognised by the doubled prefix. The weight norm of the positional
convolution has two names, by PyTorch version.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from einthoven.backbones.inference import Aggregate
from einthoven.weights.fit import Shape, renaming, with_newer_weight_norm

__all__ = [
    "AGGREGATES",
    "COUNTERS",
    "LABELS",
    "encoder_parts",
    "encoder_state",
    "pretraining_parts",
    "pretraining_state",
]

_INSIDE = "encoder."
encoder_parts = renaming(
    {
        "extractor.convs.{}": "feature_extractor.conv_layers.{}.0",
        "extractor.norm": "feature_extractor.conv_layers.0.2",
        "projection.norm": "layer_norm",
        "projection.linear": "post_extract_proj",
        "pos_conv.gain": "conv_pos.pos_conv.0.parametrizations.weight.original0",
        "pos_conv.direction": "conv_pos.pos_conv.0.parametrizations.weight.original1",
        "pos_conv": "conv_pos.pos_conv.0",
        "norm": "encoder.layer_norm",
        "blocks.{}.norm1": "encoder.layers.{}.self_attn_layer_norm",
        "blocks.{}.attn.qkv": "encoder.layers.{}.self_attn.{qkv}_proj",
        "blocks.{}.attn.proj": "encoder.layers.{}.self_attn.out_proj",
        "blocks.{}.norm2": "encoder.layers.{}.final_layer_norm",
        "blocks.{}.mlp.fc1": "encoder.layers.{}.fc1",
        "blocks.{}.mlp.fc2": "encoder.layers.{}.fc2",
        "head": "head",
    }
)
_HEAD = {"proj.weight": "head.weight", "proj.bias": "head.bias"}
LABELS = (
    "Poor data quality",
    "Sinus rhythm",
    "Premature ventricular contraction",
    "Tachycardia",
    "Ventricular tachycardia",
    "Supraventricular tachycardia with aberrancy",
    "Atrial fibrillation",
    "Atrial flutter",
    "Bradycardia",
    "Accessory pathway conduction",
    "Atrioventricular block",
    "1st degree atrioventricular block",
    "Bifascicular block",
    "Right bundle branch block",
    "Left bundle branch block",
    "Infarction",
    "Electronic pacemaker",
)
"""Outputs of the classifier `mimic_iv_ecg_finetuned.pt`, in their order."""
_TRANSIENT = (LABELS[0], LABELS[2], LABELS[4], LABELS[5], LABELS[16])
AGGREGATES: tuple[Aggregate, ...] = tuple(
    "max" if label in _TRANSIENT else "probability" for label in LABELS
)
"""Aggregation of the 5 s segments of a recording by its authors: the maximum for findings that may
be present in one of them only, the mean for the others."""

COUNTERS = ("steps",)  # of our pretraining, absent from public files
_IN_PRETRAINING = {
    "mask_vector": "mask_emb",
    "quantiser.codebook": "quantizer.vars",
    "quantiser.projection.weight": "quantizer.weight_proj.weight",
    "quantiser.projection.bias": "quantizer.weight_proj.bias",
    "target_projection.weight": "project_q.weight",
    "target_projection.bias": "project_q.bias",
    "context_projection.weight": "final_proj.weight",
    "context_projection.bias": "final_proj.bias",
}


def pretraining_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Public names of one tensor of our pretraining model (`backbone.*` and its heads)."""
    if key in _IN_PRETRAINING:
        return [_IN_PRETRAINING[key]], shape
    return encoder_parts(key.removeprefix("backbone."), shape)


def pretraining_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of a public pretraining file."""
    return with_newer_weight_norm(state)


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the encoder, and of a head, in any public file."""
    head = {_HEAD[key]: tensor for key, tensor in state.items() if key in _HEAD}
    if any(key.startswith(2 * _INSIDE) for key in state):
        outside = {k: v for k, v in state.items() if not k.startswith(_INSIDE) and k not in _HEAD}
        inside = {k.removeprefix(_INSIDE): v for k, v in state.items() if k.startswith(_INSIDE)}
        state = inside | outside  # tensors outside are listed as unexpected
    pretraining = set(_IN_PRETRAINING.values())
    return head | {
        key: tensor
        for key, tensor in pretraining_state(state).items()
        if key not in pretraining and key not in _HEAD
    }
