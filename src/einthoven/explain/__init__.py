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
from einthoven.explain.shares import Shares, shares_of

__all__ = [
    "DEFAULT",
    "METHODS",
    "Attribution",
    "Curves",
    "Faithfulness",
    "Shares",
    "agreement",
    "attribute",
    "curves",
    "faithfulness",
    "methods_of",
    "reinitialisation",
    "shares_of",
]


def __dir__() -> list[str]:
    return sorted(__all__)
