"""Explanations of predictions: attribution, its faithfulness, similar records, maps of a cohort."""

from einthoven.explain.attribution import DEFAULT, Attribution, attribute, methods_of
from einthoven.explain.faithfulness import (
    Curves,
    Faithfulness,
    agreement,
    curves,
    faithfulness,
    reinitialisation,
)
from einthoven.explain.methods import METHODS
from einthoven.explain.projection import project
from einthoven.explain.shares import Shares, shares_of
from einthoven.explain.similar import Gallery, Neighbour, precision_at

__all__ = [
    "DEFAULT",
    "METHODS",
    "Attribution",
    "Curves",
    "Faithfulness",
    "Gallery",
    "Neighbour",
    "Shares",
    "agreement",
    "attribute",
    "curves",
    "faithfulness",
    "methods_of",
    "precision_at",
    "project",
    "reinitialisation",
    "shares_of",
]


def __dir__() -> list[str]:
    return sorted(__all__)
