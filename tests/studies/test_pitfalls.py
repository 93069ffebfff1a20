"""The study of protocol mistakes: its estimators, and all of it on simulated records."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import open_cohort
from einthoven.cohorts.ptbxl import TASKS, open_ptbxl
from einthoven.files import read_json
from einthoven.models import Model
from einthoven.signals.store import Store

sys.path.insert(0, str(Path(__file__).parents[2] / "studies" / "pitfalls"))

import leaks
import run
import selection
from data import Study, as_task, cohort_for, likelihoods, members, outputs_of

RANDOM = np.random.default_rng(1)
TARGETS = (RANDOM.random((60, 4)) < 0.4).astype(np.uint8)
TARGETS[:, 0] |= ~TARGETS.any(axis=1)


@pytest.fixture(scope="module")
def study(synthetic_path: Path, synthetic_store: Store) -> Study:
    labels = open_cohort(synthetic_path, min_records=4).labels
    network = create_classifier(
        "mtecg_tiny_100hz", labels=labels, seed=0, depth=1, width=32, heads=1
    )
    preparation = network.preparation.with_window(seconds=2.5).with_evaluation_crops(4)
    model = Model(network.eval(), preparation)
    cohort = cohort_for(synthetic_path, synthetic_store, model)
    validation, test = (
        outputs_of(model, cohort, synthetic_store, split) for split in ("validation", "test")
    )
    return Study(cohort, synthetic_store, model, "`untrained`", validation, test, resamples=40)


def test_the_whole_study(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "EPOCHS", 12)
    monkeypatch.setattr(selection, "HALVINGS", 6)
    findings = run.measure(study, kernels=2)
    page = tmp_path / "protocol.md"
    page.write_text("# By hand\n\nAbove.\n")
    run.write_page(page, study, findings)
    text = page.read_text()
    assert text.startswith("# By hand\n\nAbove.\n")
    assert str(study.cohort.root) not in text
    numbers = read_json(tmp_path / "figures" / "pitfalls--untrained--protocol.json")
    assert list(numbers) == [finding.key for finding in findings]
    assert len(numbers) == 11
    for finding in findings:
        assert f"### {finding.title}" in text
        assert set(finding.headlines) <= {effect.what for effect in finding.effects}
    for key in ("selection", "thresholds"):  # a choice on the reported records never looks worse
        assert all(effect["difference"] >= 0 for effect in numbers[key]["effects"])
    for effect in numbers["likelihood"]["effects"]:  # diagnoses have a likelihood
        assert effect["difference"] == 0 or effect["what"] != "diagnostic-44, likelihood > 0"
    run.write_page(page, study, findings)
    assert page.read_text() == text


def test_matched_split() -> None:
    patients = np.array(["a", "a", "b", "c", "c", "c", "d", "e", "f", "g", "h", "i"])
    split = leaks.matched_split(patients, np.array([0, 3, 6]), seed=0)
    siblings = {1, 4, 5}
    assert len(split.leaky) == len(split.clean) == 6
    assert siblings <= set(split.leaky)
    assert not siblings & set(split.clean)
    assert not {0, 3, 6} & (set(split.leaky) | set(split.clean))
    assert split.crossing.tolist() == [True, True, False]


def test_a_planted_signature_of_patients_is_found(study: Study) -> None:
    random = np.random.default_rng(0)
    names, owner = np.unique(study.patients, return_inverse=True)
    signature = random.normal(size=(len(names), 30)).astype(np.float32)
    features = np.repeat(signature[owner][:, None], 4, axis=1)
    features = features + 0.01 * random.normal(size=features.shape).astype(np.float32)
    matrix = (random.random((len(names), len(study.cohort.labels))) < 0.3)[owner]
    planted = replace(study, cohort=replace(study.cohort, matrix=matrix.astype(np.uint8)))
    finding = leaks.record_leak(planted, features)
    effect = next(
        each
        for each in finding.effects
        if each.what.startswith(leaks.MODELS[1]) and each.what not in finding.headlines
    )
    assert effect.wrong > 0.9
    assert effect.right < 0.7


def test_key_presence_is_the_label_rule_of_every_task(synthetic_path: Path) -> None:
    cohort = open_ptbxl(synthetic_path, "all-71", empty_rows="keep")
    present = (~np.isnan(likelihoods(cohort))).astype(np.uint8)
    for task in TASKS:
        known = open_ptbxl(synthetic_path, task, empty_rows="keep")
        labels = members(cohort, task)
        assert tuple(labels) == known.labels
        np.testing.assert_array_equal(as_task(present, labels), known.matrix)
