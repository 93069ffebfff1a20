"""Benchmarks count floating-point operations as one would by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.objectives import create_pretraining

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def flops() -> Iterator[ModuleType]:
    """`benchmarks/flops.py`, imported as it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield __import__("flops")


def test_a_masked_autoencoder(flops: ModuleType) -> None:
    width, patch, leads, tokens, kept, outputs = 32, 5, 12, 50, 25, 60
    mae: Any = create_pretraining(
        "mtecg_tiny_100hz",
        seed=0,
        backbone_options={"width": width, "depth": 2, "heads": 1},
        mask_ratio=0.5,
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=1,
    )
    x = torch.randn(1, leads, tokens * patch)
    found = flops.forward_flops(mae, x)
    special = sum(mae.backbone.special_tokens)

    def block(tokens: int, width: int) -> int:
        dense = 2 * tokens * width * (3 * width + width + 4 * width + 4 * width)
        return dense + 2 * (2 * tokens * tokens * width)

    encoder = 2 * tokens * leads * patch * width + 2 * block(kept + special, width)
    into = 2 * (kept + special) * width * 16
    decoder = block(tokens + special, 16) + 2 * tokens * 16 * outputs
    assert found == encoder + into + decoder


def test_s4(flops: ModuleType) -> None:
    width, depth, state, tokens, labels = 16, 3, 4, 100, 5
    model = create_classifier(
        "s4", labels=labels, seed=0, width=width, depth=depth, state=state, dropout=0.0
    )
    x = torch.randn(1, 12, 2 * tokens)
    stem = 2 * tokens * (12 * 3 * width + 3 * width * width)
    transform = 2.5 * 2 * tokens * math.log2(2 * tokens) * width
    gate = 2 * tokens * width * 2 * width
    each = stem + depth * (2 * transform + gate) + 2 * width * labels
    # Once for all records: a kernel of two numbers a pair from C, and its transform.
    once = depth * (2 * width * state * tokens + transform)
    assert flops.forward_flops(model, x) == pytest.approx(each + once, rel=1e-4)
    assert flops.step_flops(model, x, 64) == pytest.approx(3 * (64 * each + once), rel=1e-4)
