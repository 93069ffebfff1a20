"""Choosing on what is reported never looks worse, and halves never share a patient."""

from __future__ import annotations

import numpy as np
import pytest

from einthoven.reproduce.pitfalls import selection
from einthoven.reproduce.pitfalls.features import Singles
from einthoven.reproduce.pitfalls.material import Material
from einthoven.reproduce.pitfalls.selection import best_of, chosen_here_or_there, halved


def test_the_candidate_chosen_there_is_reported_here() -> None:
    here = np.array([[0.90, 0.80], [0.91, 0.85], [0.92, 0.70]])
    there = np.array([[0.95, 0.60], [0.90, 0.61], [0.85, 0.62]])
    right, wrong = chosen_here_or_there(here, there)
    assert right.tolist() == [0.90, 0.70]
    assert wrong.tolist() == [0.92, 0.85]


def test_with_noise_alone_the_best_of_n_gains_what_the_maximum_does() -> None:
    noise = np.random.default_rng(0).normal(size=(20, 4000))
    other = np.random.default_rng(1).normal(size=(20, 4000))
    right, wrong = chosen_here_or_there(noise, other)
    assert right.mean() == pytest.approx(0, abs=0.05)
    assert wrong.mean() == pytest.approx(1.867, abs=0.05)  # expected maximum of 20 normals


def test_halves_are_of_whole_patients() -> None:
    patients = np.array([f"p{i // 3}" for i in range(60)])
    halves = halved(patients, 9, seed=0)
    assert halves.shape == (9, 60)
    assert (halves.sum(axis=1) == 30).all()
    for half in halves:
        assert not set(patients[half]) & set(patients[~half])
    assert len({half.tobytes() for half in halves}) == 9


def test_effects_are_never_negative(
    material: Material, features: Singles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "EPOCHS", 12)
    monkeypatch.setattr(selection, "HALVINGS", 6)
    found = best_of(material, features)
    assert {effect.what for effect in found.effects} == {
        "best of 10 epochs of one probe",
        "best of 12 epochs of one probe",
        "best of 5 probes of other random features",
        "best of 20 probes of other random features",
    }
    assert all(effect.difference >= 0 for effect in found.effects)
    assert sum("On the folds as they are" in note for note in found.notes) == 2
