"""Names of the tensors in HuBERT-ECG's public checkpoints.

Two kinds are public for each size: the pretrained network (148, 212 and 276 entries for small, base
and large, `model.safetensors` on the hub, ``checkpoint["model_state_dict"]`` in the older `.pt`
files), and classifiers, where the same names stand under `hubert_ecg.` with `classifier.*` beside
them. Both spellings of the positional convolution's weight norm are read, the newer one is written
(`einthoven.weights.wav2vec`).

The `.pt` files hold the authors' config object beside the tensors, under the name that its class
had where they were saved; it is read as a table of its attributes (`einthoven.weights.vocabulary`),
and then left aside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from einthoven.weights.safe import without_prefix
from einthoven.weights.wav2vec import Wav2VecNames

__all__ = ["encoder_parts", "encoder_state", "is_classifier"]

_INSIDE = "hubert_ecg."
_NAMES = Wav2VecNames(
    modules={
        "extractor.norm": "feature_extractor.conv_layers.0.layer_norm",
        "projection.norm": "feature_projection.layer_norm",
        "projection.linear": "feature_projection.projection",
        "norm": "encoder.layer_norm",
        "head": "head",
    },
    convolution="feature_extractor.conv_layers.{}.conv",
    attention="attention",
    in_block={
        "attn.proj": "attention.out_proj",
        "norm1": "layer_norm",
        "mlp.fc1": "feed_forward.intermediate_dense",
        "mlp.fc2": "feed_forward.output_dense",
        "norm2": "final_layer_norm",
    },
    positions="encoder.pos_conv_embed.conv",
)
encoder_parts = _NAMES.parts
_HEAD = {"classifier.weight": "head.weight", "classifier.bias": "head.bias"}
# First words of what is no part of the encoder: the stand-in for masked tokens, what predicts
# cluster numbers, and the released alternatives to a linear head.
_NOT_THE_ENCODER = (
    "masked_spec_embed",
    "final_proj.",
    "label_embedding.",
    "classifier.0.",
    "classifier.2.",
)


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's (and a linear head's) entries of any public file, in the newer spelling."""
    inside = without_prefix(state, _INSIDE)
    head = {key: tensor for key, tensor in state.items() if key in _HEAD}
    return {
        _HEAD.get(key, key): tensor
        for key, tensor in _NAMES.respelt(inside | head).items()
        if not key.startswith(_NOT_THE_ENCODER)
    }


def is_classifier(names: Collection[str]) -> bool:
    """Whether public names of tensors are those of a classifier, whatever its head."""
    return any(name.removeprefix("module.").startswith((_INSIDE, "classifier.")) for name in names)
