"""The study of small cohorts: its draws, its tasks, its means."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import Cohort

sys.path.insert(0, str(Path(__file__).parents[2] / "studies" / "small-cohorts"))

import page
import tasks


@pytest.fixture
def pool(synthetic: Cohort) -> Cohort:
    """A cohort of one label whose training records are the pool and whose others are tested."""
    splits = synthetic.table["split"].map({"train": "validation"}).fillna("test")
    matrix = np.zeros((len(synthetic), 1), dtype=np.uint8)
    matrix[::3] = 1
    cohort = replace(synthetic, labels=("third",), matrix=matrix)
    return cohort.with_splits(splits.to_numpy(dtype=str))


def test_draws_are_nested_and_keep_patients_together(pool: Cohort) -> None:
    draws = [tasks.draw_cohort(pool, size, draw=1) for size in (20, 40)]
    small, large = (set(draw.ids().tolist()) for draw in draws if draw is not None)
    assert small < large
    for draw, size in zip(draws, (20, 40), strict=True):
        assert draw is not None
        assert len(draw.ids("train")) + len(draw.ids("validation")) == size
        assert draw.ids("test").tolist() == pool.ids("test").tolist()
        patients = [set(draw.patients(split).tolist()) for split in ("train", "validation", "test")]
        assert patients[0].isdisjoint(patients[1])
        assert patients[2].isdisjoint(patients[0] | patients[1])
        assert draw.targets("validation").any()
    other = tasks.draw_cohort(pool, 20, draw=2)
    assert other is not None
    assert set(other.ids().tolist()) != small
    rare = replace(pool, matrix=np.zeros_like(pool.matrix))
    assert tasks.draw_cohort(rare, 20, draw=1) is None


def test_means_are_paired_over_tasks() -> None:
    rows = [
        {"arm": arm, "task": task, "records": 50, "draw": draw, "auroc": value + draw / 100,
         "log_loss": loss, "recall": 0.5, "seconds": 1.0}
        for arm, loss, values in (("auto", 0.2, (0.8, 0.9)), ("scratch", 0.3, (0.7, 0.6)))
        for task, value in zip(("a", "b"), values, strict=True)
        for draw in range(2)
    ]  # fmt: skip
    rows.append(rows[-1] | {"task": "c"})  # no `auto` on this task
    entries = page.summary(pd.DataFrame(rows))["entries"]
    scratch = next(entry for entry in entries if entry["arm"] == "scratch")
    assert (scratch["cohorts"], scratch["compared"]) == (5, 4)
    difference = scratch["auroc_difference"]
    assert difference["mean"] == pytest.approx(-0.2)
    assert difference["interval"] == pytest.approx([-0.3, -0.1])
    assert scratch["log_loss_difference"]["mean"] == pytest.approx(0.5)
