"""A search of recipe keys: its values, its trials, and what it never reads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from einthoven.cohorts import Cohort
from einthoven.errors import CohortError, RecipeError, TrainingError
from einthoven.experiment import search as module
from einthoven.experiment.search import Key, SearchResult, read_space, search
from einthoven.signals.store import Store
from einthoven.stages.recipe import load_recipe
from einthoven.training.distributed import Processes

optuna = pytest.importorskip("optuna")

BACKBONE = "mtecg_tiny_100hz"
KEYS = [Key.parse("stage2.base_lr=1e-3:1e-1:log"), Key.parse("stage2.head_bias=stock,prior")]
RECIPE = """
name = "short"
initialise = "random"
precision = "fp32"
[data]
crop_seconds = 2.5
evaluation_crops = 1
augmentation = "none"
[stage2]
epochs = 2
batch_size = 16
warmup_epochs = 1
"""
Search = Callable[..., SearchResult]


@pytest.fixture
def run(
    synthetic: Cohort, synthetic_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Search:
    """`run(folder, trials)` searches in a folder, on the cohort's own splits."""
    monkeypatch.setattr(module, "SMALL", 0)
    recipe = tmp_path / "short.toml"
    recipe.write_text(RECIPE)

    def searched(folder: str = "search", trials: int = 2, **changes: Any) -> SearchResult:
        settings: dict[str, Any] = {"keys": KEYS, "backbone": BACKBONE, "recipe": recipe}
        settings |= {"options": {"depth": 1, "width": 32, "heads": 1}}
        settings |= {"processes": Processes("cpu"), "cohort": synthetic} | changes
        return search(store=synthetic_store, out=tmp_path / folder, trials=trials, **settings)

    return searched


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a.b=1:8", Key("a.b", 1, 8)),
        ("a.b = 0:0.3", Key("a.b", 0, 0.3)),
        ("a.b=1e-4:1e-2:log", Key("a.b", 1e-4, 1e-2, True)),
        ("a.b=16,32", Key("a.b", choices=(16, 32))),
        ("a.b=none,rand-augment", Key("a.b", choices=("none", "rand-augment"))),
        ("a.b=true,false", Key("a.b", choices=(True, False))),
    ],
)
def test_values_of_a_key(text: str, key: Key) -> None:
    assert Key.parse(text) == key
    assert all(type(x) is type(y) for x, y in zip(Key.parse(text).values, key.values, strict=True))


@pytest.mark.parametrize(
    "text", ["a", "a=", "a=1", "a=2:1", "a=1:1", "a=0:1:log", "a=1:2:3", "a=x:y", "=1:2", "a=1:2:"]
)
def test_values_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        Key.parse(text)


def test_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text('[stage2]\nbase_lr = "1e-4:1e-2:log"\nbatch_size = [16, 32]\n')
    assert read_space(file) == [
        Key("stage2.base_lr", 1e-4, 1e-2, True),
        Key("stage2.batch_size", choices=(16, 32)),
    ]
    file.write_text("[stage2]\nepochs = 5\n")
    with pytest.raises(RecipeError, match=r"stage2\.epochs"):
        read_space(file)


def test_the_best_recipe_has_the_values_of_the_best_trial(run: Search) -> None:
    result = run(overrides=["stage2.weight_decay=0.01"])
    table = pd.read_csv(result.folder / "trials.csv")
    assert table["state"].tolist() == ["complete", "complete"]
    assert result.value == table["macro_auroc"].max()
    best = table.loc[table["macro_auroc"].idxmax()]
    recipe = load_recipe(result.folder / "best.toml", backbone=BACKBONE)
    assert recipe.stage2 is not None
    assert recipe.stage2.base_lr == best["stage2.base_lr"] == result.best["stage2.base_lr"]
    assert recipe.stage2.head_bias == best["stage2.head_bias"]
    assert (recipe.stage2.weight_decay, recipe.stage2.epochs) == (0.01, 2)
    assert "<svg" in (result.folder / "search.svg").read_text()
    assert not (result.folder / "trial").exists()


def test_an_interrupted_search_gives_the_same_trials(run: Search) -> None:
    whole = run("whole", 3).trials.drop(columns="seconds")

    def killed(task: str, done: int, total: int, metrics: Any = None, /) -> None:
        if task.startswith("trial 2") and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("parts", 2, progress=killed)
    run("parts", 2)
    parts = run("parts", 3).trials.drop(columns="seconds")
    pd.testing.assert_frame_equal(parts, whole)
    assert len(run("parts", 3).trials) == 3


def test_the_test_split_is_not_read(
    run: Search, synthetic: Cohort, synthetic_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[NDArray[np.intp]] = []
    read = Store.read

    def noting(store: Store, places: NDArray[np.intp]) -> Any:
        rows.append(places)
        return read(store, places)

    monkeypatch.setattr(Store, "read", noting)
    for small in (0, 2000):
        monkeypatch.setattr(module, "SMALL", small)
        run(f"search-{small}", 1)
    seen = np.unique(np.concatenate(rows))
    assert set(seen) == set(
        synthetic_store.rows([*synthetic.ids("train"), *synthetic.ids("validation")])
    )


def test_a_small_cohort_is_cross_validated(run: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL", 2000)
    parts: list[Cohort] = []
    train = module.posttrain

    def noting(cohort: Cohort, *arguments: Any, **options: Any) -> Any:
        parts.append(cohort)
        return train(cohort, *arguments, **options)

    monkeypatch.setattr(module, "posttrain", noting)
    run(trials=1)
    validated = [record for part in parts for record in part.ids("validation")]
    assert len(parts) == 5
    assert sorted(validated) == sorted(parts[0].ids())
    for part in parts:
        assert not set(part.patients("train")) & set(part.patients("validation"))


def test_trials_that_are_behind_end_early(run: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = optuna.pruners.ThresholdPruner(lower=2.0)  # above every AUROC
    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **_: pruner)
    epochs: list[int] = []

    def noting(task: str, done: int, total: int, metrics: Any = None, /) -> None:
        if metrics and "train_loss" in metrics:
            epochs.append(metrics["epoch"])

    with pytest.raises(TrainingError):
        run(progress=noting)
    assert epochs == [1, 1]


def test_requests_that_cannot_be_searched_are_refused(
    run: Search, synthetic: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(trials=1)
    with pytest.raises(TrainingError, match="keys"):
        run(trials=2, keys=KEYS[:1])
    for keys in ([], [KEYS[0], KEYS[0]], [Key.parse("stage2.base_rl=1:2")]):
        with pytest.raises(RecipeError):
            run("other", keys=keys)
    with pytest.raises(RecipeError, match="epochs"):
        run("other", keys=[Key.parse("stage2.epochs=0:2")])
    unlabelled = synthetic.select(synthetic.targets().sum(axis=1) == 0)
    with pytest.raises(CohortError):
        run("other", cohort=unlabelled)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RecipeError) as error:
        run("other")
    assert "einthoven[search]" in error.value.remedy
