"""All of it, into a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from einthoven.errors import ReproduceError
from einthoven.reproduce.pitfalls import selection
from einthoven.reproduce.pitfalls.material import Material, cohort_for
from einthoven.reproduce.pitfalls.measure import gather, measure
from einthoven.reproduce.pitfalls.page import command, section
from einthoven.reproduce.sections import write_sections
from einthoven.signals.store import Store


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "EPOCHS", 12)
    monkeypatch.setattr(selection, "HALVINGS", 6)


def test_every_pitfall_is_measured_and_written_between_markers(
    material: Material, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    found = measure(material, kernels=2, progress=lambda *said: told.append(said))
    assert [each.key for each in found] == [
        "likelihood", "empty-rows", "versions", "undefined", "records", "windows",
        "windows-joined", "selection", "standardiser", "thresholds", "trapezoid",
    ]  # fmt: skip
    assert told[-1] == ("pitfalls", 11, 11)
    page = tmp_path / "protocol.md"
    page.write_text("# By hand\n\nAbove.\n")
    written = section(material, found, command(own_model=True))
    write_sections(page, [written])
    text = page.read_text()
    assert text.startswith("# By hand\n\nAbove.\n")
    begin, end = written.markers
    assert text.count(begin) == text.count(end) == 1
    assert "einthoven reproduce pitfalls --cohort data/ptb-xl --model RUN" in text
    assert str(material.cohort.root) not in text
    for each in found:
        assert f"### {each.title}" in text
        assert set(each.headlines) <= {effect.what for effect in each.effects}
    numbers = json.loads((tmp_path / "figures" / f"{written.name}.json").read_text())
    effect = numbers["records"]["effects"][0]
    assert effect["difference"] == pytest.approx(effect["wrong"] - effect["right"])
    write_sections(page, [written])
    assert page.read_text() == text


def test_what_is_no_model_is_refused(synthetic_path: Path, synthetic_store: Store) -> None:
    with pytest.raises(ReproduceError, match="neither a finished run nor a bundle"):
        gather(synthetic_path, synthetic_store, model=synthetic_path)


def test_a_model_of_other_labels_is_refused(material: Material, synthetic_store: Store) -> None:
    class Other:
        labels = ("LBBB", "NORM")

    with pytest.raises(ReproduceError, match="LBBB"):
        cohort_for(material.cohort.root, synthetic_store, Other())  # type: ignore[arg-type]
