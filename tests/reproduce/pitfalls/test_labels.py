"""Label rules, row rules and versions: each against the protocol's own reading of the tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.cohorts.ptbxl import DATABASE, REMOVED_IN_1_0_3, TASKS, open_ptbxl
from einthoven.reproduce.pitfalls.features import Singles
from einthoven.reproduce.pitfalls.labels import (
    RULES,
    empty_rows,
    likelihood,
    versions,
    with_likelihoods,
)
from einthoven.reproduce.pitfalls.leaks import out_of_fold
from einthoven.reproduce.pitfalls.material import Material, as_task, likelihoods, members
from einthoven.reproduce.pitfalls.scoring import Scored


def test_rules_read_likelihoods_as_they_say() -> None:
    said = np.array([[np.nan, 0.0, 15.0, 50.0, 80.0, 100.0]])
    expected = {
        "present": [0, 1, 1, 1, 1, 1],
        "> 0": [0, 0, 1, 1, 1, 1],
        ">= 50": [0, 0, 0, 1, 1, 1],
        "== 100": [0, 0, 0, 0, 0, 1],
    }
    assert {rule: holds(said)[0].tolist() for rule, holds in RULES.items()} == expected


def test_presence_is_the_benchmarks_rule_in_every_task(synthetic_path: Path) -> None:
    whole = open_ptbxl(synthetic_path, "all-71", empty_rows="keep")
    present = (~np.isnan(likelihoods(whole))).astype(np.uint8)
    for task in TASKS:
        known = open_ptbxl(synthetic_path, task, empty_rows="keep")
        labels = members(whole, task)
        assert tuple(labels) == known.labels
        np.testing.assert_array_equal(as_task(present, labels), known.matrix)


def test_likelihoods_are_those_of_the_table(material: Material) -> None:
    said = likelihoods(material.cohort)
    table = pd.read_csv(material.cohort.root / DATABASE, dtype=str).set_index("ecg_id")
    row = int(np.flatnonzero(material.cohort.matrix[:, 0])[0])
    record = material.cohort.ids()[row]
    assert f"'{material.cohort.labels[0]}': {said[row, 0]}" in table.loc[record, "scp_codes"]


def test_only_the_part_of_a_table_with_likelihoods_counts() -> None:
    said = np.array([[100.0, 0.0], [np.nan, 0.0], [50.0, np.nan], [0.0, 0.0], [np.nan, 0.0]])
    assert with_likelihoods(said).tolist() == [0, 1, 2]
    assert not len(with_likelihoods(np.zeros((3, 2))))


def test_stricter_rules_lose_labels_and_rhythm_goes_first(
    material: Material, features: Singles
) -> None:
    found = likelihood(material, out_of_fold(material, features))
    lines = {(row[0], row[1]): row for row in found.rows}

    def positives(task: str, rule: str) -> int:
        return int(lines[task, rule][3].split()[0].replace(",", ""))

    for task in TASKS:
        counts = [positives(task, rule) for rule in RULES]
        assert counts == sorted(counts, reverse=True)
    # Sinus rhythm carries 0; most diagnoses do not.
    assert positives("rhythm-12", "> 0") < 0.3 * positives("rhythm-12", "present")
    assert positives("diagnostic-44", "> 0") == positives("diagnostic-44", "present")
    same = [e for e in found.effects if e.what == "diagnostic-44, likelihood > 0"]
    assert all(effect.difference == 0 for effect in same)


def test_a_copy_without_likelihoods_says_so(material: Material, tmp_path: Path) -> None:
    for file in material.cohort.root.glob("*.csv"):
        (tmp_path / file.name).write_text(file.read_text())
    table = pd.read_csv(tmp_path / DATABASE, dtype=str)
    table["scp_codes"] = table["scp_codes"].str.replace(r": [\d.]+", ": 0.0", regex=True)
    table.to_csv(tmp_path / DATABASE, index=False)
    bare = replace(material, cohort=replace(material.cohort, root=tmp_path))
    scores = np.zeros(material.cohort.matrix.shape)
    found = likelihood(bare, scores)
    assert not found.effects
    assert "no likelihoods" in found.notes[0]


def test_dropping_empty_rows_gives_the_cohorts_own_test_records(
    material: Material, synthetic_path: Path
) -> None:
    found = empty_rows(material)
    tests = material.cohort.select(material.cohort.matrix.any(axis=1)).ids("test")
    for task in ("form-19", "rhythm-12"):
        labels = members(material.cohort, task)
        known = open_ptbxl(synthetic_path, task, empty_rows="keep").with_labels(list(labels))
        there = np.isin(known.ids(), tests) & known.matrix.any(axis=1)
        dropped = len(tests) - int(there.sum())
        assert f"{dropped} ({task})" in found.notes[0]


def test_five_records_fewer_and_the_ones_that_1_0_1_had(material: Material) -> None:
    found = versions(material)
    assert "left out" in found.notes[0]
    for effect in found.effects:
        assert effect.interval is not None
        assert effect.interval[0] <= effect.difference <= effect.interval[1]

    # The simulated records have PTB-XL's numbers, and some of them are among the 38.
    removed = [int(i) in REMOVED_IN_1_0_3 for i in material.cohort.ids()[material.test.rows]]
    direct = versions(replace(material, cohort=replace(material.cohort, version="1.0.1")))
    assert sum(removed) > 0
    assert direct.notes[0].startswith(f"{sum(removed)} of {len(removed)} ")
    scored = material.test.scored()
    assert direct.effects[0].wrong == np.nanmean(scored.points()[0])
    kept = ~np.array(removed)
    left = Scored(scored.targets[kept], scored.probabilities[kept], np.flatnonzero(kept))
    assert direct.effects[0].right == np.nanmean(left.points()[0])


def test_in_real_ptb_xl_rhythms_carry_no_likelihood_and_diagnoses_do(ptbxl_60: Path) -> None:
    whole = open_ptbxl(ptbxl_60, "all-71", empty_rows="keep")
    said = likelihoods(whole)
    assert len(with_likelihoods(said)) > 50
    rhythm, form, diagnosis = (
        {place for columns in members(whole, task).values() for place in columns}
        for task in ("rhythm-12", "form-19", "diagnostic-44")
    )
    stated = said[:, sorted(rhythm)]
    assert (stated[~np.isnan(stated)] == 0).mean() > 0.9
    stated = said[:, sorted(diagnosis - form)]
    assert (stated[~np.isnan(stated)] > 0).all()
