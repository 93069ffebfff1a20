"""Schedules against their formulas, optimisers against theirs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from einthoven.training.optim import (
    Cycle,
    OneCycle,
    Schedule,
    adamax,
    set_learning_rate,
)

# The benchmark's: peak 0.01, 50 epochs of 136 steps.
BENCHMARK = OneCycle(peak_lr=0.01, total_steps=6800, cycle=Cycle())


@pytest.mark.parametrize(
    ("step", "lr", "momentum"),
    [
        (0, 0.0004, 0.95),  # the peak over 25
        (680, 0.0028, 0.925),  # a third of the way up: a quarter of the difference
        (1020, 0.0052, 0.9),  # half of it
        (2040, 0.01, 0.85),  # 30 % of all steps
        (4420, 0.00500002, 0.9),  # half of the way down
        (6800, 4e-8, 0.95),  # the peak over 250,000
    ],
)
def test_one_cycle_follows_its_formula(step: int, lr: float, momentum: float) -> None:
    assert BENCHMARK.lr(step) == pytest.approx(lr, rel=1e-12)
    assert BENCHMARK.momentum(step) == pytest.approx(momentum, rel=1e-12)


def test_a_cycle_without_a_rise_begins_at_its_peak() -> None:
    falling = OneCycle(1.0, 10, Cycle(warmup_share=0.0))
    assert falling.lr(0) == 1.0
    assert falling.momentum(0) == 0.85


def test_adamax_follows_its_paper() -> None:
    """Algorithm 2 of Kingma and Ba 2015, in numpy."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    optimizer = adamax([{"params": [weight], "lr_scale": 1.0, "weight_decay": 0.0}],
                       betas=(0.9, 0.999))  # fmt: skip
    expected = weight.detach().numpy().copy()
    mean, largest = np.zeros(3), np.zeros(3)
    for step in range(1, 7):
        gradient = np.array([math.sin(step), 0.1 * step, -1.0 / step])
        weight.grad = torch.from_numpy(gradient)
        set_learning_rate(optimizer, Schedule(0.002, 0.002, 0, 10), step)
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        largest = np.maximum(0.999 * largest, np.abs(gradient))
        expected -= 0.002 / (1 - 0.9**step) * mean / largest
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=0, atol=1e-9)
