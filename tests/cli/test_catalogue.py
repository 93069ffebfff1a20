"""The catalogue says of every backbone what it takes and what its public weights are."""

from __future__ import annotations

import json
from typing import Any

from einthoven.backbones.registry import backbone_names, create_backbone, entry


def test_as_json_it_is_the_registry_and_each_network_s_own_input(cli: Any) -> None:
    catalogue = json.loads(cli("backbones", "--json").out)
    assert list(catalogue) == backbone_names()
    for name, about in catalogue.items():
        known = entry(name)
        assert about["parameters"] == known.parameters
        assert about["weights_sha256"] == known.weights_sha256
        assert about["licence"] == (known.licence.to_dict() if known.licence else None)
    about, preparation = catalogue["st_mem_base"], create_backbone("st_mem_tiny").preparation
    assert tuple(about["leads"]) == preparation.leads
    assert (about["rate_hz"], about["window_samples"], about["window_seconds"]) == (250, 2250, 9)
    assert about["preparation"] == [str(step) for step in preparation.steps]


def test_the_list_has_a_line_each_in_two_groups_and_fits_a_terminal(cli: Any) -> None:
    lines = cli("backbones").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= len(backbone_names()) + 6
    first, second = (
        next(i for i, line in enumerate(lines) if line.startswith(title))
        for title in ("Foundation models", "Made for the task")
    )
    told = {line.split()[0]: (i, line) for i, line in enumerate(lines) if line.strip()}
    for name in backbone_names():
        about = entry(name)
        public = not about.recipe and about.weights_from is not None
        saw = {True: "!", False: "", None: "?"}[about.contains_ptbxl]
        place, line = told[name + ("*" + saw) * public]
        assert f" {about.parameters:,}  " in line
        assert line.endswith(f" {about.origin}")
        assert (first < place < second) == (not entry(name).is_supervised)
    assert " 12 leads 240 Hz 2.5 s  " in told["ecg_cpc*"][1]
    assert "  1 lead  500 Hz 10 s " in told["ecgfounder_1lead*"][1]
    assert "einthoven backbones NAME" in lines[-1]
    assert {"ecg_fm*!", "hubert_ecg_base*?", "ecgfounder_12lead*", "s4_small"} <= told.keys()
    assert "! saw PTB-XL, ? unknown" in lines[first]


def test_the_bundle_that_comes_along_is_told_of_as_well(cli: Any) -> None:
    about = json.loads(cli("backbones", "einthoven-small", "--json").out)
    assert about["name"] == "einthoven-small"
    assert about["preparation"][0] == "minus each lead's mean"
    assert about["contains_ptbxl"] is True
    assert "folds 1 to 8 without labels" in about["pretraining_data"]
    assert "all-71" in about["pretraining_data"]
    assert about["options"]["causal"] is False
    assert about["parameters"] == 367_872
    assert about["preparation"][2] == "window of 250 samples (4 evaluation crops)"
    assert "CC-BY-4.0" in about["licence"]
    assert json.loads(cli("backbones", "s4_small", "--json").out)["contains_ptbxl"] is not True
    assert "einthoven-small" in cli("backbones").out.splitlines()[-1]


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
    assert facts["recipe"] == "any that starts from pretrained weights"
    assert "recipe            strodthoff-rnn" in cli("backbones", "lstm").out
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
    assert "PTB-XL inside     no\n" in shown
    for title in ("licence", "weights"):
        line = next(line for line in shown.splitlines() if line.startswith(f"  {title} "))
        assert "not stated in our sources" in line
    assert "SHA-256           not known" in shown
    assert "240 Hz, 2.5 s (600 samples)" in shown


def test_an_unknown_name_is_answered_with_the_nearest(cli: Any) -> None:
    said = cli("backbones", "ecg_cp")
    assert said.status == 1
    assert "did you mean ecg_cpc" in said.err
