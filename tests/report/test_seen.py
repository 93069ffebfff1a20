"""What the weights had seen of the cohort that they were tested on is said wherever numbers are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from einthoven.report import ReportRun, build_page, model_card
from einthoven.report.facts import seen_before

PUBLIC: dict[str, Any] = {
    "pretraining_data": "MIMIC & PTB-XL",
    "contains_ptbxl": True,
    "cohort": "ptb-xl",
    "warning": "the public weights were pretrained on it",
}
OWN = {"cohort": "ptb-xl", "test records": 200, "seen": 7, "by signal": 7}
OWN_TEXT = "The encoder was pretrained on 7 of the 200 test records of ptb-xl"


def told(run: ReportRun, **said: Any) -> ReportRun:
    return replace(run, about={**run.about, "request": {**run.about["request"], **said}})


@pytest.mark.parametrize(
    ("said", "text"),
    [({"public_weights": PUBLIC}, str(PUBLIC["warning"])), ({"overlap": OWN}, OWN_TEXT)],
)
def test_the_page_says_it_above_the_numbers_and_among_the_caveats(
    runs: list[ReportRun], said: dict[str, Any], text: str
) -> None:
    first = build_page([told(runs[0], **said), runs[1]], title="t")
    assert first.lower().count(text.lower()) == 2
    assert first.lower().index(text.lower()) < first.index('id="results"')
    # Of another run than the first it is said among the caveats, with its name.
    second = build_page([runs[0], told(runs[1], **said)], title="t")
    assert second.lower().count(text.lower()) == 1
    assert second.index("Perhaps not unseen.") > second.index('id="caveats"')
    assert text.lower() not in build_page(runs[:2], title="t").lower()


def test_the_page_says_yes_no_or_unknown_where_weights_are_public(runs: list[ReportRun]) -> None:
    title = "PTB-XL among their pretraining data"
    for inside, word in ((True, "yes"), (False, "no"), (None, "unknown")):
        public = {"pretraining_data": "x", "contains_ptbxl": inside}
        page = build_page([told(runs[0], public_weights=public)], title="t")
        assert f"<dt>{title}</dt><dd>{word}</dd>" in page.replace("\n", "")
    assert title not in build_page([runs[0]], title="t")


def test_the_card_says_it_above_its_results(runs: list[ReportRun]) -> None:
    about = {**runs[0].about["request"], "public_weights": PUBLIC}
    card = model_card(about, runs[0].score, None)
    assert "## Results\n\n**The public weights were pretrained on it.**\n\n" in card
    assert "- PTB-XL among them: yes" in card
    card = model_card({**about, "public_weights": None, "overlap": OWN}, runs[0].score, None)
    assert f"**{OWN_TEXT}" in card
    assert "PTB-XL among them" not in card


def test_a_bundle_that_was_trained_on_them_has_seen_them() -> None:
    own = {**OWN, "in pretraining": 7, "in training with labels": 5}
    (said,) = seen_before({"overlap": own}, "ptb-xl")
    assert said.startswith("The encoder has seen 7 of the 200 test records of ptb-xl")


def test_the_card_speaks_of_the_cohort_that_was_measured(runs: list[ReportRun]) -> None:
    """Trained on another one, measured on PTB-XL; and the other way round."""
    elsewhere = {key: PUBLIC[key] for key in ("pretraining_data", "contains_ptbxl")}
    trained = {"cohort": {"name": "cart"}, "public_weights": elsewhere}
    measured = {"cohort": {"name": "ptb-xl"}, "split": "test", "public_weights": PUBLIC}
    assert "**The public weights" in model_card(trained, runs[0].score, None, evidence=measured)
    trained = {"cohort": {"name": "ptb-xl"}, "public_weights": PUBLIC}
    measured = {"cohort": {"name": "cart"}, "split": "test", "public_weights": elsewhere}
    assert "**The public" not in model_card(trained, runs[0].score, None, evidence=measured)


def test_the_card_speaks_of_the_split_that_was_measured(runs: list[ReportRun]) -> None:
    """What somebody allowed for its run's cohort, and what it has seen of the one measured."""
    elsewhere = {"cohort": "cart", "train records": 90, "seen": 8, "in training with labels": 8}
    trained = {"cohort": {"name": "ptb-xl"}, "overlap": OWN}
    measured = {"cohort": {"name": "cart"}, "split": "train", "overlap": elsewhere}
    card = model_card(trained, runs[0].score, None, evidence=measured)
    assert "**It has seen 8 of the 90 train records of cart: results there are too good.**" in card
    assert OWN_TEXT not in card
    again = {"cohort": {"name": "ptb-xl"}, "split": "test", "overlap": OWN}
    card = model_card(trained, runs[0].score, None, evidence=again)
    assert f"**{OWN_TEXT}, as somebody allowed" in card
    other = {"cohort": "ptb-xl", "validation records": 50, "seen": 5, "in pretraining": 5}
    later = {"cohort": {"name": "ptb-xl"}, "split": "validation", "overlap": other}
    card = model_card(trained, runs[0].score, None, evidence=later)
    assert "**It has seen 5 of the 50 validation records of ptb-xl" in card
    assert OWN_TEXT not in card


def test_nothing_is_said_of_another_cohort_or_of_nothing_seen() -> None:
    assert seen_before({"public_weights": PUBLIC}, "cart") == []
    assert seen_before({"overlap": {**OWN, "seen": 0}}, "ptb-xl") == []
    assert seen_before({"public_weights": None}, "ptb-xl") == seen_before({}, None) == []
