"""The statement map."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import open_cohort
from einthoven.cohorts.cinc import scored
from einthoven.cohorts.statements import (
    VOCABULARIES,
    any_of,
    codes_in,
    shared_statements,
    statements,
)
from einthoven.cohorts.synthetic.statements import STATEMENTS as SCP_STATEMENTS
from einthoven.errors import CohortError

SCP = list(SCP_STATEMENTS)


def test_a_code_means_one_statement_apart_from_those_it_is_a_part_of() -> None:
    """Also across vocabularies: labels have no vocabulary of their own."""
    whole = defaultdict(set)
    for statement in statements():
        assert statement.source
        assert statement.description
        for parts in statement.codes.values():
            for code in parts[0] if len(parts) == 1 else ():
                whole[code].add(statement.name)
    repeated = {code: names for code, names in whole.items() if len(names) > 1}
    # Old and acute infarction have no region, anterior infarction has one.
    assert repeated == {"54329005": {"AMI", "MI-ANY"}}


def test_columns_are_vocabularies() -> None:
    for statement in statements():
        assert set(statement.codes) <= {"statement", *VOCABULARIES}
        assert all(
            code == code.strip() != "" for p in statement.codes.values() for c in p for code in c
        )


def test_scp_codes_are_those_of_ptbxl() -> None:
    used = {c for s in statements() for part in s.codes.get("scp", ()) for c in part}
    assert used <= set(SCP)
    assert len(set(SCP) - used) == 13  # without a counterpart: docs/cohorts.md


def test_the_challenge_gave_as_many_records_of_ptbxl_each_code(shared: Path) -> None:
    """Counts of version 1.0.1 in the rows' sources; 1.0.3 has 38 records fewer and corrections."""
    rows = pd.read_csv(shared / "data" / "ptbxl" / "labels.csv", dtype=str)["scp_codes"].fillna("")
    carried = [set(row.split(",")) for row in rows]
    compared = 0
    for statement in statements():
        if count := re.search(r"challenge (\d+)", statement.source):
            codes = {code for part in statement.codes["scp"] for code in part}
            now = sum(not codes.isdisjoint(row) for row in carried)
            assert now <= int(count[1]) <= now * 1.02 + 2, statement.name
            compared += 1
    assert compared == 41


def test_challenge_codes_are_the_scored_classes() -> None:
    classes = set(scored("cinc-2021"))
    used = {c for s in statements() for part in s.codes.get("challenge", ()) for c in part}
    assert used == classes


def test_a_statement_of_parts_needs_all_of_them() -> None:
    code15 = ["1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"]
    shared = shared_statements(SCP, code15)
    assert set(shared) == {"1AVB", "RBBB", "LBBB", "SBRAD", "STACH", "AFIB"}
    assert {SCP[place] for place in shared["RBBB"][0]} == {"CRBBB", "IRBBB"}
    assert shared["RBBB"][1] == (1,)
    fewer = [code for code in SCP if code != "IRBBB"]
    assert "RBBB" not in shared_statements(fewer, code15)


def test_parts_on_both_sides_are_statements_of_their_own() -> None:
    snomed = ["713427006", "59118001", "713426002", "164909002", "733534002"]
    shared = shared_statements(SCP, snomed)
    assert shared == {
        "CRBBB": [(SCP.index("CRBBB"),), (0, 1)],
        "IRBBB": [(SCP.index("IRBBB"),), (2,)],
        "CLBBB": [(SCP.index("CLBBB"),), (3, 4)],
    }


def test_equal_labels_outside_the_map_are_shared() -> None:
    assert shared_statements(["EL", "AFIB"], ["AF", "EL"]) == {
        "AFIB": [(1,), (0,)],
        "EL": [(0,), (1,)],
    }
    assert shared_statements(["CD", "HYP"], ["164889003"]) == {}


def test_sentences_in_any_case() -> None:
    assert shared_statements(["AFIB"], ["Atrial fibrillation"]) == {"AFIB": [(0,), (0,)]}
    assert codes_in(["age", "AF", "Left axis deviation", "STEMI"]) == ["AF", "Left axis deviation"]


def test_the_task_statements_of_a_table() -> None:
    frame = pd.DataFrame({"path": [f"{i}" for i in range(12)], "patient": range(12)})
    frame["AF"], frame["426177001"], frame["STEMI"] = 1, np.arange(12) % 2, 0
    cohort = open_cohort(frame, "statements")
    assert cohort.labels == ("SBRAD", "AFIB")
    assert cohort.counts().sum(axis=1).to_dict() == {"SBRAD": 6, "AFIB": 12}
    with pytest.raises(CohortError, match="STEMI"):
        open_cohort(frame, "statements", labels=["STEMI"])


def test_a_statement_with_an_unknown_part_is_unknown_unless_another_part_holds() -> None:
    gap = np.float32(np.nan)
    matrix = np.array([[1, gap, 0], [0, gap, 1], [0, 0, gap]], dtype=np.float32)
    expected = np.array([[1, 1], [gap, 0], [0, gap]], dtype=np.float32)
    expected[1, 1] = 1
    assert np.array_equal(any_of(matrix, [(0, 1), (0, 2)]), expected, equal_nan=True)
    assert any_of(matrix[:2], [(0, 2)]).dtype == np.uint8
