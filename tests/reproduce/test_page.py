"""Tables and figures of finished, half finished and untouched reproductions."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from einthoven.errors import ReproduceError
from einthoven.files import read_json
from einthoven.reproduce import published
from einthoven.reproduce.experiment import NO_PROBE, PLAIN, POST, Experiment, load_experiment
from einthoven.reproduce.grid import Run, targets_of
from einthoven.reproduce.page import with_section, write
from einthoven.reproduce.run import Reproduction
from einthoven.reproduce.tables import Section, value

BACKBONE = "mtecg_tiny_100hz"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def page(whole: Reproduction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished reproduction."""
    file = tmp_path_factory.mktemp("page") / "results.md"
    write(whole, "grid", file)
    return file


def numbers(page: Path, target: str) -> Any:
    return read_json(page.parent / "figures" / f"{target}--{BACKBONE}--tiny.json")


def text_of(page: Path, target: str, whose: str = f"backbone={BACKBONE} experiment=tiny") -> str:
    marker = f"<!-- reproduce:{target} {whose}"
    _, begin, rest = page.read_text().partition(f"{marker} begin -->")
    assert begin
    return rest.partition(f"{marker} end -->")[0]


def lines_of(text: str) -> list[list[str]]:
    """Cells of every table line."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_a_finished_page_is_complete(page: Path, tiny: Experiment) -> None:
    text = page.read_text()
    assert value(None) not in text
    assert all(group["auroc"] for group in numbers(page, "table-2")["groups"])
    assert not re.search(r"\n{3}", text)
    for target in targets_of(tiny):
        assert text_of(page, target).strip().startswith("### ")
        assert "SIMULATED" in text_of(page, target)
    linked = set(re.findall(r"\]\(figures/(.+?)\)", text))
    drawn = {file.name for file in (page.parent / "figures").glob("*.svg")}
    assert linked == drawn
    assert len(drawn) == 5
    for name in drawn:
        ElementTree.fromstring((page.parent / "figures" / name).read_text())


def test_the_same_runs_write_the_same_page(page: Path, whole: Reproduction, tmp_path: Path) -> None:
    again = tmp_path / "results.md"
    write(whole, "grid", again)
    assert again.read_text() == page.read_text()
    for file in (page.parent / "figures").iterdir():
        assert (tmp_path / "figures" / file.name).read_bytes() == file.read_bytes()


def test_table_2(page: Path, whole: Reproduction) -> None:
    table = numbers(page, "table-2")
    lines = lines_of(text_of(page, "table-2"))
    for group in table["groups"]:
        for index, seed in enumerate(group["auroc"]["seeds"]):
            run = Run(BACKBONE, group["variant"], group["task"], 1.0, seed)
            test = read_json(whole.folder(run) / "metrics.json")["test"]
            for metric in ("auroc", "auprc"):
                expected = test[f"macro_{metric}"]
                assert group[metric]["values"][index] == pytest.approx(expected, abs=1e-12)
    groups = {g["variant"]: g["auroc"] for g in table["groups"] if g["task"] == "all-71"}
    row = next(line for line in lines if line[:2] == ["all-71", f"`{POST}`"])
    assert row[2:5] == ["0, 1", value(groups[POST]), "0.945 (0.938 to 0.951)"]
    gains = [x for x in lines if x[0] == "all-71" and re.fullmatch("0|1|mean.* 2", x[1])]
    assert [line[1][0] for line in gains] == ["0", "1", "m"]
    gain = value(next(g for g in table["gains"] if g["task"] == "all-71")["auroc"], signed=True)
    assert [gains[2][column] for column in (2, 4, 8)] == [gain, "+5.2 %", "+34.9 %"]
    side = next(line for line in lines if line[:2] == ["macro AUROC", "all-71"])
    variants = ("scratch", PLAIN, "linear-probe", POST)
    assert side[2:] == [*(value(groups[variant]) for variant in variants), gain]
    strata = [entry for entry in table["by_frequency"] if entry["task"] == "all-71"]
    assert len(strata) > 1
    for entry in strata:
        difference = entry[f"auroc_{POST}"] - entry[f"auroc_{PLAIN}"]
        assert entry["auroc"]["mean"] == pytest.approx(difference, abs=1e-9)


def test_figures(page: Path, whole: Reproduction) -> None:
    figure_4 = numbers(page, "figure-4")["groups"]
    assert [(g["fraction"], g["variant"]) for g in figure_4] == [
        (share, variant) for share in (0.5, 1.0) for variant in (PLAIN, POST)
    ]
    assert figure_4[3]["published"] == {"auroc": 0.945, "auprc": 0.414}

    figure_5 = numbers(page, "figure-5")
    piece = next(entry for entry in figure_5["validation"] if entry["variant"] == NO_PROBE)
    metrics = read_json(whole.folder(Run(BACKBONE, NO_PROBE, "all-71", 1.0, 0)) / "metrics.json")
    assert piece["auroc"]["mean"] == pytest.approx(metrics["validation"]["macro_auroc"])
    assert piece["auprc_published_relative"] == -0.259
    corners = {entry["variant"] for entry in figure_5["test"]}
    assert corners == {"scratch", "scratch-post-training", PLAIN, POST}


def test_a_half_finished_reproduction(whole: Reproduction, tmp_path: Path) -> None:
    half = replace(whole, out=tmp_path / "half")
    for variant in (POST, PLAIN):
        run = Run(BACKBONE, variant, "all-71", 1.0, 0)
        shutil.copytree(whole.folder(run), half.folder(run))
    page = tmp_path / "results.md"
    write(half, "grid", page)
    text = text_of(page, "table-2")
    assert "2 of 10" in text
    assert ["superclass-5", f"`{POST}`", "–", value(None)] in [x[:4] for x in lines_of(text)]
    assert f"| `{NO_PROBE}` | – | {value(None)} |" in text_of(page, "figure-5")


def test_an_untouched_reproduction_changes_no_stored_section(
    whole: Reproduction, tmp_path: Path, page: Path
) -> None:
    nowhere = replace(whole, out=tmp_path / "none")
    copy = Path(shutil.copytree(page.parent, tmp_path / "docs")) / page.name
    write(nowhere, "grid", copy)
    assert text_of(copy, "table-2") == text_of(page, "table-2")
    new = tmp_path / "new.md"
    files = write(nowhere, "grid", new)
    assert [file.suffix for file in files[1:]] == [".json"] * 7
    assert value(None) in text_of(new, "table-2")
    assert not nowhere.out.joinpath("runs").exists()


def test_table_1(rows: Reproduction, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    write(rows, "table-1", page)
    whose = "experiment=rows"
    table = read_json(tmp_path / "figures" / "table-1--rows.json")
    text = text_of(page, "table-1", whose)
    lines = lines_of(text)
    names = [line[0] for line in lines]
    ours = names[names.index("resnet1d_wang") + 1]
    assert ours.startswith(f"**resnet1d_wang**, `{BACKBONE}`")
    assert names[names.index("ensemble of 7") + 1].startswith("**both**")
    assert set(published.AUROC) < set(names)
    assert "fcn_wang" not in names  # only on the leaderboard, and not a row
    entries = {row["name"]: row["tasks"]["all-71"] for row in table["rows"]}
    notes = {
        row["name"]: [bool(row[key]) for key in ("short_schedule", "our_reading", "changes")]
        for row in table["rows"]
    }
    assert notes["resnet1d_wang"] == [True, True, True]
    assert notes["both"] == [True, False, True]
    line = lines[names.index(ours)]
    assert line[1:3] == ["ours", value(entries["resnet1d_wang"]["auroc"])]
    gap = entries["plain one"]["post_trained_minus_this"]["auroc"]
    best = table["best_post_trained_on"]["all-71"]["auroc"]["mean"]
    assert gap["mean"] == pytest.approx(best - entries["plain one"]["auroc"]["mean"], abs=1e-9)
    detail = next(x for x in lines if x[0].startswith("**plain one**") and len(x) == 11)
    assert detail[5] == value(gap, signed=True)
    assert detail[7] == f"{entries['plain one']['cost']['parameters']:,}"
    assert str(rows.experiment.rows[0].our_reading) in text
    # Rows whose runs are gone keep their stored numbers.
    write(replace(rows, out=tmp_path / "none"), "table-1", page)
    assert read_json(tmp_path / "figures" / "table-1--rows.json") == table
    shown = {line[0]: line[1:] for line in lines_of(text_of(page, "table-1", whose))}
    assert shown[ours] == line[1:] or ours in shown


@pytest.mark.parametrize("name", ["peers-cpu", "ensemble-cpu"])
def test_the_documented_table_1_needs_no_runs(
    name: str, tmp_path: Path, whole: Reproduction
) -> None:
    """docs/results.md can be written again from docs/figures alone."""
    stored = DOCS / "figures" / f"table-1--{name}.json"
    (tmp_path / "figures").mkdir()
    shutil.copy(stored, tmp_path / "figures")
    page = Path(shutil.copy(DOCS / "results.md", tmp_path))
    bare = replace(whole, experiment=load_experiment(name), backbone="", out=tmp_path / "none")
    write(bare, "table-1", page)
    assert page.read_text() == (DOCS / "results.md").read_text()
    before, after = read_json(stored), read_json(tmp_path / "figures" / stored.name)
    assert after["best_post_trained"] == before["best_post_trained"]
    for old, new in zip(before["rows"], after["rows"], strict=True):
        assert new["tasks"] == old["tasks"], new["name"]


def test_markers() -> None:
    section = Section("table-2", "b", "e", "### New", {})
    begin, end = (
        f"<!-- reproduce:table-2 backbone=b experiment=e {x} -->" for x in ("begin", "end")
    )
    page = Path("page.md")
    assert with_section("# Page\n", section, page) == f"# Page\n\n{begin}\n### New\n{end}\n"
    old = f"Above.\n{begin}\nold\n{end}\nBelow.\n"
    assert with_section(old, section, page) == f"Above.\n{begin}\n### New\n{end}\nBelow.\n"
    for damaged in (begin, end, f"{end}\n{begin}", f"{begin}\n{begin}\n{end}"):
        with pytest.raises(ReproduceError, match="markers"):
            with_section(damaged, section, page)
