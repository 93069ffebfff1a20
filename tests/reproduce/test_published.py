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


def test_the_leaderboard_says_what_table_1_quotes_of_it() -> None:
    """Its four tasks, as the paper prints them."""
    quoted = {
        "inception1d": [0.925, 0.931, 0.930, 0.953],
        "xresnet1d101": [0.925, 0.937, 0.929, 0.957],
        "resnet1d_wang": [0.919, 0.936, 0.928, 0.946],
    }
    for name, values in quoted.items():
        row = published.AUROC[name]
        assert [row[task].value for task in published.TASKS] == values
        assert tuple(row) == published.BENCHMARK
        assert all(each.thousandths for each in row.values())


def test_every_row_has_a_place() -> None:
    """The benchmark's single networks stand together, and nobody is named twice."""
    names = list(published.ROWS)
    assert names[:7] == [
        "inception1d", "xresnet1d101", "resnet1d_wang", "fcn_wang", "lstm", "lstm_bidir",
        "Wavelet+NN",
    ]  # fmt: skip
    assert names[-1] == "Transformer-FM-PT"
    assert set(names) == published.AUROC.keys() | published.LEADERBOARD.keys()
    assert not published.AUROC.keys() & published.LEADERBOARD.keys()


def test_an_ensemble_is_better_than_its_members() -> None:
    """A slip of a digit would most likely break it."""
    whole = published.AUROC["ensemble of 7"]
    for task, value in whole.items():
        for name in list(published.ROWS)[:7]:
            assert published.ROWS[name][task].value < value.value + 1e-9, (name, task)
