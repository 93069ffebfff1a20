"""A recipe on arrays is the recipe on a packed cohort, in scikit-learn's manner."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from einthoven import EcgClassifier, load_model, save_model
from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import EstimatorError, PreparationError, RecipeError, TrainingError
from einthoven.estimator.arrays import Targets, set_aside
from einthoven.inference import predict_cohort, predict_record
from einthoven.models import Model, training_history
from einthoven.records import read_record
from einthoven.signals.steps import Scale
from einthoven.signals.store import Store
from einthoven.stages.posttrain import RecipeWarning, posttrain
from einthoven.stages.recipe import Data, Recipe, Stage1, Stage2, load_recipe
from einthoven.training.distributed import Processes

RECIPE = Recipe(
    name="tiny",
    precision="fp32",
    data=Data(crop_seconds=2.5, evaluation_crops=2),
    stage1=Stage1(
        solver="adamw", epochs=4, batch_size=32, base_lr_sweep=(1e-1, 1.0), warmup_epochs=1
    ),
)
BOTH = RECIPE.model_copy(
    update={"stage2": Stage2(epochs=2, batch_size=32, base_lr=1e-2, warmup_epochs=1, drop_path=0.2)}
)


@pytest.fixture(scope="module")
def fitted(arrays: Any) -> EcgClassifier:
    model = EcgClassifier(**arrays.given, recipe=RECIPE, validation_fraction=0.25)
    return model.fit(arrays.x, arrays.y, groups=arrays.patients)


@pytest.mark.parametrize("recipe", [RECIPE, BOTH], ids=["probe", "both stages"])
def test_it_is_the_training_of_the_stages(
    recipe: Recipe, arrays: Any, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    model = EcgClassifier(**arrays.given, recipe=recipe, validation_fraction=0.25)
    model.fit(arrays.x, arrays.y, groups=arrays.patients)
    train, _ = set_aside(arrays.y, arrays.patients, fraction=0.25, seed=0)
    table = synthetic.table.assign(split="validation")
    table.iloc[train, table.columns.get_loc("split")] = "train"
    cohort = replace(synthetic, table=table)
    given = arrays.given
    trained = posttrain(
        cohort, synthetic_store, given["backbone"], weights=given["weights"], recipe=recipe,
        options=given["options"], out=tmp_path / "run", processes=Processes("cpu"),
    )  # fmt: skip
    assert model.results_.keys() == trained.results.keys()
    for stage, result in trained.results.items():
        losses = [line["train_loss"] for line in result.history]
        found = [line["train_loss"] for line in model.history_[stage]]
        assert found == pytest.approx(losses, rel=1e-4)
    saved = Model(trained.classifier, trained.data.preparation)
    expected = predict_cohort(saved, cohort, synthetic_store, "train").probabilities
    assert np.allclose(model.predict_proba(arrays.x[train]), expected, atol=1e-3)


def test_a_recipe_s_name_means_the_backbone_s_own_settings(arrays: Any) -> None:
    """`post-training` is ST-MEM's; an S4 has its own, and a Recipe is what it is."""
    network = create_backbone("s4_tiny", seed=7, width=16, depth=1)
    given = {key: arrays.given[key] for key in ("rate", "leads")} | {"validation_fraction": 0.25}
    short = ["stage1.epochs=2", "stage2.epochs=1", "stage2.min_steps=0", "precision=fp32"]
    short.append("stage2.keep=always")
    named = EcgClassifier(network, recipe="post-training", overrides=short, random_state=3, **given)
    found = named.fit(arrays.x[:60], arrays.y[:60]).to_model().config["provenance"]["recipe"]
    assert (found["stage2"]["batch_size"], found["stage1"]["weight_decay"]) == (64, 1.0)
    assert (found["seed"], found["stage2"]["epochs"]) == (3, 1)
    general = EcgClassifier(network, recipe=load_recipe("post-training", short), **given)
    found = general.fit(arrays.x[:60], arrays.y[:60]).to_model().config["provenance"]["recipe"]
    assert (found["stage2"]["batch_size"], found["stage1"]["weight_decay"]) == (16, 0.05)


