"""Splits: what is matched, what is not, and that a planted memory is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from einthoven.reproduce.pitfalls.features import Probe, Singles
from einthoven.reproduce.pitfalls.leaks import (
    matched_cut,
    out_of_fold,
    record_leak,
    window_leak,
)
from einthoven.reproduce.pitfalls.material import Material

PATIENTS = np.array(["a", "a", "b", "c", "c", "c", "d", "e", "f", "g", "h", "i"])


def test_both_training_sets_are_of_one_size_and_differ_in_the_test_patients_alone() -> None:
    cut = matched_cut(PATIENTS, np.array([0, 3, 6]), seed=0)
    siblings = {1, 4, 5}
    assert len(cut.leaky) == len(cut.clean) == 6
    assert siblings <= set(cut.leaky)
    assert not siblings & set(cut.clean)
    assert not {0, 3, 6} & (set(cut.leaky) | set(cut.clean))
    assert set(cut.leaky) - siblings <= set(cut.clean)
    assert cut.crossing.tolist() == [True, True, False]


def test_by_strat_fold_there_is_nothing_to_leak(material: Material) -> None:
    test = np.flatnonzero(material.folds == 10)
    cut = matched_cut(material.patients, test, seed=0)
    others = np.flatnonzero(material.folds != 10)
    np.testing.assert_array_equal(cut.clean, others)
    np.testing.assert_array_equal(cut.leaky, others)
    assert not cut.crossing.any()


def test_with_one_record_a_patient_a_random_split_is_as_good(
    material: Material, features: Singles
) -> None:
    table = material.cohort.table.assign(patient=material.cohort.ids())
    single = replace(material, cohort=replace(material.cohort, table=table))
    found = record_leak(single, features)
    assert found.effects
    assert all(effect.difference == 0 for effect in found.effects)
    assert found.notes[1] == "No patient crosses."


def test_what_identifies_a_patient_is_found_and_pays(material: Material) -> None:
    """Features that tell patients apart and nothing else; patients whose labels stay the same."""
    draws = np.random.default_rng(0)
    names, owner = np.unique(material.patients, return_inverse=True)
    signature = draws.normal(size=(len(names), 30)).astype(np.float32)
    features = np.repeat(signature[owner][:, None], 4, axis=1)
    features = features + 0.01 * draws.normal(size=features.shape).astype(np.float32)
    matrix = (draws.random((len(names), len(material.cohort.labels))) < 0.3)[owner]
    planted = replace(material, cohort=replace(material.cohort, matrix=matrix.astype(np.uint8)))
    found = record_leak(planted, features)
    crossing = [e for e in found.effects if e.what == "nearest neighbours, those that cross"]
    assert crossing[0].wrong > 0.9
    assert crossing[0].right < 0.7
    assert "100.0 % have a record of that same patient" in found.notes[1]


def test_windows_of_a_record_are_each_others_memory(material: Material, features: Singles) -> None:
    found = window_leak(material, features)
    assert {effect.metric for effect in found.effects} == {"macro AUROC", "macro AUPRC"}
    assert "have a window of that same patient as the nearest" in found.notes[1]


def test_no_record_is_predicted_by_a_probe_that_saw_its_fold(
    material: Material, features: Singles
) -> None:
    found = out_of_fold(material, features)
    x, held = features.mean(axis=1), material.folds == 10
    alone = Probe.fit(x[~held], material.cohort.matrix[~held]).probabilities(x[held])
    np.testing.assert_allclose(found[held], alone)
    # Labels of fold 10 do not enter its own predictions.
    other = np.where(held[:, None], 1 - material.cohort.matrix, material.cohort.matrix)
    changed = replace(material, cohort=replace(material.cohort, matrix=other.astype(np.uint8)))
    np.testing.assert_allclose(out_of_fold(changed, features)[held], found[held])
