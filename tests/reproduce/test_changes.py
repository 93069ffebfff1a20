"""What an experiment changes of a recipe, key by key."""

from __future__ import annotations

from pathlib import Path

import pytest

from einthoven.reproduce.changes import changes
from einthoven.reproduce.evidence import Evidence
from einthoven.reproduce.experiment_files import load_experiment
from einthoven.reproduce.experiments import NO_PROBE
from einthoven.reproduce.folders import Request
from einthoven.reproduce.sections import Section
from einthoven.reproduce.table_1 import table_1
from einthoven.stages.recipe import load_recipe


def changed(recipe: str, *settings: str) -> list[str]:
    return changes(load_recipe(recipe, list(settings)), load_recipe(recipe))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("precision='bf16'", "precision bf16 instead of fp32"),
        ("stage2.base_lr=0.005", "stage2.base_lr 0.005 instead of 0.02"),
        ("stage2.weight_decay=0.0", "stage2.weight_decay 0 instead of 0.01"),
        ("data.aggregate='probability'", "data.aggregate probability instead of max"),
        ("stage2.betas=[0.9, 0.99]", "stage2.betas [0.9, 0.99] instead of [0.95, 0.99]"),
        ("stage2.one_cycle.start_divisor=10", "stage2.one_cycle.start_divisor 10 instead of 25"),
        ("stage2.drop_last=false", "stage2.drop_last false instead of true"),
        ("stage2.epochs=60", "stage2.epochs 60 instead of 50"),
    ],
)
def test_every_key_is_named_with_both_values(setting: str, said: str) -> None:
    assert changed("strodthoff", setting) == [said]


def test_what_is_no_change_or_has_a_mark_of_its_own() -> None:
    """A name, the seed and share of a cell; fewer epochs, which are a shorter schedule."""
    quiet = ["name='another'", "description='x'", "seed=3", "data.fraction=0.3"]
    assert changed("strodthoff", *quiet, "stage2.epochs=20") == []


def test_a_stage_that_is_left_out() -> None:
    experiment = load_experiment("s4-100hz-cpu")
    assert experiment.changes(NO_PROBE, "s4_small") == ["without stage1"]
    assert experiment.changes("post-training", "s4_small") == []


def test_the_peers_for_two_cores_say_that_they_are_in_bf16() -> None:
    whole, cheap = load_experiment("peers"), load_experiment("peers-cpu")
    assert whole.changes("strodthoff", "fcn_wang") == []
    assert cheap.changes("strodthoff", "fcn_wang") == ["precision bf16 instead of fp32"]
    assert cheap.changes("wavelet-nn", "wavelet_nn") == []
    assert cheap.changes("strodthoff-rnn", "lstm_bidir") == ["precision bf16 instead of fp32"]
    assert cheap.short_schedule("strodthoff-rnn", "lstm_bidir") == "10 of 50 epochs"


@pytest.fixture
def section(tmp_path: Path) -> Section:
    """Table 1 of the peers for two cores, before anything is run."""
    request = Request(load_experiment("peers-cpu"), "", tmp_path, tmp_path, tmp_path / "out")
    return table_1(Evidence(request))


def test_table_1_marks_the_rows_and_hands_it_on(section: Section) -> None:
    rows = {row["name"]: row for row in section.numbers["rows"]}
    assert rows["fcn_wang"]["changes"] == ["precision bf16 instead of fp32"]
    assert rows["fcn_wang"]["short_schedule"] == ""
    assert rows["wavelet_nn"]["changes"] == []
    assert rows["ensemble"]["changes"] == ["precision bf16 instead of fp32 (6 of its 7 members)"]
    lines = section.text.splitlines()
    assert any(line.startswith("| **fcn_wang** § | ours |") for line in lines)
    assert any(line.startswith("| **lstm_bidir** † § | ours |") for line in lines)
    assert any(line.startswith("| **wavelet_nn** | ours |") for line in lines)
    note = " ".join(section.text.split()).partition("§ Changed in the row's recipe.")[2]
    listed, _, rest = note.partition("; precision bf16 instead of fp32 (6 of its 7 members)")
    assert listed.startswith(" precision bf16 instead of fp32: inception1d, xresnet1d101")
    assert "wavelet_nn" not in listed
    assert rest.startswith(": ensemble; stage2.head_bias prior instead of stock: multiresnet. ")


def test_table_1_says_which_values_are_whose(section: Section) -> None:
    """Four rows and two columns are of the leaderboard, whatever the paper quotes."""
    flat = " ".join(section.text.split())
    assert (
        "Of the leaderboard of Strodthoff et al. (2021) alone are the rows fcn_wang, lstm, "
        "lstm_bidir, Wavelet+NN and the columns superclass-5, form-19." in flat
    )
    assert "but for Wavelet+NN, which is that of the lowest validation loss" in flat
    paper_s = Request(load_experiment("s4-100hz-cpu"), "s4_small", *3 * [Path("nowhere")])
    text = table_1(Evidence(paper_s)).text
    assert "leaderboard of Strodthoff" not in text
    assert "arXiv 2509.12991" in text
