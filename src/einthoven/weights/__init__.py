"""Checkpoints of others, and ours, into backbones."""

from einthoven.weights.load import load_backbone, load_classifier, to_public

__all__ = ["load_backbone", "load_classifier", "to_public"]
