"""The tables for a clinical reader."""

from __future__ import annotations

from einthoven.files import Json
from einthoven.report.clinical import population_table
from einthoven.report.description import UNKNOWN


def test_table_1_has_a_column_for_every_split_and_says_what_is_not_recorded(
    evaluation: Json,
) -> None:
    table = population_table(evaluation["population"])
    assert table.head == ["", "Test", "All"]
    rows = {str(cells[0]): [str(cell) for cell in cells[1:]] for cells in table.cells}
    assert rows["Records"] == ["120", "120"]
    assert rows["Age, years"] == ["61.5 (47 to 72.25)"] * 2
    assert rows["Sex: missing"] == ["30 (25.0 %)"] * 2
    assert rows["Device"] == [UNKNOWN] * 2
    assert rows["Label ISC_"] == ["6 (5.0 %)"] * 2


def test_many_devices_are_cut_and_the_others_counted(evaluation: Json) -> None:
    entry = {"records": 1, "share": 0.05}
    devices = {f"D{i:02d}": entry for i in range(20)}
    part = evaluation["population"]["parts"]["all"] | {"device": devices}
    table = population_table(evaluation["population"] | {"parts": {"all": part}})
    names = [str(cells[0]) for cells in table.cells if str(cells[0]).startswith("Device")]
    assert len(names) == 9
    assert "12 others" in names[-1]
