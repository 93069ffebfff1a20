"""The checklists are complete, and link to sections that a page has."""

from __future__ import annotations

import re

from einthoven.files import Json
from einthoven.report.checklists import CHECKLISTS
from einthoven.report.page import build_page

TRIPOD_AI, CLAIM = CHECKLISTS


def test_tripod_ai_has_27_items_and_52_with_their_parts() -> None:
    numbers = [item.number for item in TRIPOD_AI.items]
    assert len(numbers) == len(set(numbers)) == 52
    whole = [int(re.sub(r"[a-z]", "", number)) for number in numbers]
    assert whole == sorted(whole)
    assert set(whole) == set(range(1, 28))
    parts = {item: sum(number == item for number in whole) for item in set(whole)}
    several = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
    assert {item: count for item, count in parts.items() if count > 1} == several


def test_claim_has_44_items() -> None:
    assert [item.number for item in CLAIM.items] == [str(i) for i in range(1, 45)]


def test_every_item_is_filled_by_a_section_or_left_to_the_author() -> None:
    for checklist in CHECKLISTS:
        assert all(item.topic and (item.sections or item.author) for item in checklist.items)


def test_links_lead_to_sections_of_the_page(report: Json, evaluation: Json) -> None:
    keys = ("population", "curves", "calibration", "subgroups", "robustness")
    first, *others = report["runs"]
    first = first | {"evaluation": {key: evaluation[key] for key in keys}}
    html = build_page(report | {"runs": [first, *others]})
    sections = set(re.findall(r'<section id="([a-z]+)"', html))
    table = html[html.index("checklist-tripod-ai") :]
    assert set(re.findall(r'href="#([a-z]+)"', table)) <= sections
    named = {section for one in CHECKLISTS for item in one.items for section in item.sections}
    assert named <= sections | {"training", "errors"}


def test_an_absent_section_fills_nothing() -> None:
    everything = {s: s for item in TRIPOD_AI.items for s in item.sections}
    without = {key: name for key, name in everything.items() if key != "calibration"}
    assert TRIPOD_AI.filled(without) == TRIPOD_AI.filled(everything) - 2
    assert TRIPOD_AI.filled({}) == 0
    updating = next(row for row in TRIPOD_AI.table(without).cells if row[0] == "12f")
    assert "no such section" in str(updating[3])
