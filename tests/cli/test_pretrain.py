"""Pretraining by commands: mixtures, protected folds, and the page of its losses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import open_cohort
from einthoven.files import read_json
from einthoven.models import load_model
from einthoven.signals.store import Store

QUICK = ("--recipe", "demo", "--set", "epochs=1", "--set", "precision=fp32", "--device", "cpu")


@pytest.fixture(scope="module")
def unlabelled(synthetic_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of half of the simulated training records, without labels."""
    cohort = open_cohort(synthetic_path, empty_rows="keep")
    selected = np.isin(cohort.ids(), cohort.ids("train")[::2])
    paths = [str(path) for path in np.array(cohort.paths())[selected]]
    table = pd.DataFrame({"path": paths, "patient": cohort.patients()[selected]})
    file = tmp_path_factory.mktemp("own") / "exports.csv"
    table.to_csv(file, index=False)
    return file


def test_cohorts_are_mixed_by_weight(
    cli: Any,
    tmp_path: Path,
    synthetic_path: Path,
    synthetic_store: Store,
    unlabelled: Path,
    tiny_backbone: str,
) -> None:
    out = tmp_path / "mixed"
    cli(
        "pretrain", synthetic_path, unlabelled, "--share", 3, "--share", 1,
        "--store", synthetic_store.root, "--store", tmp_path / "own.store",
        "--backbone", tiny_backbone, "--out", out, *QUICK,
    )  # fmt: skip
    request = read_json(out / "run.json")["request"]
    assert [part["cohort"] for part in request["cohorts"]] == [synthetic_path.name, "exports"]
    first, second = (part["draws"] for part in request["cohorts"])
    assert first == pytest.approx(3 * second, abs=3)
    assert (
        f"validation_loss:{synthetic_path.name}" in (out / "pretrain" / "metrics.jsonl").read_text()
    )
    page = tmp_path / "losses.html"
    cli("report", out, "--out", page)
    (epoch,) = read_json(page.with_suffix(".json"))["runs"][0]["training"]["history"]
    assert epoch["epoch"] == 1
    assert repr(epoch["validation_loss"]) in page.read_text()
    assert f"{100 * first / (first + second):.1f} %" in page.read_text()


def test_a_run_folder_among_the_files_of_a_cohort_is_refused(
    cli: Any, tmp_path: Path, synthetic_path: Path, unlabelled: Path, tiny_backbone: str
) -> None:
    command = ("pretrain", "--backbone", tiny_backbone, "--out", synthetic_path / "run", *QUICK)
    for cohorts in ((unlabelled, synthetic_path), (unlabelled, "--protect", synthetic_path)):
        cli(*command, *cohorts, status=1)
        assert not (synthetic_path / "run").exists()


def test_a_recipe_may_name_its_cohorts(
    cli: Any, tmp_path: Path, synthetic_path: Path, unlabelled: Path, tiny_backbone: str
) -> None:
    recipe = tmp_path / "mixture.toml"
    recipe.write_text(
        'name = "mixture"\nepochs = 1\nbatch_size = 32\ncrop_seconds = 2.5\nprecision = "fp32"\n'
        f'[[cohorts]]\npath = "{synthetic_path}"\nshare = 1\n'
        f'[[cohorts]]\npath = "{unlabelled}"\nshare = 0.5\n'
    )
    command = ("pretrain", "--backbone", tiny_backbone, "--recipe", recipe, "--device", "cpu")
    result = cli(*command, "--out", tmp_path / "run")
    request = read_json(tmp_path / "run" / "run.json")["request"]
    assert len(request["cohorts"]) == 2
    assert "cohorts" not in request["recipe"]
    cli("report", tmp_path / "run", "--out", tmp_path / "pages" / "losses.html")
    assert "SIMULATED" in (tmp_path / "pages" / "losses.html").read_text()
    assert "SIMULATED" in (tmp_path / "run" / "model" / "README.md").read_text()
    for file in (*(tmp_path / "run" / "model").iterdir(), *(tmp_path / "pages").iterdir()):
        assert str(tmp_path.parent).encode() not in file.read_bytes(), file
    result = cli(*command, "--out", tmp_path / "other", "--share", 2, status=1)
    assert "--share" in result.err


def test_contradicting_options_are_refused(
    cli: Any, tmp_path: Path, synthetic_path: Path, synthetic_store: Store, tiny_backbone: str
) -> None:
    command = ("pretrain", "--backbone", tiny_backbone, "--out", tmp_path / "run", *QUICK)
    result = cli(*command, status=1)
    assert "[[cohorts]]" in result.err
    result = cli(
        *command, synthetic_path, synthetic_path, "--store", synthetic_store.root, status=1
    )
    assert "--store" in result.err
    result = cli(
        *command,
        synthetic_path,
        "--store",
        synthetic_store.root,
        "--share",
        1,
        "--share",
        2,
        status=1,
    )
    assert "2 shares" in result.err


