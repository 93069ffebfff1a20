"""Scores: values, policies, intervals, forms and refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import binomtest
from scipy.stats import t as student
from sklearn.metrics import average_precision_score, roc_auc_score

from einthoven.errors import EvaluationError
from einthoven.evaluate import f_max, score
from einthoven.evaluate.bootstrap import multiplicities
from einthoven.evaluate.estimate import CONSTANT, TOO_FEW, Estimate
from einthoven.evaluate.metrics import point_metrics, rank, resampled_metrics
from einthoven.evaluate.scores import score_predictions
from einthoven.predictions import Predictions

LABELS = ("NORM", "MI", "STTC", "2AVB")


def example(n: int = 240) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    rng = np.random.default_rng(11)
    targets = (rng.random((n, 4)) < [0.5, 0.2, 0.1, 0.0]).astype(np.uint8)
    targets[5, 3] = 1
    targets[targets.sum(axis=1) == 0, 0] = 1
    return targets, np.clip(rng.normal(0.4 + 0.2 * targets, 0.2), 0, 1)


def test_values_and_intervals_equal_those_of_a_plain_loop() -> None:
    targets, scores = example()
    result = score(targets, scores, labels=LABELS, resamples=60, seed=4, interval="percentile")
    drawn = multiplicities(len(targets), 60, seed=4, accept=targets)
    for name, metric in (("auroc", roc_auc_score), ("auprc", average_precision_score)):
        loop = np.array(
            [
                [metric(targets[:, j], scores[:, j], sample_weight=w) for j in range(4)]
                for w in drawn.multiplicities
            ]
        )
        point = metric(targets, scores, average=None)
        macro = loop.mean(axis=1)
        values = vars(result)
        np.testing.assert_allclose(values[name], point, atol=1e-12)
        np.testing.assert_allclose(values[f"macro_{name}"], point.mean(), atol=1e-12)
        np.testing.assert_allclose(
            values[f"macro_{name}_interval"], np.quantile(macro, [0.025, 0.975]), atol=1e-12
        )
        limits = np.quantile(loop, [0.025, 0.975], axis=0).T
        limits[3] = np.nan  # one positive
        np.testing.assert_allclose(values[f"{name}_intervals"], limits, atol=1e-12)
        assert result.reasons[name] == [None, None, None, TOO_FEW]
        assert values[f"macro_{name}_bias"] == pytest.approx(macro.mean() - point.mean(), abs=1e-12)
    assert result.f_max == f_max(targets, scores)
    assert result.positives.tolist() == targets.sum(axis=0).tolist()
    assert (result.records, result.settings.resamples, result.drawn) == (240, 60, drawn.drawn)
    assert result.acceptance == pytest.approx(1 - 1 / math.e, abs=0.2)
    assert (result.defined_labels, result.settings.by) == (4, "record")
    assert result.settings.undefined_labels == "resample"


def test_precision_of_rare_labels_is_biased_upwards() -> None:
    targets, scores = example()
    result = score(targets, scores, labels=LABELS, resamples=500)
    assert result.macro_auprc_bias is not None
    assert result.macro_auprc_bias > 0.005


@pytest.mark.parametrize("interval", ["percentile", "basic", "bca"])
@pytest.mark.parametrize("policy", ["resample", "skip", "zero"])
@pytest.mark.parametrize("by_patient", [False, True])
def test_intervals_of_every_option_contain_the_auroc(
    interval: str, policy: str, by_patient: bool
) -> None:
    options: Any = {"interval": interval, "undefined_labels": policy}
    groups = np.arange(240) // 2 if by_patient else None
    result = score(*example(), labels=LABELS, resamples=200, groups=groups, **options)
    assert result.settings.by == ("patient" if by_patient else "record")
    assert result.auroc_intervals is not None
    for i in range(3):
        low, high = result.auroc_intervals[i]
        assert low < result.auroc[i] < high
    json.dumps(result.to_dict(), allow_nan=False)


def test_bca_uses_the_jackknife_of_the_macro_value() -> None:
    targets, scores = example(60)
    labels, targets, scores = LABELS[:2], targets[:, :2], scores[:, :2]
    result = score(targets, scores, labels=labels, resamples=80, interval="bca", seed=3)
    drawn = multiplicities(60, 80, seed=3, accept=targets).multiplicities

    def macro(weight: NDArray[np.generic]) -> Any:
        return roc_auc_score(targets, scores, sample_weight=weight)

    expected = Estimate(
        np.array([macro(np.ones(60))]),
        np.array([[macro(w)] for w in drawn]),
        np.array([[macro(np.arange(60) != i)] for i in range(60)]),
        result.settings,
    )
    np.testing.assert_allclose(result.macro_auroc_interval, expected.interval(), atol=1e-10)


def test_the_trapezoid_differs_from_average_precision() -> None:
    targets, scores = example()
    step = score(targets, scores, labels=LABELS, resamples=50)
    trapezoid = score(targets, scores, labels=LABELS, resamples=50, auprc="trapezoid")
    assert trapezoid.to_dict()["auprc_definition"] == "trapezoid"
    assert trapezoid.macro_auprc < step.macro_auprc
    assert trapezoid.macro_auprc_interval != step.macro_auprc_interval
    assert trapezoid.macro_auroc_interval == step.macro_auroc_interval


def test_undefined_labels_follow_the_policy() -> None:
    targets, scores = example()
    targets[:, 1] = 0
    targets[:, 0] |= targets.sum(axis=1) == 0
    for policy in ("resample", "error"):
        with pytest.raises(EvaluationError, match="MI"):
            score(targets, scores, labels=LABELS, undefined_labels=policy)
    skipped = score(targets, scores, labels=LABELS, undefined_labels="skip", resamples=50)
    zeroed = score(targets, scores, labels=LABELS, undefined_labels="zero", resamples=50)
    assert skipped.defined_labels == zeroed.defined_labels == 3
    assert skipped.macro_auroc == pytest.approx(np.nanmean(skipped.auroc))
    assert zeroed.macro_auroc == pytest.approx(skipped.macro_auroc * 3 / 4)
    assert math.isnan(skipped.auroc[1])
    entry = skipped.to_dict()["per_label"]["MI"]
    assert (entry["auroc"], entry["auroc_interval"]) == (None, None)


def test_f_max_is_none_where_records_have_no_label() -> None:
    targets, scores = example()
    targets[0] = 0
    result = score(targets, scores, labels=LABELS, resamples=0)
    assert math.isnan(result.f_max)
    assert result.to_dict()["f_max"] is None


def test_without_resamples_there_are_no_intervals() -> None:
    result = score(*example(), labels=LABELS, resamples=0, interval="bca")
    assert result.macro_auroc_interval is result.auroc_intervals is result.macro_auprc_bias is None
    assert result.to_dict()["per_label"]["MI"]["auprc_interval"] is None


def test_same_seed_same_score_whatever_the_input_type() -> None:
    targets, scores = example()
    result = score(targets, scores, labels=LABELS, resamples=50, seed=7).to_dict()
    frames = [pd.DataFrame(values, columns=LABELS) for values in (targets, scores)]
    for values in (frames, [targets.tolist(), scores.tolist()], [targets.astype(bool), scores]):
        assert score(*values, labels=list(LABELS), resamples=50, seed=7).to_dict() == result
    numpys = {"resamples": np.int64(50), "seed": np.uint8(7), "level": np.float64(0.95)}
    assert score(targets, scores, labels=LABELS, **numpys).to_dict() == result
    other = score(targets, scores, labels=LABELS, resamples=50, seed=8)
    assert other.to_dict()["macro_auroc_interval"] != result["macro_auroc_interval"]


def test_the_dict_holds_every_label() -> None:
    result = score(*example(), labels=LABELS, resamples=50)
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["macro_auroc"] == result.macro_auroc
    assert values["macro_auroc_interval"] == list(result.macro_auroc_interval or ())
    assert (values["resamples"], values["unit"], values["level"]) == (50, "record", 0.95)
    assert list(values["per_label"]) == list(LABELS)
    for i, entry in enumerate(values["per_label"].values()):
        assert result.auroc_intervals is not None
        assert entry["auroc_interval"] == (
            None
            if np.isnan(result.auroc_intervals[i]).all()
            else result.auroc_intervals[i].tolist()
        )
        assert entry["auprc"] == result.auprc[i]
        assert entry["positives"] == result.positives[i]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS[:3]}, r"\(240, 4\).*\(240, 3\)"),
        ({"labels": ("A", "A", "B", "C")}, r": A\b"),
        ({"resamples": -1}, "resamples = -1"),
        ({"resamples": 19}, "19 resamples"),
        ({"resamples": 99, "level": 0.99}, "99 resamples"),
        ({"resamples": 10.0}, r"resamples = 10\.0"),
        ({"seed": -3}, "seed = -3"),
        ({"level": 1.0}, r"level = 1\.0"),
        ({"level": 95}, "level = 95"),
        ({"interval": "bootstrap-t"}, "interval = 'bootstrap-t'"),
        ({"undefined_labels": "nan"}, "undefined_labels = 'nan'"),
        ({"auprc": "ap"}, "auprc = 'ap'"),
        ({"sed": 3}, "'sed'"),
        ({"groups": ["p"] * 3}, "3 patients"),
        ({"groups": ["p"] * 239 + [""]}, "1 of 240"),
        ({"groups": ["p"] * 240}, "240 .*'p'"),
        ({"groups": pd.Series(["p"] * 239 + [None])}, "1 of 240"),
    ],
)
def test_invalid_options_are_refused(changes: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"labels": LABELS, "resamples": 20} | changes
    with pytest.raises(EvaluationError, match=message):
        score(*example(), **options)


def test_other_lengths_columns_and_logits_are_refused() -> None:
    targets, scores = example()
    with pytest.raises(EvaluationError, match=r"\(240, 4\).*239 records"):
        score(targets, scores[1:], labels=LABELS)
    with pytest.raises(EvaluationError, match="probability"):
        score(targets, scores * 9 - 4, labels=LABELS)
    mixed = pd.DataFrame(scores, columns=LABELS)[list(LABELS[::-1])]
    with pytest.raises(EvaluationError, match="columns 2AVB"):
        score(targets, mixed, labels=LABELS)


def rare(positives: int, negatives: int = 300, errors: int = 0) -> tuple[Any, Any]:
    """A label whose positives rank first, `errors` negatives above the last of them."""
    targets = np.r_[np.zeros(negatives, int), np.ones(positives, int)]
    scores = np.linspace(0, 1, targets.size)
    scores[:errors] = scores[negatives] + 1e-6 * np.arange(1, errors + 1)
    return targets[:, None], scores[:, None]


@pytest.mark.parametrize("interval", ["auto", "percentile", "basic", "bca"])
def test_a_perfect_ranking_has_an_exact_auroc_interval(interval: str) -> None:
    result = score(*rare(20), labels=("A",), resamples=100, interval=interval)
    low = binomtest(20, 20).proportion_ci(0.95).low
    assert result.macro_auroc_interval == pytest.approx((low, 1.0))
    np.testing.assert_allclose(result.auroc_intervals, [[low, 1.0]])
    assert result.macro_auprc_interval is None
    assert result.reasons["auprc"] == result.reasons["macro_auprc"] == [CONSTANT]
    reversed_ranking = score(rare(20)[0], 1 - rare(20)[1], labels=("A",), resamples=100)
    assert reversed_ranking.macro_auroc_interval == pytest.approx((0.0, 1 - low))


@pytest.mark.parametrize(("positives", "negatives"), [(4, 300), (300, 4)])
def test_below_five_of_a_class_there_are_too_few_to_say(positives: int, negatives: int) -> None:
    values = score(*rare(positives, negatives, 2), labels=("A",), resamples=50).to_dict()
    assert values["macro_auroc"] < 1
    for entry, prefix in ((values["per_label"]["A"], ""), (values, "macro_")):
        for metric in ("auroc", "auprc"):
            assert entry[f"{prefix}{metric}_interval"] is None
            assert entry[f"{prefix}{metric}_interval_reason"] == TOO_FEW
    five = score(*rare(max(positives, 5), max(negatives, 5), 2), labels=("A",), resamples=50)
    assert five.reasons["auroc"] == five.reasons["macro_auprc"] == [None]


def test_patients_are_counted_where_they_are_drawn() -> None:
    targets, scores = rare(12, errors=3)
    groups = np.r_[np.arange(300), np.repeat([300, 301, 302, 303], 3)]
    assert score(targets, scores, labels=("A",), resamples=50).reasons["auroc"] == [None]
    by_patient = score(targets, scores, labels=("A",), resamples=50, groups=groups)
    assert by_patient.reasons["auroc"] == [TOO_FEW]


def test_percentiles_that_reach_one_are_replaced() -> None:
    settings: Any = {"labels": ("A",), "resamples": 400}
    near, plain = (
        score(*rare(8, errors=2), interval=i, **settings) for i in ("auto", "percentile")
    )
    assert plain.macro_auroc_interval is not None
    assert near.macro_auroc_interval is not None
    assert plain.macro_auroc_interval[1] == 1.0
    low, high = near.macro_auroc_interval
    assert low < plain.macro_auroc_interval[0] < near.macro_auroc < high < 1
    targets, scores = example()
    settings["labels"] = LABELS
    kept, old = (score(targets, scores, interval=i, **settings) for i in ("auto", "percentile"))
    np.testing.assert_array_equal(kept.auroc_intervals, old.auroc_intervals)
    assert kept.macro_auroc_interval == old.macro_auroc_interval


def test_auprc_intervals_surround_the_leave_one_out_value() -> None:
    targets, scores = (table[:, :3] for table in example())
    result = score(targets, scores, labels=LABELS[:3], resamples=80, seed=3)
    drawn = multiplicities(240, 80, seed=3, accept=targets).multiplicities
    ranking = rank(targets, scores)
    _, raw, left_out = (values.mean(axis=1) for values in resampled_metrics(ranking, drawn))
    centre = point_metrics(ranking)[2].mean()
    width = np.sqrt((raw.var() + left_out.var()) / 2) / (centre * (1 - centre))
    positives = np.minimum(targets.sum(axis=0), 240 - targets.sum(axis=0))
    width *= student.ppf(0.975, positives.mean() - 1)
    np.testing.assert_allclose(
        result.macro_auprc_interval, expit(logit(centre) + width * np.array([-1, 1])), rtol=1e-12
    )
    assert result.macro_auprc_bias == pytest.approx(result.macro_auprc - centre)


def test_a_mean_over_labels_that_are_all_too_few_has_no_interval() -> None:
    """Three and two positives, then three and five, of 60."""
    probabilities = np.random.default_rng(0).random((60, 2))
    for second, reason in ((2, TOO_FEW), (5, None)):
        targets = np.zeros((60, 2), dtype=np.uint8)
        targets[:3, 0] = targets[:second, 1] = 1
        result = score(targets, probabilities, labels=["a", "b"], resamples=40)
        for metric in ("auroc", "auprc"):
            assert result.reasons[f"macro_{metric}"] == [reason]
            interval = getattr(result, f"macro_{metric}_interval")
            assert (interval is None) == (reason is not None)


@pytest.mark.parametrize("by", ["record", "patient"])
def test_a_mean_needs_five_records_or_patients_of_both_classes(by: str) -> None:
    """71 labels on three records have many positives; nine patients have four disjoint pairs."""
    rng = np.random.default_rng(3)
    records, owners = (3, np.arange(3)) if by == "record" else (40, np.arange(40) % 9)
    targets = (rng.random((records, 71)) < 0.5).astype(np.uint8)
    table = Predictions.from_arrays(targets, rng.random(targets.shape), patients=owners.astype(str))
    result = score_predictions(table, resamples=40, by=by, undefined_labels="skip")
    for metric in ("auroc", "auprc"):
        assert result.reasons[f"macro_{metric}"] == [TOO_FEW]
        assert getattr(result, f"macro_{metric}_interval") is None
