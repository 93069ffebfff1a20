"""The model card has the numbers of config.json and evaluation.json, and no empty sections."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from einthoven.files import Json, read_json, write_json
from einthoven.report.card import model_card
from einthoven.report.description import UNKNOWN, describe, flat, leakage
from einthoven.report.format import with_interval
from einthoven.report.page import write_report
from einthoven.report.tables import policy_table

PREPARATION = "2 leads; Fourier resampling to 250 Hz; bandpass 0.67, 40 Hz (order 5)"
PUBLIC: Json = {
    "backbone": "ecg_fm",
    "pretraining_data": "MIMIC & PTB-XL",
    "contains_ptbxl": True,
    "cohort": "ptb-xl",
}
LEAKAGE: Json = {"cohort": "ptb-xl", "split": "test", "records": 200, "seen": 7, "uses": {}}
PTB_XL = {"name": "ptb-xl", "version": "1.0.3", "task": "all-71", "digest": "cd" * 32}


@pytest.fixture(scope="module")
def config(report: Json, labels: tuple[str, ...]) -> Json:
    request = report["runs"][0]["config"]["request"]
    return {
        "backbone": request["backbone"],
        "id2label": dict(enumerate(labels)),
        "descriptions": {"NORM": "normal [ECG]"},
        "preparation_text": PREPARATION,
        "aggregate": "probability",
        "license": "other",
        "license_text": "for research & teaching",
        "commercial_use": False,
        "provenance": {
            "recipe": request["recipe"],
            "cohort": PTB_XL,
            "initial_weights": request["weights"],
            "selected_epoch": {"stage1": 7, "stage2": 2},
            "environment": {"torch": "2.13.0"},
        },
    }


@pytest.fixture(scope="module")
def card(config: Json, evaluation: Json) -> str:
    return model_card(config, evaluation, reliability="r.svg")


def headings(card: str) -> list[str]:
    return re.findall(r"^## (.+)$", card, flags=re.MULTILINE)


def test_front_matter_is_that_of_the_hub(card: str) -> None:
    _, front, _ = card.split("---\n", 2)
    lines = front.splitlines()
    assert lines[:3] == [
        'license: "other"',
        "license_name: stated-below",
        "library_name: einthoven",
    ]
    assert '- "ecg"' in lines
    assert '- "st-mem-tiny"' in lines


def test_config_fields_are_on_the_card(card: str) -> None:
    for field in ("ab" * 32, "cd" * 32, "2.13.0", "0.67, 40 Hz", "for research &amp; teaching"):
        assert field in card
    assert "| stage2.drop_path | 0.1 |" in card
    assert card.count("Wagner") == 1
    assert "simulated" not in card
    assert "None" not in card


def test_numbers_of_the_evaluation_are_on_the_card(card: str, evaluation: Json) -> None:
    score, calibration = evaluation["score"], evaluation["calibration"]
    macro = with_interval(score["macro_auroc"], score["macro_auroc_interval"])
    assert f"| test | {score['defined_labels']} | {macro} |" in card
    assert "| validation | – | 0.910 | 0.600 |" in card
    entry = score["per_label"]["NORM"]
    interval = with_interval(entry["auroc"], entry["auroc_interval"])
    assert f"| NORM | {entry['positives']} | {interval} |" in card
    before, after = (calibration[when]["macro"]["brier"] for when in ("before", "after"))
    assert f" | {before:.5f} | {after:.5f} |" in card
    group = evaluation["subgroups"]["attributes"]["sex"][1]["auroc"]
    assert f"| {with_interval(group['value'], group['interval'])} |" in card
    assert "| muscle, 6 dB | 0.812 (0.762 to 0.852) | −0.033 (−0.051 to −0.013) |" in card
    assert card.index("](r.svg)") > card.index("## Calibration")


def test_words_beside_a_value_stay_apart(config: Json, evaluation: Json) -> None:
    average = {"mean": 0.9, "sd": 0.1}
    folds = {"scores": [{}] * 5, "macro_auroc": average, "macro_auprc": average}
    card = model_card(config, evaluation | {"folds": folds})
    assert not re.search(r"macroA|calibratedp|[a-z)]\.[A-Z]", card)


def test_names_do_not_break_the_markdown(card: str) -> None:
    assert "<script" not in card
    assert "<b>" not in card
    assert "normal \\[ECG\\]" in card
    assert "ISC\\_" in card
    rows = [line for line in card.splitlines() if line.startswith("| LONG")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [7, 7, 5]
    assert [row.count("LONG\\|PIPE") for row in rows] == [1, 1, 1]


def test_sections_without_information_are_left_out(
    config: Json, evaluation: Json, card: str
) -> None:
    plain = set(headings(model_card(config)))
    assert plain < set(headings(card))
    assert len(headings(card)) == len(plain) + 7
    for key in ("id2label", "provenance"):
        without = {name: value for name, value in config.items() if name != key}
        assert len(plain - set(headings(model_card(without)))) == 1
    bare = model_card({})
    assert bare.count(UNKNOWN) > 4
    assert "None" not in bare
    bins = evaluation["calibration"] | {"after": None, "change": {}, "decisions": {}}
    assert "Threshold" not in model_card(config, {**evaluation, "calibration": bins})


def test_simulated_cohorts_are_named_as_such() -> None:
    for cohort in ({"name": "mine", "synthetic": True}, {"name": "synthetic_valves"}):
        card = model_card({"provenance": {"cohort": cohort}})
        assert ("simulated" in card) == (cohort["name"] == "mine")
        assert ('- "simulated"' in card.split("---")[1]) == (cohort["name"] == "mine")
    encoder = {"pretraining": [{"cohort": "mine", "synthetic": True}]}
    assert "simulated" in model_card({"provenance": encoder})
    assert "simulated" not in model_card({"provenance": encoder | {"cohort": PTB_XL}})
    assert "simulated" in model_card({}, {"cohort": {"name": "mine", "synthetic": True}})


def test_the_training_data_of_an_encoder_and_of_initial_weights_are_listed() -> None:
    stage = {"cohort": "ward", "version": "2", "task": None, "records": 1234, "recipe": "cpc"}
    for weights in (None, {"name": "encoder"}, {"file": "w.pt", "sha256": "abc"}):
        provenance = {"initial_weights": weights, "pretraining": [stage]}
        card = model_card({"backbone": "s4_tiny", "provenance": provenance})
        assert card.count("ward 2 (1,234 records") == 1
    assert "w.pt (SHA-256 abc)" in card


def test_ptbxl_is_attributed_where_it_was_used() -> None:
    for cohort, contains in (("ptb-xl", None), ("ward", True), ("ptb-xl", True)):
        config = {"provenance": {"cohort": {"name": cohort}, "contains_ptbxl": contains}}
        card = model_card(config)
        assert card.count("Wagner") == 1
        # Not under the heading of the training data if only the initial weights have seen PTB-XL.
        assert (card.index("Wagner") < card.index("## Training\n")) is (cohort == "ptb-xl")
    assert "Wagner" not in model_card({"provenance": {"contains_ptbxl": False}})


@pytest.mark.parametrize("allowed", [False, True, None])
def test_unknown_terms_stay_unknown(allowed: bool | None) -> None:
    assert describe({})["commercial_use"] is None
    assert describe({"commercial_use": allowed})["commercial_use"] is allowed
    card = model_card({"commercial_use": allowed})
    assert ("**" in card.partition("## Licence")[2]) == (allowed is False)


def test_values_of_the_policy_replace_those_of_the_recipe() -> None:
    recipe = {"refit": "auto", "stage1": {"solver": "auto"}, "stage2": {"epochs": 3}}
    policy = {"stage2": "none", "stage1.solver": "logistic", "refit": "always"}
    request = {"recipe": recipe, "policy": policy}
    settled = {"refit": "always", "stage1": {"solver": "logistic"}, "stage2": None}
    assert flat({"request": request})["recipe"] == settled
    assert recipe["refit"] == "auto"


def test_what_was_done_replaces_what_was_requested() -> None:
    """A logistic regression, although the recipe has AdamW's keys and a second stage."""
    probe = {"solver": "auto", "penalty": None, "epochs": 100, "base_lr": 0.01}
    recipe = {"name": "r", "description": "two stages", "refit": "auto", "stage1": probe}
    run = {"request": {"recipe": recipe | {"stage2": {"epochs": 24, "dropout": 0.01}}}}
    made = {
        "recipe": recipe | {"refit": "always", "stage1": probe | {"solver": "logistic"}},
        "policy": [{"key": "stage2", "value": "none", "reason": "279 records, limit 500"}],
        "without_effect": ["stage1.base_lr", "stage1.epochs"],
        "penalty": 0.31622776601683794,
        "selected_epoch": {"stage1": 1},
    }
    for described in (describe(run, {"provenance": made}), describe({"provenance": made})):
        assert {"0.316", "279", "500"} <= set(re.findall(r"[\d.]*\d", described["stages"]))
        assert not re.search("100|24|0.01", described["stages"])
        assert dict(described["settings"]) == {
            "name": "r",
            "refit": "always",
            "stage1.solver": "logistic",
            "stage1.penalty": "0.316, cross-validated",
        }
        (row,) = policy_table(described["policy"]).rows
        assert row == ["stage2", "none", "279 records, limit 500"]
    folds = [*made["policy"], {**made["policy"][0], "folds": [1, 3]}]
    rows = policy_table(describe({"provenance": made | {"policy": folds}})["policy"]).rows
    assert [row[-1] for row in rows] == ["all", "1, 3"]


