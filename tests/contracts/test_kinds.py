"""What every verb relies on, over every registered kind of target and one of another package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from einthoven import Task, open_cohort, predict
from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.evaluate import compare, score_predictions
from einthoven.experiment.ensembles import mean_predictions
from einthoven.experiment.evaluation import evaluate_model
from einthoven.experiment.folds import run_folds
from einthoven.experiment.robustness import measure_robustness
from einthoven.experiment.run import RunResult, run_experiment
from einthoven.files import read_json, write_tensors
from einthoven.inference import predict_cohort
from einthoven.models import load_model
from einthoven.predictions import Predictions
from einthoven.report.page import write_report
from einthoven.report.robustness import robustness_table
from einthoven.signals.store import Store
from einthoven.stages.logistic import fit_logistic, search_penalty
from einthoven.stages.recipe import Data, Recipe, Stage1, Stage2
from einthoven.tasks import Criterion, kind_names, kind_of, register_kind
from einthoven.tasks.registry import _KINDS

TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}
DATA = Data(crop_seconds=2.5, evaluation_crops=2, augmentation="none")
PROBE = Recipe(name="probe", precision="fp32", data=DATA, stage1=Stage1(solver="logistic"))
TUNED = Recipe(
    name="tuned",
    precision="fp32",
    data=DATA,
    stage1=Stage1(solver="adamw", epochs=2, batch_size=32, base_lr_sweep=(1e-3, 1e-1)),
    stage2=Stage2(epochs=2, batch_size=32, base_lr=1e-2, warmup_epochs=1, keep="better"),
)
TASKS = {
    "multilabel": Task(target=("AF", "slow")),
    "binary": Task(kind="binary", target="sex = female"),
    "threshold": Task(kind="threshold", target="rate >= 75"),
    "multiclass": Task(kind="multiclass", target="rhythm"),
    "regression": Task(kind="regression", target=("rate", "span"), unit=("/min", "mV")),
    "count": {"kind": "count", "target": "rate"},
}


def test_every_kind_has_a_task_here() -> None:
    assert {*kind_names()} <= {*TASKS}


@pytest.fixture(scope="module", params=list(TASKS))
def task(request: pytest.FixtureRequest, outside: Callable[[str], ModuleType]) -> Iterator[Task]:
    added = request.param not in _KINDS
    if added:
        register_kind(outside("outside_kind").KIND)
    stated = TASKS[request.param]
    yield Task(**stated) if isinstance(stated, dict) else stated  # type: ignore[arg-type]
    if added:
        del _KINDS[request.param]


@pytest.fixture(scope="module")
def cohort(task: Task, synthetic: Cohort, synthetic_store: Store) -> Cohort:
    """The simulated records with columns of every kind, some cells of which are empty."""
    (chunk,) = synthetic_store.read(synthetic_store.rows(synthetic.ids()))
    lead = chunk.signals[:, 1].astype(float) / 1000
    rate = np.round(60 + 20 * lead.std(axis=1) / lead.std())
    frame = synthetic.table[["path", "patient", "split", "sex"]].reset_index()
    names = np.array(["low", "middle", "high"])
    frame["rate"], frame["span"] = rate, np.ptp(lead, axis=1)
    frame["rhythm"] = names[np.digitize(rate, np.quantile(rate, [0.3, 0.7]))]
    frame["AF"], frame["slow"] = synthetic.matrix[:, 0], (rate < np.median(rate)).astype(float)
    frame.loc[frame.index % 7 == 0, ["rate", "rhythm", "slow", "sex"]] = None
    return open_cohort(frame, task=task, root=synthetic.root)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    encoder = tmp_path_factory.mktemp("encoder") / "model"
    network = create_backbone("mtecg_tiny_100hz", seed=0, init="pretraining", **TINY)
    write_tensors(encoder, network.state_dict(), {})
    return {"weights": encoder, "options": TINY, "resamples": 40}


@pytest.fixture(scope="module")
def run(
    cohort: Cohort,
    synthetic_store: Store,
    settings: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> RunResult:
    out = tmp_path_factory.mktemp("run") / "tuned"
    made = run_experiment(
        cohort, synthetic_store, "mtecg_tiny_100hz", recipe=TUNED, out=out, **settings
    )
    assert made is not None
    return made


def test_unknown_records_are_counted(cohort: Cohort, task: Task) -> None:
    whole = task.kind == "multilabel" or len(task.targets) > 1  # another column is known
    assert bool(cohort.left_out) != whole
    assert np.isnan(cohort.matrix).any() == whole


def test_a_model_keeps_its_task_and_predicts_as_its_run(
    run: RunResult, cohort: Cohort, synthetic_store: Store, task: Task
) -> None:
    model = load_model(run.run.path / "model")
    assert (model.task.kind, model.labels) == (task.kind, cohort.labels)
    stored = Predictions.load(run.run.path / "predictions" / "test.parquet")
    again = predict_cohort(model, cohort, synthetic_store, "test", calibrated=False)
    assert np.allclose(again.probabilities, stored.probabilities, atol=1e-5)
    assert np.array_equal(again.require_targets(), stored.require_targets(), equal_nan=True)
    assert (stored.form, stored.kind) == (kind_of(task.kind).form, task.kind)


def test_files_are_predicted(run: RunResult, cohort: Cohort, task: Task) -> None:
    frame = predict(cohort.paths("test")[:3], run.run.path / "model")
    form = kind_of(task.kind).form
    prefix = "value:" if form == "values" else "probability:"
    values = frame[[prefix + label for label in cohort.labels]].to_numpy()
    assert np.isfinite(values).all()
    assert ("class" in frame) == (form == "classes")
    if form == "classes":
        assert np.allclose(values.sum(axis=1), 1)
        assert frame["class"].tolist() == [cohort.labels[i] for i in values.argmax(axis=1)]


def test_predictions_survive_a_file(run: RunResult, tmp_path: Path) -> None:
    table = Predictions.load(run.run.path / "predictions" / "test.parquet")
    table.save(tmp_path / "table.csv")
    read = Predictions.load(tmp_path / "table.csv")
    assert read.form == table.form
    assert np.array_equal(read.probabilities, table.probabilities)
    assert np.array_equal(read.require_targets(), table.require_targets(), equal_nan=True)


def test_a_table_differs_from_itself_by_nothing(run: RunResult) -> None:
    table = Predictions.load(run.run.path / "predictions" / "test.parquet")
    comparison = compare(table, table, resamples=40).to_dict()
    mean = mean_predictions([table, table])
    assert np.allclose(mean.probabilities, table.probabilities)
    gaps = [comparison["auroc"]["macro"]] if "auroc" in comparison else []
    for entry in comparison.get("measures", {}).get("per_label", {}).values():
        gaps += [value for name, value in entry.items() if isinstance(value, float)]
    assert gaps == [0.0] * len(gaps)


def test_a_score_is_that_of_the_run(run: RunResult) -> None:
    table = Predictions.load(run.run.path / "predictions" / "test.parquet")
    stored = read_json(run.run.path / "metrics.json")["test"]
    assert score_predictions(table, resamples=40).to_dict().keys() == stored.keys()


def test_report_and_card(
    run: RunResult, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("einthoven.report.cases.MOST_DRAWINGS", 2)
    page = write_report([run.run.path], tmp_path / "report.html", cohort=cohort, resamples=40)
    text = unescape(page.read_text())
    card = (run.run.path / "model" / "README.md").read_text()
    assert all(label in text for label in cohort.labels)
    columns = kind_of(cohort.target.kind).columns
    assert all(column.title in text and column.title in card for column in columns.values())
    if kind_of(cohort.target.kind).form == "classes":
        table = Predictions.load(run.run.path / "predictions" / "test.parquet")
        right = table.probabilities.argmax(axis=1) == table.require_targets().argmax(axis=1)
        errors = pd.read_csv(tmp_path / "report.errors.csv", dtype=str)
        assert sorted(errors["record"]) == sorted(Path(name).name for name in table.records[~right])


def test_a_model_is_evaluated_again(
    run: RunResult, cohort: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    folder = run.run.path / "model"
    evaluate_model(
        folder, cohort, synthetic_store, "test", out=tmp_path, robustness=False, resamples=40
    )
    stored = read_json(folder / "evaluation.json")
    assert read_json(tmp_path / "evaluation.json")["score"].keys() == stored["score"].keys()


def test_robustness_is_measured_and_reported(
    run: RunResult, cohort: Cohort, synthetic_store: Store
) -> None:
    """Differences are those of the predictions, in the metrics of the kind."""
    model = load_model(run.run.path / "model")
    clean = predict_cohort(model, cohort, synthetic_store, "test")
    result = measure_robustness(
        model, cohort, synthetic_store, "test", clean, resamples=20,
        lead_sets={"lead I": ("I",)}, snrs=(6.0,), noises=("muscle",), offsets=(0.0,),
    )  # fmt: skip
    metrics = [key for key, x in result["clean"].items() if isinstance(x, dict)]
    assert metrics
    for part in ("leads", "noise", "offsets"):
        (condition,) = result[part]
        for key in metrics:
            changed, before = condition[key]["value"], result["clean"][key]["value"]
            assert condition[key]["difference"] == pytest.approx(changed - before, abs=1e-9)
            assert len(condition[key]["difference_interval"] or (0, 0)) == 2
    assert all(result["offsets"][0][key]["difference"] == 0 for key in metrics)
    table = robustness_table({"robustness": result}, score_predictions(clean).to_dict())
    assert table is not None
    assert [len(row) for row in table.rows] == [len(table.head)] * 4
    assert {"multiclass": "Balanced accuracy", "regression": "MAE of rate (/min)"}.get(
        cohort.target.kind, table.head[1]
    ) in table.head


def test_folds(
    cohort: Cohort, synthetic_store: Store, settings: dict[str, Any], tmp_path: Path
) -> None:
    run_folds(
        cohort,
        synthetic_store,
        "mtecg_tiny_100hz",
        folds=3,
        recipe=PROBE,
        out=tmp_path / "folds",
        **settings,
    )
    table = Predictions.load(tmp_path / "folds" / "predictions" / "test.parquet")
    assert table.records.tolist() == cohort.ids().tolist()
    write_report([tmp_path / "folds"], tmp_path / "report.html", resamples=40)


# ---------------------------------------------------------------------- the kind itself


@pytest.fixture
def known(cohort: Cohort) -> tuple[Criterion, np.ndarray]:
    targets = cohort.matrix.astype(np.float64)
    return Criterion.of(cohort.target, cohort.matrix), targets


def test_what_is_not_known_has_no_loss(known: tuple[Criterion, np.ndarray]) -> None:
    criterion, targets = known
    outputs = torch.randn(targets.shape, dtype=torch.float64, requires_grad=True)
    gaps = torch.from_numpy(targets).clone()
    gaps[::3] = torch.nan
    loss = criterion.mean(outputs, gaps)
    loss.backward()
    keep = ~gaps.isnan().all(dim=1)
    assert loss.item() == pytest.approx(criterion.mean(outputs[keep], gaps[keep]).item())
    assert outputs.grad is not None
    assert (outputs.grad[~keep] == 0).all()
    assert criterion.by_row(outputs, gaps)[~keep].isnan().all()


def test_the_solver_minimises_the_loss_of_training(known: tuple[Criterion, np.ndarray]) -> None:
    """Its derivatives are those of the loss, and its constants have none left."""
    criterion, targets = known
    behaviour = criterion.task.behaviour
    outputs = np.random.default_rng(0).normal(size=targets.shape)
    values = torch.from_numpy(outputs).requires_grad_()
    losses = behaviour.losses(values, torch.from_numpy(targets), criterion)
    losses.nansum().backward()
    ours, derivatives = behaviour.objective(outputs, targets, criterion)
    assert values.grad is not None
    assert np.allclose(ours, losses.detach().nan_to_num().numpy())
    assert np.allclose(derivatives, values.grad.numpy())
    start, _ = behaviour.start(targets, np.ones((len(targets), 1)), criterion.task)
    _, left = behaviour.objective(np.tile(start, (len(targets), 1)), targets, criterion)
    assert np.abs(left.sum(axis=0)).max() < 1e-3 * len(targets)


def test_a_probe_gains_over_a_constant(known: tuple[Criterion, np.ndarray]) -> None:
    criterion, targets = known
    behaviour = criterion.task.behaviour
    signal = np.nan_to_num(pd.DataFrame(targets).rank(pct=True).to_numpy(), nan=0.5)
    noise = np.random.default_rng(0).normal(size=(len(targets), 3))
    features = np.column_stack([signal, noise])
    search = search_penalty(features, targets, np.arange(len(targets)), criterion=criterion)
    fitted = fit_logistic(features, targets, search.penalty, criterion=criterion)
    start, _ = behaviour.start(targets, np.ones((len(targets), 1)), criterion.task)
    constant = np.tile(start, (len(targets), 1))
    before, after = (
        behaviour.objective(x, targets, criterion)[0].sum()
        for x in (constant, fitted.logits(features))
    )
    assert after < before
    assert search.losses[search.penalty] <= min(search.losses.values())


def test_strata_are_marks_of_known_records(cohort: Cohort) -> None:
    strata = cohort.strata()
    assert strata.shape[0] == len(cohort)
    assert np.isin(strata, (0, 1)).all()
    unknown = np.isnan(cohort.matrix).all(axis=1)
    assert not strata[unknown].any()
