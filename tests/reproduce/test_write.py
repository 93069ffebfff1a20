"""Tables and figures of finished, half finished and untouched reproductions."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from einthoven.files import read_json
from einthoven.report.format import number
from einthoven.reproduce.claims import claim
from einthoven.reproduce.drawings import mean_curve
from einthoven.reproduce.evidence import Evidence, Group
from einthoven.reproduce.experiments import OURS, PLAIN, PROBE
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import Cell, cells_of, only
from einthoven.reproduce.tables import table_2
from einthoven.reproduce.wording import command, narrowed
from einthoven.reproduce.write import SECTIONS, write

BACKBONE = "mtecg_tiny_100hz"
ARMS = (OURS, PLAIN, PROBE)


@pytest.fixture(scope="module")
def page(whole: Request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished reproduction."""
    file = tmp_path_factory.mktemp("page") / "results.md"
    write(whole, "grid", file)
    return file


def numbers(page: Path, what: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(page.parent / "figures" / f"{what}--{BACKBONE}--tiny.json")
    return found


def section(page: Path, what: str) -> str:
    marker = f"<!-- reproduce:{what} backbone={BACKBONE} experiment=tiny"
    _, begin, rest = page.read_text().partition(f"{marker} begin -->")
    assert begin
    return rest.partition(f"{marker} end -->")[0]


def copied(whole: Request, out: Path, *cells: Cell) -> Request:
    """A reproduction in which only these cells are finished."""
    for cell in cells:
        shutil.copytree(whole.run_folder(cell), out / "runs" / cell.key)
    shared = whole.pretraining(cells[0])
    shutil.copytree(shared, out / "shared" / shared.name)
    return replace(whole, out=out)


def test_everything_is_there(page: Path, whole: Request) -> None:
    text = page.read_text()
    assert "not run yet" not in text
    assert "not finished" not in text
    for what in SECTIONS:
        assert section(page, what).strip().startswith("### ")
    linked = set(re.findall(r"\]\(figures/(.+?)\)", text))
    drawn = {file.name for file in (page.parent / "figures").glob("*.svg")}
    assert linked == drawn
    assert len(drawn) == 5
    for name in drawn:
        ElementTree.fromstring((page.parent / "figures" / name).read_text())
    assert (whole.out / "report.html").is_file()
    made_by, again = read_json(whole.out / "report.json")["commands"]
    assert made_by == command(whole, "grid", exact=True)
    assert again.startswith("einthoven report ")


def test_table_2_holds_the_runs_numbers(page: Path, whole: Request) -> None:
    text, found = section(page, "table-2"), numbers(page, "table-2")
    for seed in (0, 1):
        cell = Cell(BACKBONE, OURS, "all-71", 1.0, seed)
        own = read_json(whole.run_folder(cell) / "metrics.json")["test"]["macro_auroc"]
        group = next(g for g in found["groups"] if g["arm"] == OURS and g["task"] == "all-71")
        assert group["auroc"]["values"][seed] == pytest.approx(own, abs=1e-12)
    mean = group["auroc"]["mean"]
    row = next(line for line in text.splitlines() if "| all-71 | `post-training` | 0, 1 |" in line)
    assert f"{mean:.4f} ± " in row
    assert "0.945 (0.938 to 0.951)" in row
    lines = [line for line in text.splitlines() if line.startswith("| all-71 | ")]
    gains = [line for line in lines if line.count("|") == 11]  # and not the recipes' own lines
    assert [line.split(" | ")[1] for line in gains] == ["0", "1", "mean of 2"]
    assert "+5.2 %" in gains[2]
    assert "+34.9 %" in gains[2]
    (task,) = [g for g in found["gains"] if g["task"] == "all-71"]
    assert number(task["auroc"]["mean"], signed=True, places=4) in gains[2]
    assert len(task["comparison"]["auroc"]["per_label"]) == len(
        read_json(whole.run_folder(cell) / "run.json")["request"]["labels"]
    )


def test_table_2_tells_rare_labels_from_common_ones(page: Path) -> None:
    text, strata = section(page, "table-2"), numbers(page, "table-2")["by_frequency"]
    assert len([each for each in strata if each["task"] == "all-71"]) > 1
    for each in strata:
        ends = f"{each['low']} to {each['high']}" if each["high"] else f"{each['low']} and more"
        begins = f"| {each['task']} | {ends} | {len(each['labels'])} | "
        (row,) = [line for line in text.splitlines() if line.startswith(begins)]
        for metric in ("auroc", "auprc"):
            assert f"| {number(each[metric]['mean'], signed=True, places=4)}" in row


def side_by_side(text: str) -> list[list[str]]:
    """Lines of the table of every recipe on every task, cell by cell."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return cells[[line[0] for line in cells].index("metric") :]


def test_table_2_sets_every_recipe_beside_the_pair(page: Path, whole: Request) -> None:
    head, *lines = side_by_side(section(page, "table-2"))
    arms = ["scratch", PLAIN, "linear-probe", OURS]
    assert head[2:] == [*(f"`{arm}`" for arm in arms), f"`{OURS}` minus `{PLAIN}`"]
    assert [line[:2] for line in lines[1:]] == [
        [metric, task]
        for metric in ("macro AUROC", "macro AUPRC")
        for task in ("all-71", "superclass-5")
    ]
    found = numbers(page, "table-2")
    for metric, rows in (("auroc", lines[1:3]), ("auprc", lines[3:])):
        for task, row in zip(("all-71", "superclass-5"), rows, strict=True):
            for arm, text in zip(arms, row[2:6], strict=True):
                (group,) = [g for g in found["groups"] if (g["arm"], g["task"]) == (arm, task)]
                cell = Cell(BACKBONE, arm, task, 1.0, 0)
                own = read_json(whole.run_folder(cell) / "metrics.json")["test"]
                assert group[metric]["values"][0] == pytest.approx(
                    own[f"macro_{metric}"], abs=1e-12
                )
                low, high = group[metric]["interval"]
                assert text.startswith(f"{group[metric]['mean']:.4f}")
                assert text.endswith(f" ({low:.4f} to {high:.4f})")
            (paired,) = [g[metric] for g in found["gains"] if g["task"] == task]
            assert row[6].startswith(number(paired["mean"], signed=True, places=4))


def test_table_2_says_which_of_its_recipes_are_no_part_and_which_are_not_run(
    whole: Request, tmp_path: Path
) -> None:
    experiment = whole.experiment.model_copy(update={"table_arms_on": ("all-71",)})
    finished = [Cell(BACKBONE, arm, "all-71", 1.0, 0) for arm in (OURS, PLAIN, "scratch")]
    request = copied(replace(whole, experiment=experiment), tmp_path / "some", *finished)
    text = table_2(Evidence(request)).text
    lines = {tuple(line[:2]): line[2:] for line in side_by_side(text)}
    scratch, plain, probe, ours, paired = lines["macro AUROC", "all-71"]
    assert probe == "not run yet"
    assert all(each[:2] == "0." for each in (scratch, plain, ours))
    assert paired[0] in "+−"
    assert lines["macro AUPRC", "superclass-5"] == [
        "–", "not run yet", "–", "not run yet", "not run yet",
    ]  # fmt: skip
    assert "5 of 8 runs are not finished. " in " ".join(text.split())
    assert command(request, "table-2") in text


def test_table_2_of_the_pair_alone_is_the_paper_s(whole: Request) -> None:
    experiment = whole.experiment.model_copy(update={"table_arms": (PLAIN, OURS)})
    found = table_2(Evidence(replace(whole, experiment=experiment)))
    assert "`scratch`" not in found.text
    assert "\n| metric" not in found.text
    assert {group["arm"] for group in found.numbers["groups"]} == {PLAIN, OURS}
    assert not re.search(r"\n{3}", found.text.strip())


def test_figure_2_counts_labels(page: Path, whole: Request) -> None:
    found = numbers(page, "figure-2")["comparison"]["auroc"]
    differences = [each["difference"] for each in found["per_label"].values()]
    higher = sum(each > 0 for each in differences)
    assert f"AUROC is higher for {higher} of {len(differences)} labels" in " ".join(
        section(page, "figure-2").split()
    )


def test_figure_3_says_when_post_training_passes(page: Path) -> None:
    found = numbers(page, "figure-3")
    curves = {
        arm: mean_curve([run["epochs"] for run in runs], "macro_auroc")
        for arm, runs in found["histories"].items()
    }
    assert [run["seed"] for run in found["histories"][OURS]] == [0, 1]
    passes = curves[OURS][0] > curves[PLAIN][0]
    assert found["passes_reference_in_epoch"]["auroc"] == (1 if passes else None)


def test_figure_4_has_a_row_for_every_share(page: Path) -> None:
    found = numbers(page, "figure-4")["groups"]
    assert [(g["fraction"], g["arm"]) for g in found] == [
        (0.5, PLAIN), (0.5, OURS), (1.0, PLAIN), (1.0, OURS),
    ]  # fmt: skip
    assert found[3]["published"] == {"auroc": 0.945, "auprc": 0.414}


def test_figure_5_is_on_validation_and_its_corners_on_test(page: Path, whole: Request) -> None:
    found = numbers(page, "figure-5")
    by_arm = {each["arm"]: each for each in found["validation"]}
    cell = Cell(BACKBONE, "without-probe", "all-71", 1.0, 0)
    own = read_json(whole.run_folder(cell) / "metrics.json")
    assert by_arm[cell.arm]["auroc"]["mean"] == pytest.approx(own["validation"]["macro_auroc"])
    assert by_arm[cell.arm]["auprc_published_relative"] == -0.259
    assert by_arm[cell.arm]["auroc_difference"]["seeds"] == [0]
    corners = {each["arm"]: each["auroc"]["mean"] for each in found["test"]}
    assert set(corners) == {"scratch", "scratch-post-training", PLAIN, OURS}
    cell = replace(cell, arm="scratch")
    own = read_json(whole.run_folder(cell) / "metrics.json")
    assert corners["scratch"] == pytest.approx(own["test"]["macro_auroc"])


def test_a_half_finished_reproduction_has_partial_tables(whole: Request, tmp_path: Path) -> None:
    cells = [Cell(BACKBONE, arm, "all-71", 1.0, 0) for arm in (OURS, PLAIN)]
    request = copied(whole, tmp_path / "half", *cells)
    page = tmp_path / "results.md"
    write(request, "grid", page)
    text = section(page, "table-2")
    assert "| all-71 | `post-training` | 0 (1 of 2) | 0." in text
    assert "| superclass-5 | `post-training` | – | not run yet |" in text
    flat = " ".join(text.split())
    assert "8 of 10 runs are not finished. " in flat
    assert command(request, "table-2") in text
    assert "| `without-probe` | – | not run yet |" in section(page, "figure-5")
    assert "| random | macro AUROC | not run yet | not run yet | not run yet |" in section(
        page, "figure-5"
    )
    assert "not finished" in section(page, "figure-4")


def test_a_section_s_command_runs_what_the_section_counts(whole: Request, tmp_path: Path) -> None:
    """The table of every recipe is of one task; its command is not of the whole grid."""
    request = replace(whole, out=tmp_path / "none")
    page = tmp_path / "results.md"
    write(request, "grid", page)
    for what in SECTIONS:
        text = section(page, what)
        (said,) = re.findall(r"(\d+) of (\d+) runs are not finished\. ", text.replace("\n", " "))
        line, *_ = re.findall(rf"^    (einthoven reproduce {what} .*)$", text, re.MULTILINE)
        filters = [each.strip("'") for each in re.findall(r"--only (\S+)", line)]
        runs = only(cells_of(what, request.experiment, BACKBONE), filters)
        assert (str(len(runs)), str(len(runs))) == said, what
    assert "--only task=all-71" in section(page, "grid")
    assert "--only" not in section(page, "table-2")


def test_cells_that_no_filter_tells_apart(whole: Request) -> None:
    """Then the command is the whole one, with its own number of runs."""
    cells = cells_of("table-2", whole.experiment, BACKBONE)
    corners = [each for each in cells if (each.task == "all-71") == (each.arm == PLAIN)]
    assert narrowed(whole, "table-2", corners) == ([], len(cells))
    assert narrowed(whole, "table-2", cells) == ([], len(cells))
    seed = [each for each in cells if each.seed == 1]
    filters, runs = narrowed(whole, "table-2", seed)
    assert set(only(cells, filters[1::2])) == set(seed)
    assert runs == len(seed)


def test_how_far_a_run_is_is_nothing_for_a_page(whole: Request, tmp_path: Path) -> None:
    """It is over by the time a page is read; what failed, or is another request's, is not."""
    ours, plain, probe = (Cell(BACKBONE, arm, "all-71", 1.0, 0) for arm in ARMS)
    request = copied(whole, tmp_path / "some", ours)
    begun = request.run_folder(plain)
    begun.mkdir(parents=True)
    shutil.copy(whole.run_folder(plain) / "run.json", begun)
    request.failure(probe).parent.mkdir()
    request.failure(probe).write_text("{}")
    with claim(request.claims, Cell(BACKBONE, "scratch", "all-71", 1.0, 0).key):
        evidence = Evidence(request)
        flat = " ".join(table_2(evidence).text.split())
    assert evidence.state(plain) is State.PARTIAL
    assert State.RUNNING in evidence._states.values()
    assert "9 of 10 runs are not finished (1 failed). " in flat
    assert not re.search("running|partial|missing", flat)


def test_an_untouched_reproduction_says_so_everywhere(whole: Request, tmp_path: Path) -> None:
    request = replace(whole, out=tmp_path / "none")
    page = tmp_path / "results.md"
    written = write(request, "grid", page)
    for what in SECTIONS:
        assert "not run yet" in section(page, what).lower(), what
        assert f"einthoven reproduce {what} --cohort " in section(page, what)
    assert not list((tmp_path / "figures").glob("*.svg"))
    assert not request.out.exists()
    assert [file.suffix for file in written[1:]] == [".json"] * 7


def test_runs_of_another_request_are_named(whole: Request, tmp_path: Path) -> None:
    experiment = whole.experiment.model_copy(update={"schedule": ("stage2.epochs=5",)})
    page = tmp_path / "results.md"
    write(replace(whole, experiment=experiment), "table-2", page)
    assert "(10 other)" in " ".join(page.read_text().split())
    assert "another --out" in " ".join(page.read_text().split())


def test_the_same_runs_write_the_same_page(page: Path, whole: Request, tmp_path: Path) -> None:
    again = tmp_path / "results.md"
    write(whole, "grid", again)
    assert again.read_text() == page.read_text()
    for file in (page.parent / "figures").iterdir():
        assert (tmp_path / "figures" / file.name).read_bytes() == file.read_bytes()


def test_group_cells_follow_the_experiment(whole: Request) -> None:
    cells = Evidence(whole).cells(Group(BACKBONE, OURS, "all-71"))
    assert [cell.seed for cell in cells] == [0, 1]
    assert json.dumps([cell.key for cell in cells])