def test_a_stage_that_is_left_out_is_a_warning(arrays: Any) -> None:
    """With few records stage 2 is not tried, unless one of its keys is set."""
    given = arrays.given | {"backbone": arrays.given["backbone"]}
    probe = EcgClassifier(**given, recipe="post-training", overrides=["data.crop_seconds=2.5"])
    with pytest.warns(RecipeWarning, match="stage 2"):
        probe.fit(arrays.x, arrays.y)
    assert list(probe.results_) == ["stage1"]
    short = [*probe.overrides, "stage2.epochs=1", "stage2.min_steps=0"]
    tuned = EcgClassifier(**given, recipe="post-training", overrides=short)
    tuned.fit(arrays.x, arrays.y)
    assert list(tuned.results_) == ["stage1", "stage2"]


def test_it_learns_what_can_be_learned(arrays: Any) -> None:
    """ECGs at three times their size, from others at their own; tested on records not seen."""
    probe = [
        "stage1.solver=adamw",
        "stage1.epochs=30",
        "stage1.base_lr_sweep=[1.0]",
        "data.augmentation='none'",
    ]
    model = EcgClassifier(
        create_backbone("s4_tiny", seed=7, width=32, depth=1, pool="mean"),
        rate=arrays.given["rate"],
        leads=arrays.given["leads"],
        overrides=[*probe, "stage1.batch_size=16"],
        validation_fraction=0.2,
    )
    large = np.random.default_rng(0).integers(0, 2, len(arrays.x))
    x = arrays.x * (1 + 2 * large)[:, None, None]
    model.fit(x[:100], large[:100])
    assert model.score(x[100:], large[100:]) > 0.9


def test_labels_classes_and_shapes(arrays: Any, fitted: EcgClassifier, synthetic: Cohort) -> None:
    count = arrays.y.shape[1]
    probabilities = fitted.predict_proba(arrays.x[:9])
    assert probabilities.shape == (9, count)
    assert fitted.classes_.tolist() == list(range(count))
    assert np.array_equal(fitted.predict(arrays.x[:9]), (probabilities > 0.5).astype(int))
    decided = fitted.decision_function(arrays.x[:9])
    assert np.allclose(1 / (1 + np.exp(-decided)), probabilities)
    frame = pd.DataFrame(arrays.y, columns=synthetic.labels)
    named = EcgClassifier(**arrays.given, recipe=RECIPE, validation_fraction=0.25)
    named.fit(arrays.x, frame, groups=arrays.patients)
    assert named.classes_.tolist() == list(synthetic.labels)
    assert named.classifier_.labels == synthetic.labels
    assert np.array_equal(named.predict_proba(arrays.x[:9]), probabilities)


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")])
def test_one_class_a_record(arrays: Any, classes: tuple[str, ...]) -> None:
    y = np.array(classes)[arrays.y[:, 0] if len(classes) == 2 else np.arange(len(arrays.y)) % 3]
    model = EcgClassifier(**arrays.given, recipe=RECIPE, validation_fraction=0.25)
    probabilities = model.fit(arrays.x, y).predict_proba(arrays.x)
    assert model.classes_.tolist() == list(classes)
    assert probabilities.shape == (len(y), len(classes))
    assert np.allclose(probabilities.sum(axis=1), 1)
    chosen = np.array(classes)[probabilities.argmax(axis=1)]
    assert (model.predict(arrays.x) == chosen).all()
    decided = model.decision_function(arrays.x)
    assert decided.shape == ((len(y),) if len(classes) == 2 else (len(y), 3))
    outputs = ("yes",) if len(classes) == 2 else classes
    assert model.classifier_.labels == outputs


