"""Which post-trained model the rows are held against."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from einthoven.errors import ReproduceError
from einthoven.files import write_json
from einthoven.reproduce.contenders import (
    best_contender,
    check_contenders,
    contenders,
    is_post_training,
)
from einthoven.reproduce.experiment_files import load_experiment
from einthoven.reproduce.folders import Request

ASKED: dict[str, Any] = {
    "stage": "posttrain",
    "backbone": "s4_small",
    "task": "all-71",
    "weights": {"path": "runs/pretrain/model", "sha256": "0"},
    "recipe": {
        "name": "post-training", "seed": 0, "data": {"fraction": 1.0},
        "stage1": {"epochs": 100}, "stage2": {"epochs": 16, "drop_path": 0.1},
    },
}  # fmt: skip


def finished(folder: Path, validation: float | None = 0.9, **changes: Any) -> Path:
    """A run's folder as far as choosing reads it; `stage2__drop_path=0.0` changes its recipe."""
    asked = copy.deepcopy(ASKED)
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = asked["recipe"] if sections or key in ASKED["recipe"] else asked
        for section in sections:
            place = place[section]
        place[last] = value
    write_json(folder / "run.json", {"request": asked})
    if validation is not None:
        write_json(folder / "metrics.json", {"validation": {"macro_auroc": validation}})
    return folder


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return Request(load_experiment("peers"), "", tmp_path, tmp_path, tmp_path / "out")


def test_the_best_on_fold_9_is_chosen_task_by_task(request_: Request) -> None:
    runs = request_.out / "runs"
    finished(runs / "a--seed0", 0.91)
    finished(runs / "b--seed0", 0.93, backbone="s4")
    finished(runs / "c--seed0", 0.99, task="form-19")
    best = best_contender(request_, "all-71")
    assert best is not None
    assert (best.model.backbone, best.validation) == ("s4", 0.93)
    assert best.model.folders == ((0, runs / "b--seed0"),)
    assert best_contender(request_, "rhythm-12") is None


def test_seeds_of_one_recipe_are_one_model(request_: Request) -> None:
    """One lucky seed does not make a model the best."""
    runs = request_.out / "runs"
    for seed, value in ((2, 0.96), (0, 0.90), (1, 0.90)):
        finished(runs / f"a--seed{seed}", value, seed=seed)
    finished(runs / "b--seed0", 0.93, stage2__epochs=8)
    one, other = contenders(request_, "all-71")
    assert [seed for seed, _ in one.model.folders] == [0, 1, 2]
    assert one.validation == pytest.approx(0.92)
    assert best_contender(request_, "all-71") == other
    assert other.to_dict() == {
        "backbone": "s4_small", "recipe": "post-training", "seeds": [0], "validation_auroc": 0.93,
        "weights_sha256": "0",
    }  # fmt: skip


def test_runs_of_another_encoder_are_another_model(request_: Request, tmp_path: Path) -> None:
    """Same network, recipe, seed and folder: what the runs know is in the weights."""
    there = tmp_path / "elsewhere"
    one, two = ({"path": f"{name}/model", "sha256": name} for name in ("cpc", "mae"))
    finished(there / "runs" / "a", 0.94, weights=one)
    finished(there / "runs" / "b", 0.90, weights=two)
    finished(there / "runs" / "c", 0.80, weights=two, seed=1)
    asked = replace(request_, against=(there,))
    assert {each.weights: each.validation for each in contenders(asked, "all-71")} == {
        "cpc": pytest.approx(0.94), "mae": pytest.approx(0.85),
    }  # fmt: skip
    best = best_contender(asked, "all-71")
    assert best is not None
    assert (best.weights, best.model.folders) == ("cpc", ((0, there / "runs" / "a"),))


def test_two_runs_of_one_model_and_seed_are_refused_by_name(request_: Request) -> None:
    runs = request_.out / "runs"
    for name, value in (("a", 0.91), ("b", 0.92)):
        finished(runs / name, value)
    with pytest.raises(ReproduceError, match=r"runs/a and .*runs/b are .* same seed, 0"):
        contenders(request_, "all-71")


def test_a_run_that_is_named_twice_counts_once(request_: Request) -> None:
    run = finished(request_.out / "runs" / "a", 0.91)
    detour = request_.out / "runs" / ".." / "runs" / "a"
    asked = replace(request_, against=(run, detour, request_.out / "runs" / ".."))
    (only,) = contenders(asked, "all-71")
    assert only.model.folders == ((0, run),)


@pytest.mark.parametrize(
    "changes",
    [
        {"validation": None},
        {"stage1": None},
        {"stage2": None},
        {"stage2__drop_path": 0.0},
        {"data__fraction": 0.3},
        {"weights": None},
        {"weights": {"path": "shared/random--s4_small--seed0.safetensors"}},
        {"stage": "pretrain"},
    ],
)
def test_what_is_no_finished_post_training_is_not_known(
    request_: Request, changes: dict[str, Any]
) -> None:
    assert is_post_training(ASKED)
    finished(request_.out / "runs" / "a--seed0", **changes)
    assert contenders(request_, "all-71") == []


def test_other_folders_are_looked_at_where_they_are_named(
    request_: Request, tmp_path: Path
) -> None:
    finished(tmp_path / "elsewhere" / "runs" / "a--seed0", 0.92)
    finished(tmp_path / "elsewhere" / "runs" / "b--seed0", 0.99, stage1=None)
    plain = finished(tmp_path / "plain", 0.95, stage1=None)
    assert contenders(request_, "all-71") == []
    reproduction = Request(
        request_.experiment, "", tmp_path, tmp_path, request_.out,
        against=(tmp_path / "elsewhere",),
    )  # fmt: skip
    (only,) = contenders(reproduction, "all-71")
    assert only.validation == 0.92
    named = Request(
        request_.experiment, "", tmp_path, tmp_path, request_.out,
        against=(tmp_path / "elsewhere", plain),
    )  # fmt: skip
    best = best_contender(named, "all-71")
    assert best is not None
    assert best.model.folders == ((0, plain),)


def test_folders_without_a_finished_run_are_refused(request_: Request, tmp_path: Path) -> None:
    def asked(place: Path) -> Request:
        return Request(request_.experiment, "", tmp_path, tmp_path, request_.out, against=(place,))

    with pytest.raises(ReproduceError, match="neither a run folder nor"):
        contenders(asked(tmp_path / "nowhere"), "all-71")
    with pytest.raises(ReproduceError, match="neither a run folder nor"):
        check_contenders(asked(tmp_path / "nowhere"))
    with pytest.raises(ReproduceError, match="is no finished run"):
        contenders(asked(finished(tmp_path / "early", None)), "all-71")
    with pytest.raises(ReproduceError, match="is no finished run"):
        contenders(asked(finished(tmp_path / "encoder", stage="pretrain")), "all-71")
