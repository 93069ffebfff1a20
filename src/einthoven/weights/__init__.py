"""Weights of public checkpoints and model folders for our backbones."""

from einthoven.weights.load import load_backbone, load_classifier

__all__ = ["load_backbone", "load_classifier"]


def __dir__() -> list[str]:
    return sorted(__all__)
