"""The catalogue says of every backbone what it takes and what its public weights are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from einthoven.backbones.registry import backbone_names, create_backbone, entry


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for a table whose cells are not broken."""
    monkeypatch.setenv("COLUMNS", "400")


def test_as_json_it_is_the_registry_and_each_network_s_own_input(cli: Any) -> None:
    catalogue = json.loads(cli("backbones", "--json").out)
    assert list(catalogue) == backbone_names()
    for name, about in catalogue.items():
        assert asdict(entry(name)).items() <= about.items()
    about, preparation = catalogue["st_mem_base"], create_backbone("st_mem_tiny").preparation
    assert tuple(about["leads"]) == preparation.leads
    assert (about["rate_hz"], about["window_samples"], about["window_seconds"]) == (250, 2250, 9)
    assert about["preparation"] == [str(step) for step in preparation.steps]


def test_the_table_has_every_backbone_and_all_three_answers_about_ptbxl(cli: Any) -> None:
    lines = cli("backbones").out.splitlines()
    rows = {line.split("│")[1].strip(): line for line in lines if line.count("│") > 5}
    assert set(backbone_names()) <= rows.keys()
    answers = {name: rows[name].split("│")[-2].strip() for name in backbone_names()}
    expected = {"ecg_fm": "yes", "hubert_ecg_base": "unknown", "ecg_cpc": "no"}
    assert expected.items() <= answers.items()
    shown = "\n".join(lines)
    assert "85,150,614" in shown
    assert "12 leads, 500 Hz, 5 s (2500 samples)" in shown
    assert "wanglab/ecg-fm-preprint" in shown
    assert "1,090,825,421 bytes" in shown
    assert "SHA-256 4d0142bcb485..." in shown
    assert "CC BY-NC" in shown


def test_one_in_full(cli: Any) -> None:
    shown = cli("backbones", "ecg_fm").out
    about = entry("ecg_fm")
    for text in (about.paper, about.weights_sha256, about.pretraining_data, about.weights_from):
        assert text in shown
    facts = {line[2:19].strip(): line[20:] for line in shown.splitlines()[1:]}
    assert facts["PTB-XL inside"] == "yes"
    assert facts["file size"] == "1,090,825,421 bytes"
    assert facts["parameters"] == "90,373,248 without a head"
    assert facts["options"] == "width=768"
    assert '                    missing_leads="zero"' in shown.splitlines()
    alone = json.loads(cli("backbones", "ecg_fm", "--json").out)
    assert alone == json.loads(cli("backbones", "--json").out)["ecg_fm"]


def test_options_show_the_backbone_that_they_make(cli: Any) -> None:
    shown = cli("backbones", "ecgfounder_12lead", "--option", "preparation=evaluation").out
    assert 'preparation="evaluation"' in shown
    assert "notch" not in shown
    assert "notch" in cli("backbones", "ecgfounder_12lead").out
    said = cli("backbones", "--option", "window=500")
    assert (said.status, "name the backbone" in said.err) == (1, True)
    assert "unknown; yes for its fine-tuned classifiers" in cli("backbones", "hubert_ecg_base").out


def test_what_our_sources_do_not_say_is_not_made_up(cli: Any) -> None:
    shown = cli("backbones", "ecg_cpc").out
    for title in ("licence", "weights"):
        line = next(line for line in shown.splitlines() if line.startswith(f"  {title} "))
        assert "not stated in our sources" in line
    assert "SHA-256           not known" in shown
    assert "240 Hz, 2.5 s (600 samples)" in shown


def test_an_unknown_name_is_answered_with_the_nearest(cli: Any) -> None:
    said = cli("backbones", "ecg_cp")
    assert said.status == 1
    assert "did you mean ecg_cpc" in said.err
