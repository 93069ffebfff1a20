"""Numbers of several seeds, against single comparisons; candidates; stored rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.errors import EvaluationError
from einthoven.evaluate import compare, score_predictions
from einthoven.files import read_json, write_json
from einthoven.predictions import Predictions
from einthoven.reproduce.experiment import PLAIN, POST, SCRATCH
from einthoven.reproduce.grid import Group
from einthoven.reproduce.results import AUROC_AUPRC, Results, with_stored_rows
from einthoven.reproduce.run import Reproduction

BACKBONE = "mtecg_tiny_100hz"
MAIN = {variant: Group(BACKBONE, variant, "all-71") for variant in (POST, PLAIN, SCRATCH)}


@pytest.fixture(scope="module")
def results(whole: Reproduction) -> Results:
    return Results(whole)


def predictions(whole: Reproduction, variant: str, seed: int, split: str = "test") -> Predictions:
    folder = whole.folder(MAIN[variant].run(seed))
    return Predictions.load(folder / "predictions" / f"{split}.parquet")


def paired(whole: Reproduction, results: Results, a: str, b: str, seed: int) -> Any:
    return compare(
        predictions(whole, a, seed),
        predictions(whole, b, seed),
        resamples=20,
        interval="percentile",
    )


def test_one_seed_has_the_numbers_of_its_run(whole: Reproduction, results: Results) -> None:
    for split in ("test", "validation"):
        for metric in AUROC_AUPRC:
            pooled = results.macro(MAIN[SCRATCH], metric, split)
            table = predictions(whole, SCRATCH, 0, split)
            run = score_predictions(table, resamples=20, interval="percentile").to_dict()
            assert pooled is not None
            assert pooled["mean"] == pytest.approx(run[f"macro_{metric}"], abs=1e-12)
            assert pooled["interval"] == pytest.approx(run[f"macro_{metric}_interval"], abs=1e-12)
            assert pooled["bias"] == pytest.approx(run[f"macro_{metric}_bias"], abs=1e-12)
            assert pooled["spread"] is None


def test_several_seeds_share_their_resamples(whole: Reproduction, results: Results) -> None:
    pooled = results.macro(MAIN[POST], "auroc", minus=MAIN[PLAIN])
    comparison = results.comparison(MAIN[POST], MAIN[PLAIN])
    assert pooled is not None
    assert comparison is not None
    single = [paired(whole, results, POST, PLAIN, seed) for seed in (0, 1)]
    values = [each.auroc.macro for each in single]
    assert pooled["values"] == pytest.approx(values, abs=1e-12)
    assert pooled["intervals"][1] == pytest.approx(single[1].auroc.macro_interval, abs=1e-12)
    assert pooled["mean"] == pytest.approx(np.mean(values), abs=1e-12)
    assert pooled["spread"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert pooled["interval"] == pytest.approx(comparison.auroc.macro_interval, abs=1e-12)
    labels = np.mean([each.auroc.per_label for each in single], axis=0)
    np.testing.assert_allclose(comparison.auroc.per_label, labels, atol=1e-12)


def test_the_pooled_interval_is_that_of_the_mean_over_seeds(
    whole: Reproduction, results: Results
) -> None:
    pooled = results.macro(MAIN[POST], "auprc", minus=MAIN[PLAIN])
    assert pooled is not None
    _, bootstrap = results._first["all-71", "test"]
    differences = []
    for seed in (0, 1):
        post, plain = (
            bootstrap.estimate(predictions(whole, v, seed).probabilities)[1] for v in (POST, PLAIN)
        )
        differences.append(np.nanmean(post.replicates - plain.replicates, axis=1))
    limits = np.percentile(np.mean(differences, axis=0), [2.5, 97.5])
    assert pooled["interval"] == pytest.approx(tuple(limits), abs=1e-12)
    assert pooled["bias"] == pytest.approx(np.mean(differences) - pooled["mean"], abs=1e-12)


def test_strata(whole: Reproduction, results: Results) -> None:
    table = predictions(whole, POST, 0)
    assert table.targets is not None
    counts = dict(zip(table.labels, table.targets.sum(axis=0, dtype=int), strict=True))
    strata = results.strata(MAIN[POST])
    assert sorted(label for each in strata for label in each["labels"]) == sorted(
        label for label in counts if counts[label]
    )
    for each in strata:
        low, high = each["low"], each["high"]
        assert all(low <= counts[s] <= (high or counts[s]) for s in each["labels"])


def test_an_ensemble_is_the_mean_of_its_members_seed_by_seed(
    whole: Reproduction, results: Results
) -> None:
    both = MAIN[POST], MAIN[PLAIN]
    assert results.seeds(both) == (0, 1)
    pooled = results.macro(both, "auroc")
    assert pooled is not None
    _, bootstrap = results._first["all-71", "test"]
    for seed in (0, 1):
        tables = [predictions(whole, v, seed).probabilities for v in (POST, PLAIN)]
        point = bootstrap.estimate(np.mean(tables, axis=0))[0].point
        assert pooled["values"][seed] == pytest.approx(np.nanmean(point), abs=1e-12)
    cost = results.cost(both)
    runs = [read_json(whole.folder(MAIN[v].run(0)) / "metrics.json") for v in (POST, PLAIN)]
    assert cost is not None
    assert cost["parameters"] == sum(run["parameters"] for run in runs)
    assert cost["rate"] is None


def test_unfinished_runs_have_no_numbers(whole: Reproduction) -> None:
    results = Results(replace(whole, out=whole.out / "nowhere"))
    assert results.seeds(MAIN[POST], MAIN[PLAIN]) == ()
    assert results.macro(MAIN[POST], "auroc") is None
    assert results.comparison(MAIN[POST], MAIN[PLAIN]) is None
    assert results.cost(MAIN[POST]) is None
    assert results.strata(MAIN[POST]) == []


def test_runs_on_other_records_are_refused(whole: Reproduction) -> None:
    results = Results(whole)
    assert results.macro(MAIN[POST], "auroc")
    first, bootstrap = results._first["all-71", "test"]
    renamed = replace(first, records=first.records[::-1])
    results._first["all-71", "test"] = renamed, bootstrap
    with pytest.raises(EvaluationError, match=MAIN[SCRATCH].run(0).key):
        results.macro(MAIN[SCRATCH], "auroc")


def test_the_best_post_trained_group_is_chosen_on_validation(
    whole: Reproduction, tmp_path: Path
) -> None:
    best = Results(whole).best_post_trained("all-71")
    assert best == MAIN[POST]
    assert Results(whole).description(best)["seeds"] == [0, 1]
    # Runs of an experiment with other variants count as well.
    folder = tmp_path / "runs" / "of-another-experiment"
    shutil.copytree(whole.folder(MAIN[POST].run(0)), folder)
    content, metrics = read_json(folder / "run.json"), read_json(folder / "metrics.json")
    content["request"]["recipe"]["name"] = "other"
    metrics["validation"]["macro_auroc"] = 0.999
    metrics["test"]["macro_auroc"] = 0.1
    write_json(folder / "run.json", content)
    write_json(folder / "metrics.json", metrics)
    shutil.copytree(whole.folder(MAIN[POST].run(0)), tmp_path / "runs" / MAIN[POST].run(0).key)
    results = Results(replace(whole, out=tmp_path))
    best = results.best_post_trained("all-71")
    assert best == Group(BACKBONE, "other", "all-71")
    assert results.folders(best) == {0: (folder,)}
    assert results.description(best)["validation_auroc"] == 0.999
    assert Results(replace(whole, out=tmp_path / "nowhere")).best_post_trained("all-71") is None


def entry(mean: float | None) -> dict[str, Any]:
    value = None if mean is None else {"mean": mean}
    return {"auroc": value, "post_trained_minus_this": {"auroc": value}}


def table(rows: dict[str, float | None], best: dict[str, Any]) -> dict[str, Any]:
    same = {"variant": "v", "members": [], "backbone": "b", "short_schedule": "", "changes": []}
    return {
        "best_post_trained": best,
        "best_post_trained_on": {task: entry(0.9) for task in best},
        "rows": [{"name": name, **same, "tasks": {"t": entry(v)}} for name, v in rows.items()],
    }


def test_stored_rows_fill_in_for_runs_that_are_not_at_hand() -> None:
    stored = table({"one": 0.7, "two": 0.8, "three": 0.6}, {"t": {"seeds": [0]}})
    merged = with_stored_rows(table({"one": None, "two": 0.5}, {}), stored)
    assert merged["best_post_trained"] == stored["best_post_trained"]
    assert merged["best_post_trained_on"]["t"] == entry(0.9)
    assert [row["tasks"]["t"] for row in merged["rows"]] == [entry(0.7), entry(0.5)]
    # A lead over another model than the best one is left out.
    merged = with_stored_rows(table({"one": None}, {"t": {"seeds": [1]}}), stored)
    (row,) = merged["rows"]
    assert row["tasks"]["t"] == entry(0.7) | {"post_trained_minus_this": {}}
    # A row with other changes is another row.
    numbers = table({"one": None}, {})
    numbers["rows"][0]["changes"] = ["precision bf16 instead of fp32"]
    assert with_stored_rows(numbers, stored)["rows"] == numbers["rows"]
    assert with_stored_rows(numbers, {}) == numbers
