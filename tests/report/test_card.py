"""The model card says what is recorded, and says so where nothing is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from einthoven.report import PairedRuns, ReportRun, model_card
from einthoven.report.facts import recipe_sentence, weights_sentence

PREPARATION = {
    "leads": ["I", "II"],
    "steps": [
        {"step": "resample", "rate": 250.0, "method": "fourier"},
        {"step": "filter", "kind": "bandpass", "cutoff": [0.67, 40.0], "order": 5},
    ],
}


@pytest.fixture(scope="module")
def about(runs: list[ReportRun]) -> dict[str, Any]:
    return {
        **runs[0].about["request"],
        "cohort": {"name": "ptb-xl", "version": "1.0.3", "task": "all-71", "digest": "cd" * 32},
        "descriptions": {"NORM": "normal ECG"},
        "preparation": PREPARATION,
        "aggregate": "probability",
        "licence": "CC BY-NC 4.0",
        "environment": {"torch": "2.13.0"},
    }


@pytest.fixture(scope="module")
def card(about: dict[str, Any], runs: list[ReportRun], paired: list[PairedRuns]) -> str:
    comparison = paired[0].comparison.to_dict() | {"reference": "fine-tuning"}
    return model_card(about, runs[0].score, runs[0].validation, comparison=comparison)


def test_what_it_is_and_is_not(card: str) -> None:
    assert card.startswith("# st_mem_tiny on ptb-xl 1.0.3\n")
    assert "Not a medical device" in card
    assert "einthoven predict --bundle PATH FILE" in card
    assert "of this model: CC BY-NC 4.0" in card
    assert "of the initial weights: not recorded" in card


def test_where_it_comes_from(card: str) -> None:
    assert "Wagner et al." in card
    assert "CC BY 4.0." in card
    assert "synthetic" not in card
    assert "| stage2.drop_path | 0.1 |" in card
    assert "full fine-tuning for 2 epochs with stochastic depth 0.1 and dropout 0.01" in card
    assert "2. resample (rate 250 Hz, method fourier)" in card
    assert "3. filter (kind bandpass, cutoff 0.67, 40 Hz, order 5)" in card
    assert "made with: torch 2.13.0" in card


def test_how_its_initial_weights_came_about(about: dict[str, Any], runs: list[ReportRun]) -> None:
    said = "contrastive predictive coding on PTB-XL 1.0.3, folds 1 to 8 without labels"
    weights = {**about["weights"], "pretraining": said}
    own = {**about, "weights": weights}
    card = model_card(own, runs[0].score, None)
    assert f"pretrained with einthoven: {said}" in card
    assert "of the initial weights: none of their own; they were pretrained with einthoven" in card
    assert card.count("Wagner et al., PTB-XL") == 1
    elsewhere = {**own, "cohort": {"name": "ward"}}
    assert model_card(elsewhere, runs[0].score, None).count("Wagner et al., PTB-XL") == 1
    stated = {**own, "weights": {**weights, "licence": "MIT"}}
    assert "of the initial weights: MIT" in model_card(stated, runs[0].score, None)
    other = {**own, "weights": {**weights, "pretraining": "my-ptb-xl-like ward, 9 records"}}
    assert "of the initial weights: not recorded" in model_card(other, runs[0].score, None)


@pytest.mark.parametrize(
    ("recipe", "chosen", "text"),
    [
        (
            {"stage2": {"epochs": 24, "select": "best"}},
            {"stage2": 20},
            "fine-tuning: epoch 20 of 24, the best by macro AUROC on the validation split",
        ),
        (
            {
                "stage1": {"epochs": 9, "hand_on": "best", "base_lr_sweep": [0.1, 1]},
                "stage2": {"epochs": 4, "select": "last"},
            },
            {"stage1": 7, "stage2": 4},
            "linear probe: epoch 7 of 9, the best by macro AUROC on the validation split, at the "
            "best of 2 learning rates there; fine-tuning: epoch 4 of 4, the last one; validation "
            "chose nothing",
        ),
        ({"stage2": {"epochs": 4, "select": "lowest-loss"}}, {"stage2": 3}, "the lowest loss"),
        ({}, {}, "epoch that was kept: not recorded"),
    ],
)
def test_how_the_epoch_was_chosen(
    runs: list[ReportRun], recipe: dict[str, Any], chosen: dict[str, int], text: str
) -> None:
    about = {"recipe": recipe, "selected_epoch": chosen}
    assert text in model_card(about, runs[0].score, None)


def test_how_good_it_is(card: str, runs: list[ReportRun], paired: list[PairedRuns]) -> None:
    found = runs[0].score
    low, high = found["macro_auroc_interval"]
    assert f"| test | {found['macro_auroc']:.3f} ({low:.3f} to {high:.3f}) |" in card
    assert "| validation | 0.910 | 0.600 |" in card
    entry = found["per_label"]["NORM"]
    assert f"| NORM | {entry['positives']} | {entry['auroc']:.3f} |" in card
    assert "Paired differences to fine-tuning" in card
    assert f"| +{100 * paired[0].comparison.auroc.relative_gain:.1f} % |" in card
    assert "1. NORM: normal ECG" in card


def test_names_cannot_break_the_markdown(card: str) -> None:
    assert "<script" not in card
    rows = [line for line in card.splitlines() if line.startswith("| LONG")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 8
    assert "ISC\\_" in card


def test_what_is_not_recorded_is_said_so(runs: list[ReportRun]) -> None:
    card = model_card({}, runs[0].score, None)
    assert card.startswith("# not recorded on not recorded\n")
    assert card.count("not recorded") > 8
    assert "None" not in card
    assert "Wagner" not in card
    assert "validation |" not in card
    assert "Paired" not in card


@pytest.mark.parametrize("cohort", [{"name": "mine", "synthetic": True}, "synthetic-400"])
def test_synthetic_data_are_called_synthetic(runs: list[ReportRun], cohort: Any) -> None:
    assert "The data are synthetic" in model_card({"cohort": cohort}, runs[0].score, None)


def test_recipes_in_words() -> None:
    one = {"recipe": {"stage1": {"epochs": 1}, "stage2": None}}
    assert recipe_sentence(one) == "a linear probe of the head for 1 epoch"
    scratch = {"recipe": {"initialise": "random", "stage2": {"epochs": 50}}, "weights": None}
    assert recipe_sentence(scratch) == "from random weights: full fine-tuning for 50 epochs"
    assert weights_sentence(scratch) == "none: random weights"
    assert recipe_sentence({}) == weights_sentence({}) == "not recorded"
