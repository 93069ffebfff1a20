"""Groups are scored as tables of their own would be, and gaps are what lies between them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from einthoven.errors import EvaluationError
from einthoven.evaluate import score, score_subgroups
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
    return Predictions(
        labels=("a", "b", "rare"),
        records=np.array([f"r{i}" for i in range(RECORDS)]),
        patients=np.array([f"p{i // 2}" for i in range(RECORDS)]),
        targets=targets,
        probabilities=1 / (1 + np.exp(-(targets * 1.5 + noise))),
    )


@pytest.fixture(scope="module")
def sex() -> np.ndarray:
    return np.where(np.arange(RECORDS) % 3 == 0, "female", "male")


def part(table: Predictions, rows: np.ndarray) -> Predictions:
    assert table.targets is not None
    return Predictions(
        table.labels,
        table.records[rows],
        table.patients[rows],
        table.targets[rows],
        table.probabilities[rows],
    )


def test_a_group_is_scored_as_a_table_of_its_own(table: Predictions, sex: np.ndarray) -> None:
    found = score_subgroups(table, {"sex": sex}, resamples=0)
    assert [(g.attribute, g.name) for g in found.groups] == [("sex", "female"), ("sex", "male")]
    for group in found.groups:
        own = part(table, sex == group.name)
        alone = score(
            own.targets, own.probabilities, labels=own.labels, resamples=0, undefined_labels="skip"
        )
        assert group.auroc.value == pytest.approx(alone.macro_auroc, abs=1e-12)
        assert group.auprc.value == pytest.approx(alone.macro_auprc, abs=1e-12)
        assert group.auroc.interval is None
        assert group.records == len(own)
        assert group.patients == len(set(own.patients))
        assert len(group.labels) == alone.defined_labels


def test_two_groups_gap_is_the_difference_and_its_mirror(
    table: Predictions, sex: np.ndarray
) -> None:
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
    """Drawn by hand: repeat every record as often as it was drawn, and score both parts."""
    found = score_subgroups(table, {"sex": sex}, resamples=60, seed=4, by=by).groups[0]
    groups = table.patients if by == "patient" else None
    gaps = []
    for counts in multiplicities(RECORDS, 60, seed=4, groups=groups).multiplicities:
        rows = np.repeat(np.arange(RECORDS), counts)
        sides = [rows[sex[rows] == name] for name in ("female", "male")]
        with np.errstate(invalid="ignore"):
            areas = [auroc(table.targets[r], table.probabilities[r]) for r in sides]  # type: ignore[index]
        gaps.append(np.nanmean(areas[0] - areas[1]))
    assert found.auroc_gap.interval == pytest.approx(np.quantile(gaps, [0.025, 0.975]), abs=1e-9)


def test_labels_that_a_group_does_not_define_are_left_out(table: Predictions) -> None:
    assert table.targets is not None
    where = np.where(table.targets[:, 2] == 1, "has", "has not")
    found = score_subgroups(table, {"x": where}, resamples=20)
    for group in found.groups:
        assert group.labels == ("a", "b")
    alone = np.where(np.arange(RECORDS) == 5, "one", "")
    one = score_subgroups(table, {"x": alone}, resamples=20).groups[0]
    assert (one.records, one.labels, one.gap_labels) == (1, (), ())
    assert np.isnan(one.auroc.value)
    assert one.auroc.interval is None


def test_labels_need_the_positives_that_are_asked_for(table: Predictions, sex: np.ndarray) -> None:
    assert table.targets is not None
    least = int(table.targets[sex == "female", 1].sum())
    groups = score_subgroups(table, {"sex": sex}, resamples=0, min_positives=least).groups
    assert groups[0].labels == ("a", "b")
    groups = score_subgroups(table, {"sex": sex}, resamples=0, min_positives=least + 1).groups
    assert groups[0].labels == ("a",)


def test_the_unknown_are_counted_and_in_no_group(table: Predictions, sex: np.ndarray) -> None:
    gaps = sex.copy()
    gaps[:50] = ""
    found = score_subgroups(table, {"sex": gaps, "age": ["<40"] * RECORDS}, resamples=0)
    assert found.unknown == {"sex": 50, "age": 0}
    assert sum(g.records for g in found.groups if g.attribute == "sex") == RECORDS - 50
    alone = found.groups[-1]
    assert (alone.name, alone.gap_labels) == ("<40", ())  # nobody else to differ from


def test_it_is_json(table: Predictions, sex: np.ndarray) -> None:
    ages = np.resize(np.array(AGE_BANDS[::-1]), RECORDS)
    found = score_subgroups(table, {"sex": sex, "age": ages}, resamples=20)
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [g["name"] for g in said["attributes"]["age"]] == list(AGE_BANDS)
    assert said["attributes"]["sex"][0]["auroc"]["value"] == found.groups[0].auroc.value
    assert said["unit"] == "record"


def test_ages_in_bands() -> None:
    given = [0, 39.9, 40, 59, 60, 79.5, 80, 89, 300, -1, float("nan"), None, "55", "?"]
    expected = ["<40", "<40", "40-59", "40-59", "60-79", "60-79", ">=80", ">=80", ">=80"]
    assert age_bands(given).tolist() == [*expected, "", "", "", "40-59", ""]


def test_sexes_by_word_and_letter_and_never_by_number() -> None:
    given = ["male", " F ", "M", "Female", "divers", 0, 1.0, None, float("nan")]
    words = ["male", "female", "male", "female", "divers", "0", "1.0", "", ""]
    assert sexes(given).tolist() == words
    assert sexes([0, 1, 0]).tolist() == ["0", "1", "0"]


def test_demographics_are_what_there_is() -> None:
    frame = pd.DataFrame({"age": [30.0, 300.0], "sex": ["male", None], "device": ["x", "y"]})
    found = demographics(frame)
    assert {k: v.tolist() for k, v in found.items()} == {
        "sex": ["male", ""],
        "age": ["<40", ">=80"],
    }
    assert demographics(frame[["device"]]) == {}


def test_what_cannot_be_grouped_is_refused(table: Predictions, sex: np.ndarray) -> None:
    with pytest.raises(EvaluationError, match=r"sex has shape \(239,\) for 240 records"):
        score_subgroups(table, {"sex": sex[1:]})
    with pytest.raises(EvaluationError, match="no targets"):
        score_subgroups(replace(table, targets=None), {"sex": sex})
    with pytest.raises(EvaluationError, match="by"):
        score_subgroups(table, {"sex": sex}, by="hospital")
