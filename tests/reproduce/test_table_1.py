"""Table 1 of finished, half finished and untouched rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest

from einthoven.errors import ReproduceError
from einthoven.evaluate import compare
from einthoven.evaluate.scores import score_predictions
from einthoven.files import read_json, read_lines, write_json
from einthoven.models import load_model
from einthoven.predictions import Predictions
from einthoven.report.format import number
from einthoven.reproduce import published
from einthoven.reproduce.costs import cost_of
from einthoven.reproduce.evidence import Ensemble, Evidence, Group
from einthoven.reproduce.experiments import OURS, PLAIN, SCRATCH, Row
from einthoven.reproduce.folders import Request
from einthoven.reproduce.grid import Cell, cells_of
from einthoven.reproduce.run import Runner
from einthoven.reproduce.sections import Section
from einthoven.reproduce.table_1 import BEST, table_1
from einthoven.reproduce.write import write

BACKBONE = "mtecg_tiny_100hz"


def main_group(arm: str) -> Group:
    return Group(BACKBONE, arm, "all-71")


def rows_of(text: str, heading: str = "### Table 1") -> dict[str, list[str]]:
    """Lines of the first table below a heading, by their first cell."""
    below = text[text.index(heading) :].split("\n\n| ")[1]
    lines = [line.strip("| ").split(" | ") for line in below.split("\n\n")[0].splitlines()]
    return {line[0]: line[1:] for line in lines}


@pytest.fixture(scope="module")
def request_(rows: Request) -> Request:
    return rows


@pytest.fixture(scope="module")
def evidence(request_: Request) -> Evidence:
    return Evidence(request_)


@pytest.fixture(scope="module")
def section(evidence: Evidence) -> Section:
    return table_1(evidence)


def numbers(section: Section, row: str, task: str = "all-71") -> dict[str, Any]:
    (found,) = [each for each in section.numbers["rows"] if each["name"] == row]
    values: dict[str, Any] = found["tasks"][task]
    return values


def predictions(request_: Request, arm: str, seed: int) -> Predictions:
    folder = request_.run_folder(main_group(arm).cell(seed))
    return Predictions.load(folder / "predictions" / "test.parquet")


def test_the_paper_s_table_with_ours_below(section: Section) -> None:
    lines = rows_of(section.text)
    names = list(lines)
    assert names[0] == "row"
    assert lines["row"] == ["whose", "all-71", "superclass-5"]
    assert lines["resnet1d_wang"] == ["published", "0.919(08)", "0.930(05)"]
    ours = f"**resnet1d_wang**, `{BACKBONE}` † ‡ §"
    assert names[names.index("resnet1d_wang") + 1] == ours
    assert lines[ours][1].startswith(f"{numbers(section, 'resnet1d_wang')['auroc']['mean']:.4f} (")
    assert names[names.index("ensemble of 7") + 1] == "**both** † §"
    assert names[-2:] == [f"**plain one**, `{BACKBONE}` † §", BEST]
    assert set(published.AUROC) < set(names)
    assert "fcn_wang" not in names  # of the leaderboard, and nobody asked for it


def test_marks_have_their_notes(section: Section) -> None:
    flat = " ".join(section.text.split())
    assert (
        "resnet1d_wang: 1 of 8 epochs; plain one: 1 of 8 epochs; both: 2 of its 2 members." in flat
    )
    assert "leave much open. resnet1d_wang: made up for this test." in flat
    assert f"all-71 `post-training` of `{BACKBONE}`, seeds 0, 1 (" in flat


def test_each_task_in_full(section: Section, evidence: Evidence) -> None:
    lines = rows_of(section.text, "#### all-71")
    assert set(lines) - {"row", "---"} == {
        f"{BEST}, `{BACKBONE}`", f"**resnet1d_wang**, `{BACKBONE}` † ‡ §",
        f"**plain one**, `{BACKBONE}` † §", "**both** † §",
    }  # fmt: skip
    head, best = lines["row"], lines[f"{BEST}, `{BACKBONE}`"]
    assert best[head.index("post-trained minus row, AUROC")] == "–"
    plain = dict(zip(head, lines[f"**plain one**, `{BACKBONE}` † §"], strict=True))
    assert (plain["seeds"], plain["published"]) == ("0, 1", "–")
    found = numbers(section, "plain one")
    assert plain["macro AUPRC"].startswith(f"{found['auprc']['mean']:.4f} ± ")
    minus = found["post_trained_minus_this"]["auroc"]
    assert plain["post-trained minus row, AUROC"].startswith(
        f"{number(minus['mean'], signed=True, places=4)} ("
    )
    assert plain["parameters"] == f"{found['cost']['parameters']:,}"
    assert plain["trained on"] == "CPU, 1 thread"
    assert "not finished" not in section.text
    assert "--only" not in section.text


def test_a_row_s_value_is_its_run_s(section: Section, request_: Request) -> None:
    folder = request_.run_folder(Cell(BACKBONE, SCRATCH, "superclass-5", 1.0, 0))
    own = read_json(folder / "metrics.json")["test"]
    found = numbers(section, "resnet1d_wang", "superclass-5")
    for metric in ("auroc", "auprc"):
        assert found[metric]["mean"] == pytest.approx(own[f"macro_{metric}"], abs=1e-12)
        assert found[metric]["interval"] == pytest.approx(own[f"macro_{metric}_interval"])
    assert found["published"]["value"] == 0.930


def test_an_ensemble_is_its_members_mean_seed_by_seed(
    section: Section, request_: Request, evidence: Evidence
) -> None:
    """Scratch has one seed, so that it is all that they share."""
    ensemble = Ensemble((main_group(PLAIN), main_group(SCRATCH)))
    assert evidence.finished(ensemble) == (0,)
    members = [predictions(request_, arm, 0) for arm in (PLAIN, SCRATCH)]
    average = replace(members[0], probabilities=np.mean([m.probabilities for m in members], axis=0))
    expected = score_predictions(average, resamples=20)
    found = numbers(section, "both")
    assert found["auroc"]["mean"] == pytest.approx(expected.macro_auroc, abs=1e-12)
    assert found["auprc"]["interval"] == pytest.approx(expected.macro_auprc_interval, abs=1e-12)
    single = [cost_of(evidence, main_group(arm)) for arm in (PLAIN, SCRATCH)]
    assert all(single)
    assert found["cost"]["parameters"] == sum(each.parameters or 0 for each in single if each)
    assert found["cost"]["rate"] is None


def test_the_lead_is_of_means_on_the_same_resamples(
    section: Section, request_: Request, evidence: Evidence
) -> None:
    """Two seeds of post-training against one of scratch: the mean of both pairs."""
    absent = str(evidence._grounds["all-71", "test"].plan.undefined_labels)
    pairs = [
        compare(
            predictions(request_, OURS, seed), predictions(request_, SCRATCH, 0),
            resamples=20, undefined_labels=absent,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    found = numbers(section, "resnet1d_wang")["post_trained_minus_this"]["auroc"]
    assert (found["seeds"], found["other_seeds"]) == ([0, 1], [0])
    assert found["mean"] == pytest.approx(mean(each.auroc.macro for each in pairs), abs=1e-12)
    low, high = found["interval"]
    assert low < high
    same = evidence.gap(main_group(PLAIN), main_group(PLAIN), "auroc")
    assert same is not None
    assert (same.mean, same.interval) == (0.0, (0.0, 0.0))


def test_one_seed_s_lead_is_compare_s(request_: Request, evidence: Evidence) -> None:
    expected = compare(
        predictions(request_, SCRATCH, 0), predictions(request_, "linear-probe", 0),
        resamples=20,
        undefined_labels=str(evidence._grounds["all-71", "test"].plan.undefined_labels),
    )  # fmt: skip
    found = evidence.gap(main_group(SCRATCH), main_group("linear-probe"), "auprc")
    assert found is not None
    assert found.mean == pytest.approx(expected.auprc.macro, abs=1e-12)
    assert found.interval == pytest.approx(expected.auprc.macro_interval, abs=1e-12)


def test_costs_are_what_the_runs_recorded(request_: Request, evidence: Evidence) -> None:
    found = cost_of(evidence, main_group(PLAIN))
    assert found is not None
    folders = [request_.run_folder(main_group(PLAIN).cell(seed)) for seed in (0, 1)]
    assert found.seconds == mean(read_json(f / "metrics.json")["seconds"] for f in folders)
    rates = [read_lines(f / "stage2" / "metrics.jsonl")[0]["samples_per_second"] for f in folders]
    assert found.rate == pytest.approx(mean(rates))
    classifier = load_model(folders[0] / "model").classifier
    assert found.parameters == sum(each.numel() for each in classifier.parameters())
    probe = cost_of(evidence, main_group("linear-probe"))
    assert probe is not None
    assert probe.rate is None


def test_a_run_of_an_earlier_version_is_counted(request_: Request, tmp_path: Path) -> None:
    """It recorded neither parameters nor device; a bundle that is no longer read says nothing."""
    cell = Cell(BACKBONE, SCRATCH, "all-71", 1.0, 0)
    folder = tmp_path / "runs" / cell.key
    shutil.copytree(request_.run_folder(cell), folder)
    recorded = read_json(folder / "metrics.json")
    kept = {key: recorded[key] for key in recorded.keys() - {"parameters", "device"}}
    write_json(folder / "metrics.json", kept)
    old = Evidence(replace(request_, out=tmp_path))
    found = cost_of(old, main_group(SCRATCH))
    assert found is not None
    assert found.parameters == recorded["parameters"]
    assert found.device == read_json(folder / "run.json")["environment"]["machine"]
    (folder / "model" / "model.safetensors").write_bytes(b"of another version")
    damaged = cost_of(old, main_group(SCRATCH))
    assert damaged is not None
    assert damaged.parameters is None


def test_rows_that_are_not_run_say_so_and_name_their_commands(
    request_: Request, tmp_path: Path
) -> None:
    done = Cell(BACKBONE, SCRATCH, "all-71", 1.0, 0)
    request = replace(request_, out=tmp_path / "half")
    shutil.copytree(request_.run_folder(done), request.run_folder(done))
    section = table_1(Evidence(request))
    full = rows_of(section.text, "#### all-71")
    assert full[f"**plain one**, `{BACKBONE}` † §"] == [
        "–", "–", "not run yet", "not run yet", "–", "–", "–", "–", "–", "–",
    ]  # fmt: skip
    assert full["**both** † §"][2] == "not run yet"
    flat = " ".join(section.text.split())
    assert "No finished post-training run is known" in flat
    assert "No row is run yet on superclass-5." in flat
    assert "4 of 5 runs are not finished" in flat
    late = [line for line in section.text.splitlines() if " --only " in line and "    " in line]
    assert [line.partition(" --only ")[2] for line in late] == [
        "row=resnet1d_wang", "'row=plain one'", "row=both",
    ]  # fmt: skip
    assert section.numbers["best_post_trained"] == {}


def test_post_trained_models_of_another_folder_are_held_against(
    request_: Request, tmp_path: Path
) -> None:
    done = Cell(BACKBONE, SCRATCH, "all-71", 1.0, 0)
    alone = replace(request_, out=tmp_path / "alone", against=(request_.out,))
    shutil.copytree(request_.run_folder(done), alone.run_folder(done))
    section = table_1(Evidence(alone))
    beside = numbers(table_1(Evidence(request_)), "resnet1d_wang")
    assert (
        numbers(section, "resnet1d_wang")["post_trained_minus_this"]
        == (beside["post_trained_minus_this"])
    )
    assert set(section.numbers["best_post_trained"]) == {"all-71", "superclass-5"}


def test_the_pair_is_held_against_the_best_where_that_is_another(whole: Request) -> None:
    """By default the rows are plain fine-tuning and post-training, which is the best here."""
    section = table_1(Evidence(whole))
    lines = rows_of(section.text)
    names = list(lines)
    assert names[names.index("Transformer-FM-PT") + 1] == f"**post-training**, `{BACKBONE}` † §"
    assert names[names.index("Transformer-FM") + 1] == f"**plain fine-tuning**, `{BACKBONE}` † §"
    assert BEST not in names
    assert section.numbers["best_post_trained_on"] == {}
    assert numbers(section, "post-training")["post_trained_minus_this"] == {}
    assert set(numbers(section, "plain fine-tuning")["post_trained_minus_this"]) == {
        "auroc", "auprc",
    }  # fmt: skip


def test_rows_are_data(whole: Request) -> None:
    rows = (
        Row(name="MULTIRESNET (ours)", backbone="a_peer", arm="scratch", published="MULTIRESNET"),
        Row(name="from nothing", arm="scratch"),
    )
    experiment = whole.experiment.model_copy(update={"rows": rows})
    lines = rows_of(table_1(Evidence(replace(whole, experiment=experiment))).text)
    names = list(lines)
    ours = "**MULTIRESNET (ours)**, `a_peer` † §"
    assert names[names.index("MULTIRESNET") + 1] == ours
    assert lines[ours][1:] == ["not run yet", "not run yet"]
    assert lines[f"**from nothing**, `{BACKBONE}` † §"][1].startswith("0.")


def test_a_page_of_rows_alone(request_: Request, tmp_path: Path) -> None:
    """Without a backbone in its markers; every section that the experiment makes is this one."""
    request = replace(request_, out=tmp_path / "out", against=(request_.out,))
    for name in ("table-1", "grid"):
        written = write(request, name, tmp_path / "page.md")
        assert [file.name for file in written] == ["page.md", "table-1--rows.json"]
    text = (tmp_path / "page.md").read_text()
    assert text.count("<!-- reproduce:table-1 experiment=rows begin -->") == 1
    assert not request.out.exists()
    done = Cell(BACKBONE, SCRATCH, "all-71", 1.0, 0)
    shutil.copytree(request_.run_folder(done), request.run_folder(done))
    *_, report = write(request, "table-1", tmp_path / "page.md")
    assert report == request.out / "report-rows.html"
    found = read_json(request.out / "report-rows.json")
    assert [run["name"] for run in found["runs"]] == ["post-training", "scratch"]
    assert found["reference"] == "post-training"
    assert f"--out {request.out}" in found["commands"][0]


def test_rows_alone_are_run_like_all_else(request_: Request, tmp_path: Path) -> None:
    request = replace(request_, out=tmp_path / "out")
    cells = [c for c in cells_of("table-1", request.experiment, "") if c.arm == SCRATCH]
    assert [cell.key for cell in cells] == [
        f"{BACKBONE}--scratch--{task}--100pct--seed0" for task in ("all-71", "superclass-5")
    ]
    assert Runner(request).run(cells[:1]).done == [cells[0].key]
    mine, theirs = (
        r.run_folder(cells[0]) / "model" / "model.safetensors" for r in (request, request_)
    )
    assert mine.read_bytes() == theirs.read_bytes()


def half(request_: Request, out: Path) -> Request:
    """One run of the row resnet1d_wang, and no post-trained model."""
    request = replace(request_, out=out)
    done = Cell(BACKBONE, SCRATCH, "all-71", 1.0, 0)
    shutil.copytree(request_.run_folder(done), request.run_folder(done))
    return request


def test_rows_of_another_machine_are_kept(
    request_: Request, tmp_path: Path, section: Section
) -> None:
    """All their numbers, marked; what was run here is written anew, and twice is once."""
    page = tmp_path / "page.md"
    write(request_, "table-1", page)
    request = half(request_, tmp_path / "half")
    for _ in range(2):
        write(request, "table-1", page, keep_rows=True)
        found = read_json(page.parent / "figures" / "table-1--rows.json")
        for row in found["rows"]:
            for task, each in row["tasks"].items():
                before = numbers(section, row["name"], task)
                ours = (row["name"], task) == ("resnet1d_wang", "all-71")
                kept = {} if ours else {"is_kept": True}
                after = before | ({"post_trained_minus_this": {}} if ours else {})
                assert each == after | kept
        assert found["best_post_trained"] == section.numbers["best_post_trained"]
        lines = rows_of(page.read_text(), "#### all-71")
        assert lines[f"**plain one**, `{BACKBONE}` † § ¶"][0] == "0, 1"
        assert lines[f"{BEST}, `{BACKBONE}` ¶"][0] == "0, 1"
        assert lines[f"**resnet1d_wang**, `{BACKBONE}` † ‡ §"][4] == "–"
        matrix = rows_of(page.read_text())
        assert matrix["**both** † §"][1].endswith(") ¶")
        assert "not finished" not in page.read_text()
    write(request, "table-1", page)
    assert "¶" not in page.read_text()
    assert "not run yet" in page.read_text()


def test_a_row_that_is_another_one_now_is_not_kept(request_: Request, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write(request_, "table-1", page)
    file = page.parent / "figures" / "table-1--rows.json"
    said = read_json(file)
    said["rows"][1]["changes"].append("stage2.base_lr 1 instead of 2")
    said["rows"][2]["recipes"][0] = "of another file"
    write_json(file, said)
    request = half(request_, tmp_path / "half")
    write(request, "table-1", page, keep_rows=True)
    found = {row["name"]: row["tasks"]["all-71"] for row in read_json(file)["rows"]}
    assert found["plain one"]["auroc"] is None
    assert found["both"]["auroc"] is None
    # A page of an earlier version says nothing of the recipe's content.
    said["rows"][2].pop("recipes")
    write_json(file, said)
    write(request, "table-1", page, keep_rows=True)
    (both,) = [row for row in read_json(file)["rows"] if row["name"] == "both"]
    assert both["tasks"]["all-71"]["is_kept"]
    assert len(both["recipes"]) == 2


def test_kept_leads_are_of_the_model_of_now(request_: Request, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write(request_, "table-1", page)
    file = page.parent / "figures" / "table-1--rows.json"
    request = half(request_, tmp_path / "half")
    write(replace(request, against=(request_.out,)), "table-1", page, keep_rows=True)
    found = {row["name"]: row["tasks"]["all-71"] for row in read_json(file)["rows"]}
    assert found["plain one"]["is_kept"]
    assert found["plain one"]["post_trained_minus_this"]["auroc"]["seeds"] == [0, 1]
    one = request_.run_folder(main_group(OURS).cell(0))
    write(replace(request, against=(one,)), "table-1", page, keep_rows=True)
    found = {row["name"]: row["tasks"]["all-71"] for row in read_json(file)["rows"]}
    assert found["plain one"]["is_kept"]
    assert found["plain one"]["post_trained_minus_this"] == {}
    assert found["resnet1d_wang"]["post_trained_minus_this"]["auroc"]["seeds"] == [0]


def test_nothing_is_kept_of_a_page_without_rows(request_: Request, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    request = half(request_, tmp_path / "half")
    write(request, "table-1", page, keep_rows=True)
    assert "¶" not in page.read_text()
    write_json(page.parent / "figures" / "table-1--rows.json", ["damaged"])
    with pytest.raises(ReproduceError, match="holds no table 1"):
        write(request, "table-1", page, keep_rows=True)
