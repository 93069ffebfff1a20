"""Self-supervised objectives: one file each, readable alone, and the catalogue of their names."""

from einthoven.objectives.registry import (
    create_objective,
    create_pretraining,
    objective_names,
    register_objective,
)

__all__ = ["create_objective", "create_pretraining", "objective_names", "register_objective"]


def __dir__() -> list[str]:
    return sorted(__all__)