@pytest.mark.parametrize(
    ("made", "numbers"),
    [
        ({"compared_records": 420}, ["420"]),
        ({"compared_records": 420, "leakage": LEAKAGE}, ["7", "200"]),
        ({"compared_records": 0}, []),
        ({}, []),
    ],
)
def test_records_that_the_initial_weights_have_seen(made: Json, numbers: list[str]) -> None:
    history = [{"cohort": "ptb-xl", "version": "1.0.3", "records": 17418}]
    described = describe({"provenance": {**made, "pretraining": history}})
    assert re.findall(r"\d+", described["records_among_them"]) == numbers
    assert (described["records_among_them"] == UNKNOWN) == (not made)
    assert "17,418" in described["weights_data"]
    public = describe({"provenance": {"public_weights": PUBLIC}})
    assert public["weights_data"] == PUBLIC["pretraining_data"]


def test_a_second_stage_that_was_discarded_is_described_as_such() -> None:
    recipe = {"stage1": {"epochs": 3}, "stage2": {"epochs": 24, "drop_path": 0.1}}
    policy = [{"key": "stage2", "value": "discarded", "reason": "no gain of 0.5"}]
    stages = describe({"provenance": {"recipe": recipe, "policy": policy}})["stages"]
    assert re.findall(r"[\d.]*\d", stages) == ["3", "24", "0.1", "0.5"]


