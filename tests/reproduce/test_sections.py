"""Only what stands between our markers is ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from einthoven.errors import ReproduceError
from einthoven.reproduce.sections import Section, standalone, table, write_sections


def section(text: str = "### Table\n\n| a |", backbone: str = "s4") -> Section:
    drawing = '<svg style="stroke: none"><path style="fill: none" /></svg>'
    return Section("table-2", backbone, "x", text, {"f.svg": drawing}, {"value": float("nan")})


def test_a_new_page_is_made(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results.md"
    written = write_sections(page, [section()])
    assert written == [
        page,
        page.parent / "figures" / "f.svg",
        page.parent / "figures" / "table-2--s4--x.json",
    ]
    assert page.read_text() == (
        "# Reproduction\n\n"
        "<!-- reproduce:table-2 backbone=s4 experiment=x begin -->\n"
        "### Table\n\n| a |\n"
        "<!-- reproduce:table-2 backbone=s4 experiment=x end -->\n"
    )
    assert json.loads(written[2].read_text()) == {"value": None}


def test_what_others_wrote_stays(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    begin, end = section().markers
    before, after = "# Ours\n\nBy hand, *twice*.\n\n", "\n\n## After\n\nmore\n\n\n"
    page.write_text(f"{before}{begin}\nold\n{end}{after}")
    write_sections(page, [section("new")])
    assert page.read_text() == f"{before}{begin}\nnew\n{end}{after}"
    write_sections(page, [section("new")])
    assert page.read_text() == f"{before}{begin}\nnew\n{end}{after}"


def test_sections_of_other_backbones_stand_beside_each_other(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    write_sections(page, [section("one"), section("two", "vit")])
    write_sections(page, [section("three", "vit")])
    text = page.read_text()
    assert text.index("one") < text.index("three")
    assert "two" not in text
    assert text.count("begin -->") == 2


@pytest.mark.parametrize("order", [(0,), (1,), (1, 0), (0, 0, 1)])
def test_damaged_markers_are_refused_and_nothing_is_written(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    page = tmp_path / "results.md"
    text = "\n".join(section().markers[i] for i in order) + "\nby hand\n"
    page.write_text(text)
    with pytest.raises(ReproduceError, match="markers"):
        write_sections(page, [section()])
    assert page.read_text() == text
    assert not (tmp_path / "figures").exists()


def test_a_drawing_of_its_own_is_black_on_white() -> None:
    drawing = standalone('<svg style="stroke: none"><path style="fill: none" /></svg>')
    assert drawing.count("background") == 1
    assert drawing.startswith('<svg style="color: #111; background: #fff; stroke: none">')


def test_a_table() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
