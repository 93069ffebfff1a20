"""Subgroup scores and gaps: values, intervals, unknown groups, refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from einthoven.errors import EvaluationError
from einthoven.evaluate import score_predictions, score_subgroups
from einthoven.evaluate.bootstrap import multiplicities
from einthoven.evaluate.metrics import auroc
from einthoven.evaluate.subgroups import AGE_BANDS, age_bands, demographics, sexes
from einthoven.predictions import Predictions

RECORDS = 240


@pytest.fixture(scope="module")
def table() -> Predictions:
    generator = np.random.default_rng(0)
    targets = (generator.random((RECORDS, 3)) < [0.5, 0.2, 0.03]).astype(np.uint8)
    noise = generator.normal(size=targets.shape)
    probabilities = 1 / (1 + np.exp(-(targets * 1.5 + noise)))
    patients = np.arange(RECORDS) // 2
    return Predictions.from_arrays(targets, probabilities, ("a", "b", "rare"), patients=patients)


@pytest.fixture(scope="module")
def sex() -> np.ndarray:
    return np.where(np.arange(RECORDS) % 3 == 0, "female", "male")


def part(table: Predictions, rows: np.ndarray) -> Predictions:
    arrays = table.require_targets()[rows], table.probabilities[rows]
    return Predictions.from_arrays(*arrays, table.labels, patients=table.patients[rows])


def test_a_group_is_scored_like_a_separate_table(table: Predictions, sex: np.ndarray) -> None:
    result = score_subgroups(table, {"sex": sex}, resamples=0)
    assert [(g.attribute, g.name) for g in result.groups] == [("sex", "female"), ("sex", "male")]
    for group in result.groups:
        members = part(table, sex == group.name)
        alone = score_predictions(members, resamples=0, undefined_labels="skip")
        assert group.auroc.value == pytest.approx(alone.macro_auroc, abs=1e-12)
        assert group.auprc.value == pytest.approx(alone.macro_auprc, abs=1e-12)
        assert group.auroc.interval is None
        assert group.records == len(members)
        assert group.patients == len(set(members.patients))
        assert len(group.labels) == alone.defined_labels


def test_gaps_of_two_groups_mirror_each_other(table: Predictions, sex: np.ndarray) -> None:
    female, male = score_subgroups(table, {"sex": sex}, resamples=200).groups
    assert female.gap_labels == male.gap_labels
    assert female.auroc_gap.value == -male.auroc_gap.value
    low, high = female.auroc_gap.interval or (0.0, 0.0)
    assert (male.auroc_gap.interval or (0, 0)) == pytest.approx((-high, -low))
    assert low < female.auroc_gap.value < high
    columns = [table.labels.index(label) for label in female.gap_labels]
    areas = [
        auroc(part(table, rows).targets, part(table, rows).probabilities)[columns].mean()  # type: ignore[arg-type]
        for rows in (sex == "female", sex == "male")
    ]
    assert female.auroc_gap.value == pytest.approx(areas[0] - areas[1], abs=1e-12)


@pytest.mark.parametrize("by", ["record", "patient"])
def test_gaps_come_from_the_same_resamples_of_the_whole(
    table: Predictions, sex: np.ndarray, by: str
) -> None:
    """Repeat every record as often as it was drawn, and score both parts."""
    result = score_subgroups(table, {"sex": sex}, resamples=60, seed=4, by=by).groups[0]
    groups = table.patients if by == "patient" else None
    gaps = []
    for counts in multiplicities(RECORDS, 60, seed=4, groups=groups).multiplicities:
        rows = np.repeat(np.arange(RECORDS), counts)
        sides = [rows[sex[rows] == name] for name in ("female", "male")]
        with np.errstate(invalid="ignore"):
            areas = [auroc(table.targets[r], table.probabilities[r]) for r in sides]  # type: ignore[index]
        gaps.append(np.nanmean(areas[0] - areas[1]))
    assert result.auroc_gap.interval == pytest.approx(np.quantile(gaps, [0.025, 0.975]), abs=1e-9)


def test_labels_that_a_group_does_not_define_are_left_out(table: Predictions) -> None:
    assert table.targets is not None
    where = np.where(table.targets[:, 2] == 1, "has", "has not")
    result = score_subgroups(table, {"x": where}, resamples=20)
    for group in result.groups:
        assert group.labels == ("a", "b")
    alone = np.where(np.arange(RECORDS) == 5, "one", "")
    one = score_subgroups(table, {"x": alone}, resamples=20).groups[0]
    assert (one.records, one.labels, one.gap_labels) == (1, (), ())
    assert np.isnan(one.auroc.value)
    assert one.auroc.interval is None


def test_labels_need_the_minimum_of_positives(table: Predictions, sex: np.ndarray) -> None:
    assert table.targets is not None
    least = int(table.targets[sex == "female", 1].sum())
    groups = score_subgroups(table, {"sex": sex}, resamples=0, min_positives=least).groups
    assert groups[0].labels == ("a", "b")
    groups = score_subgroups(table, {"sex": sex}, resamples=0, min_positives=least + 1).groups
    assert groups[0].labels == ("a",)


def test_records_without_a_group_are_counted(table: Predictions, sex: np.ndarray) -> None:
    gaps = sex.copy()
    gaps[:50] = ""
    result = score_subgroups(table, {"sex": gaps, "age": ["<40"] * RECORDS}, resamples=0)
    assert result.unknown == {"sex": 50, "age": 0}
    assert sum(g.records for g in result.groups if g.attribute == "sex") == RECORDS - 50
    alone = result.groups[-1]
    assert (alone.name, alone.gap_labels) == ("<40", ())


def test_the_result_is_json(table: Predictions, sex: np.ndarray) -> None:
    ages = np.resize(np.array(AGE_BANDS[::-1]), RECORDS)
    result = score_subgroups(table, {"sex": sex, "age": ages}, resamples=20)
    stored = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [g["name"] for g in stored["attributes"]["age"]] == list(AGE_BANDS)
    assert stored["attributes"]["sex"][0]["auroc"]["value"] == result.groups[0].auroc.value
    assert stored["unit"] == "record"


def test_ages_are_sorted_into_bands() -> None:
    values = [0, 39.9, 40, 59, 60, 79.5, 80, 89, 300, -1, float("nan"), None, "55", "?"]
    expected = ["<40", "<40", "40-59", "40-59", "60-79", "60-79", ">=80", ">=80", ">=80"]
    assert age_bands(values).tolist() == [*expected, "", "", "", "40-59", ""]


def test_sexes_are_read_from_words_and_letters_only() -> None:
    values = ["male", " F ", "M", "Female", "divers", 0, 1.0, None, float("nan")]
    words = ["male", "female", "male", "female", "divers", "0", "1.0", "", ""]
    assert sexes(values).tolist() == words
    assert sexes([0, 1, 0]).tolist() == ["0", "1", "0"]


def test_demographics_of_the_available_columns() -> None:
    frame = pd.DataFrame({"age": [30.0, 300.0], "sex": ["male", None], "device": ["x", "y"]})
    result = demographics(frame)
    assert {k: v.tolist() for k, v in result.items()} == {
        "sex": ["male", ""],
        "age": ["<40", ">=80"],
    }
    assert demographics(frame[["device"]]) == {}


def test_invalid_groups_are_refused(table: Predictions, sex: np.ndarray) -> None:
    with pytest.raises(EvaluationError, match=r"sex .*\(239,\)"):
        score_subgroups(table, {"sex": sex[1:]})
    with pytest.raises(EvaluationError, match="no targets"):
        score_subgroups(replace(table, targets=None), {"sex": sex})
    with pytest.raises(EvaluationError, match="by"):
        score_subgroups(table, {"sex": sex}, by="hospital")
