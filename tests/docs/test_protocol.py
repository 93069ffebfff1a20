"""`docs/protocol.md`: its numbers are those of its JSON file, and it contains no local paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from einthoven.files import read_json

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "protocol.md").read_text()


@pytest.fixture(scope="module")
def section(page: str) -> str:
    begin, end = (
        f"<!-- reproduce:pitfalls backbone=einthoven-small experiment=protocol {each} -->"
        for each in ("begin", "end")
    )
    assert page.count(begin) == page.count(end) == 1
    return page[page.index(begin) : page.index(end)]


def test_every_number_of_the_file_is_on_the_page(section: str) -> None:
    numbers = read_json(DOCS / "figures" / "pitfalls--einthoven-small--protocol.json")
    assert len(numbers) == 11
    for key, finding in numbers.items():
        assert f"### {finding['title']}" in section
        for effect in finding["effects"]:
            assert f"{effect['wrong']:.4f}" in section, effect["what"]
            if key != "likelihood":  # its own table has the differences of AUROC alone
                assert f"{round(effect['difference'], 4) + 0.0:+.4f}" in section, effect["what"]
        for line in finding["table"]:
            assert all(cell in section for cell in line.values())


def test_the_command_is_printed_and_no_folder_of_its_maker(page: str) -> None:
    assert "python studies/pitfalls/run.py --cohort data/ptb-xl" in page
    assert not re.search(r"/(work|home|root|tmp|Users)/", page)
