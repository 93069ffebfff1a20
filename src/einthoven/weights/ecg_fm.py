"""Names of the tensors in ECG-FM's public checkpoints.

Two kinds are public, both written by fairseq and read as ``checkpoint["model"]``: the pretrained
network (215 entries) and classifiers (209), where the network stands under `encoder.` with a head,
`proj.*`, beside it. The pretrained network has entries that begin with `encoder.` of its own, its
blocks, so the prefix is told from a doubled one. Both spellings of the positional convolution's
weight norm are read, the newer one is written (`einthoven.weights.wav2vec`).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from einthoven.backbones.inference import Aggregate
from einthoven.weights.fit import Shape
from einthoven.weights.wav2vec import Wav2VecNames

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
_NAMES = Wav2VecNames(
    modules={
        "extractor.norm": "feature_extractor.conv_layers.0.2",
        "projection.norm": "layer_norm",
        "projection.linear": "post_extract_proj",
        "norm": "encoder.layer_norm",
        "head": "head",
    },
    convolution="feature_extractor.conv_layers.{}.0",
    attention="self_attn",
    in_block={
        "attn.proj": "self_attn.out_proj",
        "norm1": "self_attn_layer_norm",
        "mlp.fc1": "fc1",
        "mlp.fc2": "fc2",
        "norm2": "final_layer_norm",
    },
    positions="conv_pos.pos_conv.0",
)
encoder_parts = _NAMES.parts
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
_PASSING = (LABELS[0], LABELS[2], LABELS[4], LABELS[5], LABELS[16])
AGGREGATES: tuple[Aggregate, ...] = tuple(
    "max" if label in _PASSING else "probability" for label in LABELS
)
"""How its authors join the 5 s segments of a recording: the highest probability of what may show
in one of them only, the mean of the rest."""

# What our pretraining counts, and nobody publishes.
COUNTERS = ("steps",)
# What only pretraining needs, by our names for it.
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
    """All entries of a pretraining file, in the newer spelling."""
    return _NAMES.respelt(state)


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's (and head's) entries of any public file, in the newer spelling."""
    head = {_HEAD[key]: tensor for key, tensor in state.items() if key in _HEAD}
    if any(key.startswith(2 * _INSIDE) for key in state):
        outside = {k: v for k, v in state.items() if not k.startswith(_INSIDE) and k not in _HEAD}
        inside = {k.removeprefix(_INSIDE): v for k, v in state.items() if k.startswith(_INSIDE)}
        state = inside | outside  # which has nothing, or what is to be listed as unexpected
    pretraining = set(_IN_PRETRAINING.values())
    return head | {
        key: tensor
        for key, tensor in pretraining_state(state).items()
        if key not in pretraining and key not in _HEAD
    }
