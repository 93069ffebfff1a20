"""Resamples: distribution, acceptance, determinism and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.bootstrap import jackknife_draws, multiplicities


def rare_targets(n: int = 300) -> NDArray[np.uint8]:
    targets = np.zeros((n, 5), np.uint8)
    targets[7, 0] = 1  # one positive
    targets[[3, 7, 100], 1] = 1
    targets[:150, 2] = 1
    targets[:, 3] = 1
    targets[11, 3] = 0  # one negative
    targets[40:60, 4] = 1
    return targets


def test_plain_draws_are_the_multinomial() -> None:
    drawn = multiplicities(50, 4000, seed=1)
    counts = drawn.multiplicities
    assert counts.dtype == np.uint8
    assert counts.shape == (4000, 50)
    assert drawn.drawn == 4000
    assert (counts.sum(axis=1) == 50).all()
    # Binomial(50, 1/50): mean 1, variance 0.98, absent with probability 0.98 ** 50.
    assert np.abs(counts.mean(axis=0) - 1).max() < 5 * np.sqrt(0.98 / 4000)
    assert counts.astype(float).var(axis=0).mean() == pytest.approx(0.98, abs=0.02)
    assert (counts == 0).mean() == pytest.approx(0.98**50, abs=0.005)


def test_accepted_resamples_follow_the_conditional_distribution() -> None:
    # Against draws of whole resamples, of which the bad ones are thrown away.
    targets = rare_targets(30 * 10)[::10].copy()
    targets[0] = [1, 0, 1, 0, 1]
    targets[1] = [0, 1, 0, 1, 0]
    ours = multiplicities(30, 20_000, seed=3, accept=targets)
    plain = multiplicities(30, 60_000, seed=4).multiplicities.astype(np.float32)
    both = np.concatenate([targets == 1, targets == 0], axis=1).astype(np.float32)
    defined = plain[(plain @ both > 0).all(axis=1)]
    assert ours.acceptance == pytest.approx(len(defined) / len(plain), abs=0.01)
    accepted = ours.multiplicities.astype(np.float32)
    assert (accepted.sum(axis=1) == 30).all()
    np.testing.assert_allclose(accepted.mean(axis=0), defined.mean(axis=0), atol=0.05)
    ours_pairs, their_pairs = np.cov(accepted.T), np.cov(defined.T)
    np.testing.assert_allclose(ours_pairs, their_pairs, atol=0.08)


def test_every_accepted_resample_defines_every_label() -> None:
    targets = rare_targets()
    drawn = multiplicities(300, 500, seed=0, accept=targets)
    weights = drawn.multiplicities.astype(int)
    assert (weights @ targets > 0).all()
    assert (weights @ (1 - targets.astype(int)) > 0).all()
    # Two single records must both be drawn: about (1 - 1/e) ** 2 = 0.40.
    assert drawn.acceptance == pytest.approx(0.40, abs=0.06)


@pytest.mark.parametrize("accept", [None, rare_targets()])
def test_depends_on_the_seed_and_not_on_the_block(
    accept: NDArray[np.uint8] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    for block in (1, 7, 64, 1024):
        monkeypatch.setattr("einthoven.evaluate.bootstrap.DRAWS_AT_A_TIME", block)
        drawn.append(multiplicities(300, 200, seed=9, accept=accept))
    for other in drawn[1:]:
        np.testing.assert_array_equal(other.multiplicities, drawn[0].multiplicities)
        assert other.drawn == drawn[0].drawn
    longer = multiplicities(300, 350, seed=9, accept=accept)
    np.testing.assert_array_equal(longer.multiplicities[:200], drawn[0].multiplicities)
    assert (multiplicities(300, 200, seed=10).multiplicities != drawn[0].multiplicities).any()


def test_the_order_of_labels_does_not_matter() -> None:
    targets = rare_targets()
    one = multiplicities(300, 100, seed=2, accept=targets).multiplicities
    np.testing.assert_array_equal(
        multiplicities(300, 100, seed=2, accept=targets[:, ::-1]).multiplicities, one
    )


@pytest.mark.parametrize("accept", [None, rare_targets()])
def test_patients_are_drawn_whole(accept: NDArray[np.uint8] | None) -> None:
    groups = np.random.default_rng(0).integers(0, 120, 300)
    counts = multiplicities(300, 100, seed=5, groups=groups, accept=accept).multiplicities
    first = {g: i for i, g in reversed(list(enumerate(groups)))}
    leaders = [first[g] for g in groups]
    np.testing.assert_array_equal(counts, counts[:, leaders])
    patients = counts[:, sorted(first.values())].astype(int)
    assert (patients.sum(axis=1) == len(first)).all()
    assert len(set(counts.astype(int).sum(axis=1))) > 1


@pytest.mark.parametrize("accept", [None, rare_targets()])
def test_one_record_per_patient_equals_drawing_records(accept: NDArray[np.uint8] | None) -> None:
    names = np.random.default_rng(0).permutation(300).astype(str)
    by_patient = multiplicities(300, 50, seed=5, groups=names, accept=accept)
    by_record = multiplicities(300, 50, seed=5, accept=accept)
    np.testing.assert_array_equal(by_patient.multiplicities, by_record.multiplicities)


def test_too_low_an_acceptance_names_the_rarest_labels() -> None:
    targets = np.zeros((300, 20), np.uint8)
    targets[np.arange(20), np.arange(20)] = 1
    labels = [f"L{i}" for i in range(20)]
    with pytest.raises(EvaluationError, match=r"L0 \(1 "):
        multiplicities(300, 1000, accept=targets, labels=labels)


def test_no_resamples() -> None:
    drawn = multiplicities(5, 0)
    assert drawn.multiplicities.shape == (0, 5)
    assert drawn.acceptance == 1.0


def test_jackknife_leaves_out_each_unit_once() -> None:
    np.testing.assert_array_equal(np.concatenate(list(jackknife_draws(4))), 1 - np.eye(4))
    rows = np.concatenate(list(jackknife_draws(4, groups=["b", "a", "b", "c"])))
    np.testing.assert_array_equal(rows, [[0, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]])


def ptbxl_test_targets(shared: Path, column: str) -> NDArray[np.uint8]:
    folder = shared / "data" / "ptbxl"
    statements = pd.read_csv(folder / "scp_statements.csv", index_col=0).sort_index()
    codes = statements.index if column == "all" else statements.index[statements[column] == 1]
    table = pd.read_csv(folder / "labels.csv").query("strat_fold == 10")
    targets = table["scp_codes"].str.get_dummies(",").reindex(columns=codes, fill_value=0)
    return targets[targets.any(axis=1)].to_numpy(np.uint8)


@pytest.mark.parametrize(
    ("column", "shape", "acceptance"),
    [
        ("all", (2198, 71), 0.103),
        ("diagnostic", (2158, 44), 0.251),
        ("form", (880, 19), 0.571),
        ("rhythm", (2098, 12), 0.719),
    ],
)
def test_acceptance_on_ptbxl(
    shared: Path, column: str, shape: tuple[int, int], acceptance: float
) -> None:
    targets = ptbxl_test_targets(shared, column)
    assert targets.shape == shape
    drawn = multiplicities(len(targets), 1000, seed=0, accept=targets)
    # Both rates are shares of thousands of draws: four standard errors of either.
    error = np.sqrt(acceptance * (1 - acceptance) * (1 / drawn.drawn + 1 / 3000))
    assert drawn.acceptance == pytest.approx(acceptance, abs=4 * error)