@pytest.mark.parametrize(
    ("more", "message", "remedy"),
    [
        (["--share", 1, "--share", 2], "2 shares", "--share"),
        (["--share", 0], "shares [0.0]", "zero"),
        (["--share", "inf"], "shares [inf]", "zero"),
        (["--backbone", "s4_tiny"], "s4_tiny", "--recipe s4-ptbxl-100hz-cpu"),
        (["--set", "objective=ecg_fm"], "tiny", "--recipe release"),
        (["--set", "options.mask_ratioo=0.5"], "mask_ratioo", "mask_ratio,"),
        (["--protect", "nowhere"], "nowhere", "folder"),
    ],
)
def test_refusals_come_before_packing(
    cli: Any,
    tmp_path: Path,
    synthetic_path: Path,
    tiny_backbone: str,
    more: list[Any],
    message: str,
    remedy: str,
) -> None:
    backbone = [] if "--backbone" in more else ["--backbone", tiny_backbone]
    result = cli(
        "pretrain", synthetic_path, *backbone, *QUICK, *more, "--out", tmp_path / "run", status=1
    )
    problem, _, advice = result.err.rpartition("\n  ")
    assert message in problem
    assert remedy in advice
    assert "Packing" not in result.err
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "run").exists()


def test_the_default_recipe_is_that_of_the_backbone(
    cli: Any, tmp_path: Path, synthetic_path: Path, synthetic_store: Store
) -> None:
    result = cli(
        "pretrain", synthetic_path, "--backbone", "s4_tiny", "--store", synthetic_store.root,
        "--out", tmp_path / "run", "--set", "epochs=1", "--device", "cpu",
    )  # fmt: skip
    assert "s4-ptbxl-100hz-cpu" in result.err
    recipe = read_json(tmp_path / "run" / "run.json")["request"]["recipe"]
    assert (recipe["objective"], recipe["epochs"]) == ("cpc", 1)


@pytest.mark.filterwarnings("default::einthoven.stages.leakage.LeakageWarning")
def test_a_protected_fold_is_refused_or_allowed_and_recorded(
    cli: Any,
    tmp_path: Path,
    synthetic_path: Path,
    synthetic_store: Store,
    tiny_backbone: str,
    made: Any,
) -> None:
    """A folder of ECG files that holds the test fold under other names."""
    files = synthetic_path / "records100"
    command = (
        "pretrain", files, "--protect", f"{synthetic_path}:superclass-5",
        "--backbone", tiny_backbone, *QUICK,
    )  # fmt: skip
    result = cli(*command, "--out", tmp_path / "run", status=1)
    name = synthetic_path.name
    assert re.search(rf"\d+ \D* \d+ test records of {name}", result.err)
    assert f"--allow-leakage {name}" in result.err
    result = cli(*command, "--out", tmp_path / "run", "--allow-leakage", name)
    encoder = tmp_path / "run" / "model"
    assert json.loads(load_model(encoder).fingerprints["allowed_leakage"])[0]["cohort"] == name
    train = (
        "posttrain", synthetic_path, "--backbone", tiny_backbone, "--weights", encoder,
        "--recipe", made.recipe, "--store", synthetic_store.root, "--min-records", 8,
        "--resamples", 0, "--device", "cpu", "--set", "stage2.epochs=1",
    )  # fmt: skip
    result = cli(*train, "--out", tmp_path / "pt")
    assert re.search(rf"{encoder} .* test records of {name}", " ".join(result.err.split()))
    assert read_json(tmp_path / "pt" / "run.json")["request"]["leakage"]["cohort"] == name


def test_posttrain_refuses_an_encoder_that_has_seen_the_test_fold(
    cli: Any,
    tmp_path: Path,
    synthetic_path: Path,
    synthetic_store: Store,
    tiny_backbone: str,
    made: Any,
) -> None:
    files = synthetic_path / "records100"
    result = cli("pretrain", files, "--backbone", tiny_backbone, *QUICK, "--out", tmp_path / "run")
    result = cli(
        "posttrain", synthetic_path, "--backbone", tiny_backbone, "--recipe", made.recipe,
        "--weights", tmp_path / "run" / "model", "--store", synthetic_store.root,
        "--out", tmp_path / "pt", "--min-records", 8, "--device", "cpu",
        status=1,
    )  # fmt: skip
    assert str(tmp_path / "run" / "model") in result.err
    assert "--allow-leakage" in result.err
    assert not (tmp_path / "pt").exists()


def test_a_cohort_without_labels_cannot_be_posttrained_on(
    cli: Any, tmp_path: Path, unlabelled: Path, tiny_backbone: str
) -> None:
    result = cli(
        "posttrain", unlabelled, "--backbone", tiny_backbone, "--recipe", "scratch",
        "--out", tmp_path / "run",
        status=1,
    )  # fmt: skip
    assert str(unlabelled) in result.err