def test_leakage_of_the_run_and_of_the_evaluation() -> None:
    """The weights may be evaluated on other records than those of their run."""
    run = {"cohort": {"name": "ptb-xl"}, "leakage": LEAKAGE}
    assert [re.findall(r"\d+", sentence) for sentence in leakage(run)] == [["7", "200"]]
    (labelled,) = leakage({**run, "leakage": {**LEAKAGE, "uses": {"training": 5}}})
    assert labelled != leakage(run)[0]
    assert PUBLIC["pretraining_data"] in leakage({**run, "public_weights": PUBLIC})[0]
    other = {"cohort": "cart", "split": "train", "records": 90, "seen": 8, "uses": {}}
    evaluation = {"cohort": {"name": "cart"}, "split": "train", "leakage": other}
    assert [re.findall(r"\d+", text) for text in leakage(run, evaluation)] == [["8", "90"]]
    elsewhere = {"cohort": {"name": "cart"}, "split": "test"}
    assert leakage({**run, "public_weights": PUBLIC}, elsewhere) == []
    later = {"cohort": {"name": "ptb-xl"}, "split": "test", "public_weights": PUBLIC}
    assert len(leakage({"cohort": {"name": "cart"}}, later)) == 1
    assert leakage({**run, "leakage": {**LEAKAGE, "seen": 0}}) == leakage({}) == []


def test_leakage_is_stated_with_the_results(
    runs: dict[str, Path], config: Json, evaluation: Json, tmp_path: Path
) -> None:
    (sentence,) = leakage({"cohort": "ptb-xl", "leakage": LEAKAGE})
    card = model_card({**config, "leakage": LEAKAGE}, evaluation)
    assert f"## Results\n\n**{sentence}.**" in card
    leaky = shutil.copytree(runs["fine-tuning"], tmp_path / "leaky")
    run = read_json(leaky / "run.json")
    write_json(leaky / "run.json", run | {"request": run["request"] | {"leakage": LEAKAGE}})
    page = write_report([leaky], tmp_path / "page.html", resamples=40).read_text()
    assert page.count(sentence) == 2
    assert page.index(sentence) < page.index('id="results"')
    folders = [runs["post-training"], leaky]
    page = write_report(folders, tmp_path / "page.html", resamples=40).read_text()
    assert page.count(sentence) == 1
