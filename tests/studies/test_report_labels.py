"""Labels from PTB-XL's reports against its statements."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "studies" / "report-labels"))

from check import agreement, share

PAGE = Path(__file__).parents[2] / "docs" / "labels.md"


def test_numbers_of_records(tmp_path: Path) -> None:
    file = tmp_path / "ptbxl_database.csv"
    file.write_text(
        "ecg_id,patient_id,strat_fold,report,scp_codes\n"
        "1,5.0,9,sinusrhythmus normales ekg,\"{'SR': 0.0}\"\n"
        "2,6.0,10,vorhofflimmern möglich,\"{'AFIB': 100.0, 'LVH': 0.0}\"\n"
        "3,7.0,8,vorhofflimmern,{'AFIB': 100.0}\n"
        "4,7.0,9,,{'AFIB': 100.0}\n"
        "5,7.0,9,vorhofflimmern,{'AFIB': 100.0}\n"
    )
    table = agreement(file, [9, 10], records=4)
    assert table.attrs["reports"] == 2
    assert {name: tuple(row) for name, row in table.iterrows()} == {
        "all": (3, 3, 2), "SR": (1, 1, 1), "AFIB": (1, 1, 1), "LVH": (1, 0, 0), "NORM": (0, 1, 0),
    }  # fmt: skip
    assert share(9, 10) == "0.90 (0.55 to 1.00)"
    assert not any(character.isdigit() for character in share(0, 0))


@pytest.mark.slow
def test_the_table_of_the_page(shared: Path) -> None:
    """PTB-XL's own reports; the patterns, the statements and the page belong together."""
    table = agreement(shared / "data" / "ptbxl" / "first500_database.csv", [9, 10])
    assert table.attrs["reports"] == 144
    page = PAGE.read_text()
    for name, (coded, found, both) in table.iterrows():
        shares = f"{share(both, found)} | {share(both, coded)}"
        assert f"| {name} | {coded} | {found} | {both} | {shares} |\n" in page