def test_progress_goes_to_a_callable(
    arrays: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[tuple[str, int, int, Any]] = []

    def progress(task: str, done: int, total: int, metrics: Any = None, /) -> None:
        events.append((task, done, total, metrics))

    x, y = arrays.x[:60], arrays.y[:60]
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    both = EcgClassifier(**arrays.given, recipe=BOTH, validation_fraction=0.25)
    both.fit(x, y, progress=progress)
    assert capsys.readouterr().err == ""
    epochs = [event[3] for event in events if event[3] and "train_loss" in event[3]]
    assert epochs[-2:] == both.history_["stage2"]
    assert all(line in epochs for line in both.history_["stage1"])  # of one of two learning rates
    assert all(done <= total for _, done, total, _ in events)
    for stage, settings in (("stage1", BOTH.stage1), ("stage2", BOTH.stage2)):
        numbers = both.results_[stage]
        assert numbers["epochs"] == settings.epochs  # type: ignore[union-attr]
        selected = both.history_[stage][numbers["best_epoch"] - 1]
        assert numbers["macro_auroc"] == selected["macro_auroc"]
        assert all(type(value) in (int, float) for value in numbers.values())
        assert len(numbers) < 8

    def stop(*event: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        both.fit(x, y, progress=stop)


@pytest.mark.parametrize(
    ("verbose", "terminal", "shown"), [(1, True, True), (0, True, False), (1, False, False)]
)
def test_progress_is_shown_in_a_terminal(
    arrays: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verbose: int,
    terminal: bool,
    shown: bool,
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    EcgClassifier(**arrays.given, verbose=verbose).fit(arrays.x[:40], arrays.y[:40])
    out, err = capsys.readouterr()
    assert (out, "features" in err) == ("", shown)


@pytest.mark.parametrize("stored", [True, False])
def test_a_saved_model_states_what_its_weights_have_seen(
    stored: bool, synthetic: Cohort, tmp_path: Path
) -> None:
    initial = load_model("einthoven-small")
    records = [str(path) for path in synthetic.paths("train")[:20]]
    classifier = EcgClassifier("einthoven-small" if stored else initial)
    classifier.fit(records, np.arange(20) % 2)
    saved = load_model(save_model(classifier.to_model(), tmp_path / "model"))
    provenance = saved.config["provenance"]
    assert provenance["contains_ptbxl"] is True
    assert [stage["cohort"] for stage in provenance["pretraining"]] == ["ptb-xl", "ptb-xl"]
    weights = provenance["initial_weights"]
    assert weights["name"] == "einthoven-small"
    assert weights["sha256"] == initial.config["weights_sha256"]
    assert initial.licence.text in saved.licence.text
    assert saved.fingerprints == initial.fingerprints != {}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "PTB-XL among the training data: yes" in card
    assert "Wagner" in card
    assert "## Training data" in card
    assert "| data.centre | yes |" in card
    assert provenance["cohort"]["training_records"] == 20
    assert [stage["cohort"] for stage in training_history(saved.config)][:2] == ["ptb-xl"] * 2
    assert training_history(saved.config)[2]["task"] == ",".join(saved.labels)


def test_seeds(arrays: Any) -> None:
    def head(**changes: Any) -> torch.Tensor:
        model = EcgClassifier(**arrays.given, recipe=RECIPE, validation_fraction=None, **changes)
        return model.fit(arrays.x[:40], arrays.y[:40]).classifier_.head.weight

    recipe_s, first, again = head(), head(random_state=5), head(random_state=np.int64(5))
    assert torch.equal(recipe_s, head(random_state=RECIPE.seed))
    assert torch.equal(first, again)
    assert not torch.equal(first, recipe_s)
    assert torch.equal(head(random_state=2**40), head(random_state=2**40, device="cpu:0"))
    with pytest.raises(ValueError, match="'random_state'"):
        head(random_state=2**63)
    states = [head(random_state=np.random.RandomState(3)) for _ in range(2)]
    assert torch.equal(*states)


def test_a_measured_scaling_is_that_of_the_records_it_trains_on(arrays: Any) -> None:
    given = arrays.given | {"weights": None}
    short = ["stage2.epochs=1", "data.crop_seconds=2.5", "data.standardise=scalar"]
    model = EcgClassifier(
        **given, recipe="scratch", overrides=short, validation_fraction=None, random_state=3
    )
    model.fit(arrays.x, arrays.y)
    (scale,) = [step for step in model.preparation_.steps if isinstance(step, Scale)]
    assert scale.mean == pytest.approx(arrays.x.mean(dtype=float), abs=1e-7)
    assert scale.std == pytest.approx(arrays.x.std(dtype=float), rel=1e-6)
    assert model.to_model().preparation == model.preparation_


def test_nothing_is_left_behind(
    arrays: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    state = torch.get_rng_state()
    model = EcgClassifier(**arrays.given, recipe=RECIPE, validation_fraction=None, n_jobs=2)
    model.fit(arrays.x[:40], arrays.y[:40])
    assert list(tmp_path.iterdir()) == []
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_to_model_is_a_model_folder_with_the_same_predictions(
    arrays: Any, fitted: EcgClassifier, synthetic: Cohort, tmp_path: Path
) -> None:
    model = load_model(save_model(fitted.to_model(), tmp_path))
    assert isinstance(model, Model)
    assert model.preparation == fitted.preparation_
    found = predict_record(model, read_record(synthetic.paths()[3])).probabilities
    expected = fitted.predict_proba(arrays.x[3:4])[0]
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-4)
    provenance = model.config["provenance"]
    assert provenance["recipe"]["name"] == "tiny"
    selected = {stage: result["best_epoch"] for stage, result in fitted.results_.items()}
    assert (provenance["selected_epoch"], provenance["kept_stage"]) == (selected, [*selected][-1])


# ---------------------------------------------------------------------- who validates


LOGISTIC: dict[str, Any] = {"overrides": ["data.crop_seconds=2.5", "stage1.solver=logistic"]}


@pytest.mark.parametrize(
    ("options", "split"),
    [
        (LOGISTIC, "out of fold"),
        ({"recipe": RECIPE, "validation_fraction": 0.25}, "validation"),
        ({"recipe": RECIPE, "validation_fraction": None}, None),
    ],
    ids=["logistic", "held out", "all records"],
)
def test_a_model_has_thresholds_of_unseen_records(
    arrays: Any, options: dict[str, Any], split: str | None
) -> None:
    """The name of a series is the label."""
    common = int(arrays.y.sum(axis=0).argmax())
    y = pd.Series(arrays.y[:, common], name="rhythm")
    classifier = EcgClassifier(**arrays.given, **options).fit(arrays.x, y, arrays.patients)
    model = classifier.to_model()
    assert (model.labels, classifier.classes_.tolist()) == (("rhythm",), [0, 1])
    if split is None:
        assert model.calibration is None
        return
    fit = model.config["calibration_fit"]
    assert fit["split"] == split
    assert (fit["records"] == len(y)) == (split == "out of fold")
    assert model.calibration is not None
    assert model.calibration.temperatures == (1.0,)
    assert model.calibration.thresholds[0] not in (0.0, 0.5, 1.0)


def test_training_and_validation_records_are_disjoint(arrays: Any) -> None:
    train, validation = set_aside(arrays.y, arrays.patients, fraction=0.2, seed=1)
    assert sorted([*train, *validation]) == list(range(len(arrays.y)))
    assert not set(arrays.patients[train]) & set(arrays.patients[validation])
    assert 0.15 < len(validation) / len(arrays.y) < 0.25
    other = set_aside(arrays.y, arrays.patients, fraction=0.2, seed=2)[1]
    assert validation.tolist() != other.tolist()


def test_groups_are_told_apart_as_patients_are() -> None:
    groups = np.array(["17", "17.0", *(str(i) for i in range(100, 138))], dtype=object)
    targets = np.ones((len(groups), 1), np.uint8)
    for seed in range(20):
        train, _ = set_aside(targets, groups, fraction=0.5, seed=seed)
        assert (0 in train) == (1 in train)


def test_without_a_fraction_all_records_train(arrays: Any) -> None:
    train, watched = set_aside(arrays.y, None, fraction=None, seed=0)
    assert train.tolist() == watched.tolist() == list(range(len(arrays.y)))
    many = np.random.default_rng(0).integers(0, 2, (2000, 1)).astype(np.uint8)
    train, watched = set_aside(many, None, fraction=None, seed=0)
    assert (len(train), len(watched)) == (2000, 512)
    assert 0.4 < many[watched].mean() < 0.6


def test_without_a_fraction_the_last_epoch_is_kept(arrays: Any) -> None:
    model = EcgClassifier(**arrays.given, recipe=RECIPE, validation_fraction=None)
    model.fit(arrays.x[:60], arrays.y[:60])
    assert model.results_["stage1"]["best_epoch"] == RECIPE.stage1.epochs  # type: ignore[union-attr]


def test_targets() -> None:
    labels = Targets.of(np.array([[0, 1], [1, 1]]), names=pd.Index(["A", "B"]))
    assert (labels.kind, labels.names, labels.matrix.tolist()) == (
        "multilabel", ["A", "B"], [[0, 1], [1, 1]],
    )  # fmt: skip
    two = Targets.of(np.array([7, 3, 7]))
    assert (two.kind, two.classes.tolist(), two.names) == ("binary", [3, 7], ["7"])
    assert two.matrix.tolist() == [[1], [0], [1]]
    three = Targets.of(np.array(["b", "a", "c"]))
    assert three.matrix.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    with pytest.raises(EstimatorError, match="17"):
        Targets.of(np.array([17, 17]))
    with pytest.raises(ValueError, match="continuous"):
        Targets.of(np.array([0.5, 1.2]))
    with pytest.raises(EstimatorError, match=r"\[2\]"):
        Targets.of(np.array([[0, 2], [2, 2], [2, 0]]))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": None}, RecipeError, "linear-probe.*weights"),
        (
            {"weights": None, "backbone": "lstm", "options": None},
            RecipeError,
            "recipe `strodthoff-rnn`",
        ),
        ({"recipe": "scratch"}, RecipeError, "scratch.*model"),
        ({"recipe": "linear-prob"}, RecipeError, "linear-prob"),
        ({"recipe": RECIPE, "overrides": ["seed=1"]}, EstimatorError, "`overrides`"),
        ({"overrides": ["seed=1"], "random_state": 2}, EstimatorError, "seed.*random_state"),
        ({"overrides": ["stage2.select=best"], "validation_fraction": None}, EstimatorError, "sel"),
        ({"overrides": ["data.fraction=0.5"]}, EstimatorError, r"data\.fraction = 0\.5"),
        ({"overrides": ["stage1.epoch=5"]}, RecipeError, r"stage1\.epoch\b"),
        ({"overrides": ["data.crop_seconds=20.0"]}, PreparationError, "2000"),
        ({"overrides": ["refit=always"]}, EstimatorError, "validation_fraction|refit"),
        ({"validation_fraction": 0.9}, ValueError, "validation_fraction.*0.9"),
        ({"validation_fraction": 0.01}, EstimatorError, "0.01.*30 groups"),
    ],
)  # fmt: skip
def test_refusals(
    arrays: Any, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EcgClassifier(**(arrays.given | changes)).fit(arrays.x[:30], arrays.y[:30])


def test_groups_of_another_number_are_refused(arrays: Any) -> None:
    with pytest.raises(ValueError, match=r"3\D+30"):
        EcgClassifier(**arrays.given).fit(arrays.x[:30], arrays.y[:30], groups=[1, 2, 3])


def test_labels_of_one_class_are_refused(arrays: Any) -> None:
    y = np.zeros((30, 2), int)
    with pytest.raises(TrainingError, match="2 labels"):
        EcgClassifier(**arrays.given).fit(arrays.x[:30], y)


@pytest.mark.parametrize("fraction", [0.2, None])
def test_the_recorded_recipe_trains_no_second_time(arrays: Any, fraction: float | None) -> None:
    recipe = RECIPE.model_copy(update={"refit": "auto"})
    given = arrays.given | {"recipe": recipe, "validation_fraction": fraction}
    model = EcgClassifier(**given).fit(arrays.x[:30], arrays.y[:30]).to_model()
    assert model.config["provenance"]["recipe"].get("refit", "never") == "never"
