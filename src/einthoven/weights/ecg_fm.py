"""Tensor names in ECG-FM's public checkpoints.

Two kinds are public, both written by fairseq with the tensors in ``checkpoint["model"]``: the
pretrained network (215 tensors) and classifiers (209), in which the network has the prefix
`encoder.`, beside the head, `proj.*`. The blocks of the pretrained network begin with `encoder.` as
well, so a classifier is recognised by the doubled prefix. The weight norm of the positional
convolution has two names, by PyTorch version.
"""

from __future__ import annotations

from torch import Tensor

from einthoven.backbones.inference import Aggregate
from einthoven.weights.fit import Naming, State, with_newer_weight_norm

_INSIDE, _HEAD = "encoder.", "proj"
_IN_ENCODER = {
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
    "head": _HEAD,
}
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

_PRETRAINING_ONLY = (
    "mask_emb",
    "quantizer.vars",
    "quantizer.weight_proj.weight",
    "quantizer.weight_proj.bias",
    "project_q.weight",
    "project_q.bias",
    "final_proj.weight",
    "final_proj.bias",
)


def _encoder(state: State, _: object) -> dict[str, Tensor]:
    if any(key.startswith(2 * _INSIDE) for key in state):  # a classifier
        state = {key.removeprefix(_INSIDE): tensor for key, tensor in state.items()}
    tensors = with_newer_weight_norm(state)
    return {key: tensor for key, tensor in tensors.items() if key not in _PRETRAINING_ONLY}


ENCODER = Naming(_IN_ENCODER, "layers.0.self_attn.k_proj.weight", head=_HEAD, tensors=_encoder)
