"""Networks: one file each, and the catalogue of their names."""

from einthoven.backbones.registry import backbone_names, create_backbone, entry

__all__ = ["backbone_names", "create_backbone", "entry"]


def __dir__() -> list[str]:
    return sorted(__all__)
