"""Paired comparisons: identities, alignment and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.errors import EvaluationError
from einthoven.evaluate import Comparison, Difference, compare, score_predictions
from einthoven.evaluate.bootstrap import multiplicities
from einthoven.evaluate.estimate import CONSTANT
from einthoven.evaluate.metrics import rank, resampled_metrics
from einthoven.predictions import Predictions

LABELS = ("NORM", "MI", "STTC", "2AVB")


def predictions(seed: int, gain: float = 0.2, **changes: Any) -> Predictions:
    truth = np.random.default_rng(0)
    targets = (truth.random((300, 4)) < [0.5, 0.2, 0.1, 0.01]).astype(np.uint8)
    targets[5, 3] = 1
    noise = np.random.default_rng(seed).normal(0, 0.2, targets.shape)
    values: dict[str, Any] = {
        "labels": LABELS,
        "records": [f"r{i}" for i in range(300)],
        "patients": [f"p{i // 2}" for i in range(300)],
        "targets": targets,
        "probabilities": np.clip(0.4 + gain * targets + noise, 0, 1),
    }
    return Predictions(**(values | changes))


def shuffled(table: Predictions) -> Predictions:
    rng = np.random.default_rng(4)
    rows, columns = rng.permutation(300), rng.permutation(4)
    return Predictions(
        tuple(table.labels[i] for i in columns),
        table.records[rows],
        table.patients[rows],
        table.require_targets()[rows][:, columns],
        table.probabilities[rows][:, columns],
    )


def differences(result: Comparison) -> list[Difference]:
    return [result.auroc, result.auprc]


@pytest.mark.parametrize("by", ["record", "patient"])
@pytest.mark.parametrize("interval", ["percentile", "basic", "bca"])
def test_a_model_does_not_differ_from_itself(by: str, interval: str) -> None:
    a = predictions(1)
    result = compare(a, a, resamples=100, by=by, interval=interval)
    for one in differences(result):
        assert (one.macro, one.macro_interval, one.bias) == (0, None, 0)
        assert one.macro_interval_reason == CONSTANT
        assert not one.per_label.any()
        assert one.intervals is not None
        assert np.isnan(one.intervals).all()
        assert one.improved == one.significantly_better == one.significantly_worse == 0
        assert one.share_above_zero == 0
        assert one.relative_gain == 0


@pytest.mark.parametrize("interval", ["percentile", "basic", "bca"])
@pytest.mark.parametrize("policy", ["resample", "skip"])
def test_swapping_the_models_changes_the_sign(interval: str, policy: str) -> None:
    a, b = predictions(1, 0.3), predictions(2, 0.1)
    options: dict[str, Any] = {"resamples": 100, "interval": interval, "undefined_labels": policy}
    ab, ba = compare(a, b, **options), compare(b, a, **options)
    for one, other in zip(differences(ab), differences(ba), strict=True):
        assert one.macro == -other.macro
        np.testing.assert_allclose(one.per_label, -other.per_label, rtol=0, atol=1e-15)
        assert one.intervals is not None
        assert other.intervals is not None
        np.testing.assert_allclose(one.intervals, -other.intervals[:, ::-1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            one.macro_interval, np.negative(other.macro_interval)[::-1], rtol=0, atol=1e-12
        )
        assert one.significantly_better == other.significantly_worse
    assert ab.a.to_dict() == ba.b.to_dict()


def test_both_scores_equal_those_of_score() -> None:
    a, b = predictions(1), predictions(2)
    settings: dict[str, Any] = {"resamples": 100, "seed": 5, "by": "patient"}
    result = compare(a, b, **settings)
    for table, one in ((a, result.a), (b, result.b)):
        assert one.to_dict() == score_predictions(table, **settings).to_dict()
    assert result.auroc.macro == pytest.approx(result.a.macro_auroc - result.b.macro_auroc)
    gain = result.a.macro_auprc / result.b.macro_auprc - 1
    assert result.auprc.relative_gain == pytest.approx(gain)


def test_the_interval_is_that_of_paired_differences() -> None:
    a, b = predictions(1, 0.3), predictions(2, 0.1)
    result = compare(a, b, resamples=80, seed=5)
    targets = a.require_targets()
    drawn = multiplicities(300, 80, seed=5, accept=targets).multiplicities
    ours, theirs = (
        resampled_metrics(rank(targets, table.probabilities), drawn)[0].mean(axis=1)
        for table in (a, b)
    )
    np.testing.assert_allclose(
        result.auroc.macro_interval, np.quantile(ours - theirs, [0.025, 0.975]), atol=1e-12
    )
    assert result.auroc.share_above_zero == (ours > theirs).mean()


def test_a_better_model_is_significantly_better() -> None:
    result = compare(predictions(1, 0.4), predictions(2, 0.05), resamples=300)
    assert result.auroc.improved == 4
    assert result.auroc.significantly_better is not None
    assert result.auroc.significantly_better >= 3
    assert result.auroc.significantly_worse == 0
    assert result.auroc.macro_interval is not None
    assert result.auroc.macro_interval[0] > 0
    assert result.auroc.share_above_zero == 1.0


def test_rows_and_labels_are_aligned_by_name() -> None:
    a, b = predictions(1), predictions(2)
    straight, mixed = (compare(a, other, resamples=50) for other in (b, shuffled(b)))
    assert mixed.to_dict() == straight.to_dict()


def test_reads_saved_tables(tmp_path: Path) -> None:
    a, b = predictions(1), predictions(2)
    a.save(tmp_path / "a.parquet")
    b.save(tmp_path / "b.csv")
    result = compare(tmp_path / "a.parquet", str(tmp_path / "b.csv"), resamples=20)
    assert result.to_dict() == compare(a, b, resamples=20).to_dict()


def test_the_dict_holds_every_label() -> None:
    result = compare(predictions(1), predictions(2), resamples=50)
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["a"]["macro_auroc"] == result.a.macro_auroc
    for metric, one in zip(("auroc", "auprc"), differences(result), strict=True):
        assert list(values[metric]["per_label"]) == list(LABELS)
        for i, entry in enumerate(values[metric]["per_label"].values()):
            assert one.intervals is not None
            assert entry["interval"] == (
                None if np.isnan(one.intervals[i]).all() else one.intervals[i].tolist()
            )
            both = [values[side]["per_label"][LABELS[i]][metric] for side in "ab"]
            assert entry["difference"] == pytest.approx(both[0] - both[1])


def test_without_resamples_nothing_is_significant() -> None:
    result = compare(predictions(1), predictions(2), resamples=0)
    for one in differences(result):
        assert one.macro_interval is one.intervals is one.significantly_better is None
        assert one.share_above_zero is one.bias is None
    json.dumps(result.to_dict(), allow_nan=False)


def wrong_targets() -> np.ndarray:
    changed = predictions(1).require_targets().copy()
    changed[7, 2] = 1 - changed[7, 2]
    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("NORM", "MI", "STTC", "3AVB")}, r"\(2AVB\).*\(3AVB\)"),
        ({"records": [f"r{i}" for i in range(1, 301)]}, r"\(r0\).*\(r300\)"),
        ({"targets": wrong_targets()}, "STTC .*r7"),
        ({"targets": None}, "no targets"),
    ],
)
def test_predictions_that_do_not_match_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        compare(predictions(1), predictions(2, **changes), resamples=20)


def test_patients_must_match_only_where_they_are_drawn() -> None:
    a, b = predictions(1), predictions(2, patients=["q"] + [f"p{i // 2}" for i in range(1, 300)])
    compare(a, b, resamples=20)
    with pytest.raises(EvaluationError, match=r"r0 \(p0 .*q\)"):
        compare(a, b, resamples=20, by="patient")
    unknown = predictions(1, patients=[""] * 300)
    with pytest.raises(EvaluationError, match="300 of 300"):
        compare(unknown, unknown, by="patient")
    with pytest.raises(EvaluationError, match="by = 'site'"):
        compare(a, b, by="site")
