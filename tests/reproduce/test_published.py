"""What is quoted, against what else its sources say."""

from __future__ import annotations

import pytest

from einthoven.reproduce import published


def test_published_gains_are_the_paper_s() -> None:
    """The percentages of its tables, from the values of its tables."""
    gains = {
        metric: [100 * (published.relative_gain(task, metric) or 0) for task in published.TASKS]
        for metric in ("auroc", "auprc")
    }
    assert gains["auroc"] == pytest.approx([5.2, 8.9, 3.6, 0.7], abs=0.06)
    assert gains["auprc"] == pytest.approx([34.9, 77.9, 25.9, 23.3], abs=0.06)
    assert published.AUROC["MSW-Transformer"].keys() == set(published.TASKS[1:])
    assert published.relative_gain("form-19", "auroc") is None


def test_an_ensemble_is_better_than_its_members() -> None:
    """A slip of a digit would most likely break it."""
    whole = published.AUROC["ensemble of 7"]
    for task, value in whole.items():
        for name in list(published.ROWS)[:7]:
            assert published.ROWS[name][task].value < value.value + 1e-9, (name, task)
