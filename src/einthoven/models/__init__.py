"""Models: a network with everything that it needs to predict, in memory, as a folder and as ONNX.

::

    config.json           backbone, labels, preparation, calibration, licence, provenance, checksums
    model.safetensors     the weights; fingerprints of the records that they were trained on
    README.md             the model card
    evaluation.json       scores, calibration, subgroups, robustness; only after an evaluation
    reliability.svg       reliability diagram of the card
    curves.svg            ROC and precision-recall curves of the card

The same folder holds a post-trained classifier, a pretrained encoder, and a converted public
checkpoint. Nothing in it is executed: the network is built from its registered name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einthoven.lazy import lazy_names
from einthoven.models.config import (
    CARD,
    RELIABILITY,
    SHIPPED,
    WEIGHTS,
    config_digest,
    is_model,
    model_path,
    read_config,
    refuse_models,
    update_config,
    weights_file,
)
from einthoven.models.initialisation import Initialisation, initialisation_of
from einthoven.models.provenance import derived_provenance, initial_weights, training_history

if TYPE_CHECKING:
    from einthoven.models.folder import load_model, load_network, save_model, write_evaluation
    from einthoven.models.model import Model
    from einthoven.models.onnx_export import export_onnx
    from einthoven.models.onnx_model import OnnxModel, load_onnx, open_model

__all__ = [
    "CARD",
    "RELIABILITY",
    "SHIPPED",
    "WEIGHTS",
    "Initialisation",
    "Model",
    "OnnxModel",
    "config_digest",
    "derived_provenance",
    "export_onnx",
    "initial_weights",
    "initialisation_of",
    "is_model",
    "load_model",
    "load_network",
    "load_onnx",
    "model_path",
    "open_model",
    "read_config",
    "refuse_models",
    "save_model",
    "training_history",
    "update_config",
    "weights_file",
    "write_evaluation",
]

# Imported when they are first used, because they import torch.
__getattr__ = lazy_names(
    __name__,
    {
        "Model": "models.model",
        "load_model": "models.folder",
        "export_onnx": "models.onnx_export",
        "load_network": "models.folder",
        "load_onnx": "models.onnx_model",
        "OnnxModel": "models.onnx_model",
        "open_model": "models.onnx_model",
        "save_model": "models.folder",
        "write_evaluation": "models.folder",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
