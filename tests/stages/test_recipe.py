from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.backbones.registry import catalogue, create_backbone, entry
from einthoven.errors import RecipeError
from einthoven.stages.data import Context, adapt_preparation, loop_settings
from einthoven.stages.recipe import (
    Data,
    Pretraining,
    Recipe,
    Stage1,
    Stage2,
    load_pretraining,
    load_recipe,
    recipe_for,
    recipe_names,
)
from einthoven.training.distributed import Processes
from einthoven.training.optim import Cycle, OneCycle

CONTEXT = Context(seed=0, processes=Processes("cpu"))


def test_every_preset_reads() -> None:
    for name in recipe_names():
        assert load_recipe(name).name == name.rsplit("/", 1)[-1]
    for name in recipe_names(Pretraining):
        assert load_pretraining(name).name == name


def test_a_pass_of_ecg_fm_has_as_many_recordings_as_are_compared() -> None:
    """64 recordings a pass and 512 a step, as published; the share of hidden tokens follows."""
    recipe = load_pretraining("ecg-fm")
    assert (recipe.micro_batch, recipe.batch_size, recipe.eps) == (64, 512, 1e-6)


def test_the_paper_s_recipe() -> None:
    recipe = load_recipe("post-training")
    assert recipe.stage1 is not None
    assert recipe.stage2 is not None
    assert recipe.stage1.epochs == 100
    assert (recipe.stage2.drop_path, recipe.stage2.dropout) == (0.1, 0.01)
    assert (recipe.stage2.base_lr, recipe.stage2.weight_decay) == (1e-3, 0.05)
    assert (recipe.stage1.select, recipe.stage2.select) == ("best", "auto")


@pytest.mark.parametrize(
    "folder", ["", "ptbxl-100hz-cpu/", "ecgfounder/", "hubert-ecg/", "ecg-fm/"]
)
def test_plain_fine_tuning_differs_only_in_regularisation(folder: str) -> None:
    plain, ours = load_recipe(f"{folder}fine-tuning"), load_recipe(f"{folder}post-training")
    assert plain.stage1 is None
    assert plain.data == ours.data
    assert plain.stage2 is not None
    assert ours.stage2 is not None
    pieces = {"drop_path": 0.0, "dropout": 0.0, "keep": "always"}
    assert ours.stage2.model_copy(update=pieces) == plain.stage2


@pytest.mark.parametrize(
    ("backbone", "seconds", "pos_weight", "rate", "values"),
    [
        ("ecgfounder_12lead", 10, "none", 1e-4, (30, 256, "constant", 1e-5, False)),
        ("hubert_ecg_small", 5, "balanced", 1e-5, (50, 64, "cosine", 0.01, True)),
        ("ecg_fm", 5, "balanced", 5e-5, (50, 256, "constant", 0.0, True)),
    ],
)
def test_published_fine_tuning_of_foundation_models(
    backbone: str, seconds: float, pos_weight: str, rate: float, values: tuple[Any, ...]
) -> None:
    """The crops that they were trained on, and the learning rate at the published batch size."""
    recipe = load_recipe("fine-tuning", backbone=backbone)
    stage2 = recipe.stage2
    assert stage2 is not None
    with torch.device("meta"):
        preparation = adapt_preparation(create_backbone(backbone).preparation, recipe.data)
    assert preparation.window / preparation.rate == seconds
    assert (recipe.pos_weight, recipe.data.augmentation) == (pos_weight, "none")
    assert stage2.base_lr * stage2.batch_size / 256 == pytest.approx(rate)
    keys = "epochs", "batch_size", "schedule", "weight_decay", "freeze_extractor"
    assert tuple(getattr(stage2, key) for key in keys) == values
    assert load_recipe("post-training", backbone=backbone).pos_weight == pos_weight


def test_the_low_rate_of_ecg_fm() -> None:
    stage2 = load_recipe("ecg-fm/low-rate").stage2
    assert stage2 is not None
    assert (stage2.base_lr, stage2.epochs, stage2.schedule) == (1e-6, 140, "constant")
    assert stage2.freeze_extractor


def test_the_recipes_of_the_demo_have_equal_budgets() -> None:
    """As many steps of the same batches, whether of the head or of the whole network."""
    recipes = [load_recipe(f"demo/{n}") for n in ("linear-probe", "fine-tuning", "post-training")]
    stages = [[s for s in (recipe.stage1, recipe.stage2) if s] for recipe in recipes]
    assert [len(each) for each in stages] == [1, 1, 2]
    assert len({sum(stage.epochs for stage in each) for each in stages}) == 1
    assert len({stage.batch_size for each in stages for stage in each}) == 1
    probe, plain, ours = recipes
    assert probe.data == plain.data == ours.data
    assert probe.stage1 is not None
    assert plain.stage2 is not None
    assert ours.stage1 is not None
    assert ours.stage2 is not None
    assert probe.stage1.solver == "adamw"  # a solver's iterations are not steps
    assert not probe.stage1.base_lr_sweep
    assert ours.stage1.model_copy(update={"epochs": probe.stage1.epochs}) == probe.stage1
    pieces = {"drop_path": 0.0, "dropout": 0.0, "epochs": plain.stage2.epochs}
    assert ours.stage2.model_copy(update=pieces) == plain.stage2


def test_recipe_of_the_ptbxl_benchmark() -> None:
    """Strodthoff et al. 2021: 50 epochs of 136 steps, one cycle up to 0.01 and down from it."""
    recipe = load_recipe("strodthoff")
    fine = recipe.stage2
    assert fine is not None
    data = ("crop_seconds", "evaluation_crops", "aggregate", "augmentation", "standardise")
    assert [getattr(recipe.data, key) for key in data] == [2.5, 7, "max", "none", "scalar"]
    assert (recipe.initialise, recipe.stage1, recipe.precision) == ("random", None, "fp32")
    assert (fine.optimiser, fine.weight_decay, fine.decay_exempt) == ("adamw", 0.01, "none")
    assert (fine.select, fine.head_init, fine.clip) == ("last", "kaiming-normal", None)
    settings = loop_settings(fine, micro=128, context=CONTEXT)
    assert settings.schedule(17_418 // 128) == OneCycle(0.01, 6800, Cycle())
    assert settings.betas == (0.95, 0.99)
    recurrent = load_recipe("strodthoff-rnn")
    assert recurrent.data == recipe.data
    changed = {"base_lr": 0.002, "clip": 0.25}
    assert recurrent.stage2 == fine.model_copy(update=changed)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage2.warmup_epochs=5", "one_cycle.warmup_share"),
        ("stage2.min_lr=1e-5", "one_cycle.end_divisor"),
        ("stage2.betas=[0.8, 0.99]", "one_cycle.momentum"),
        ("stage2.one_cycle.warmup_share=1.0", "warmup_share = 1.0"),
        ("stage2.one_cycle.start_divisor=0.5", "start_divisor = 0.5"),
        ("stage2.one_cycle.momentum=[0.9, 0.8]", "momentum"),
        ("stage2.warmup_epochs=3", "stage2.schedule = one-cycle"),
        ("stage2.schedule=triangular", "schedule = 'triangular'"),
        ("stage2.optimiser=adamax", "optimiser = adamax"),
        ("stage2.optimiser=sgd", "optimiser = 'sgd'"),
        ("stage2.select=lowest", "select = 'lowest'"),
        ("initialise=pretrained", "data.standardise = scalar"),
        ("data.standardise=lead", "standardise = 'lead'"),
    ],
)
def test_impossible_combinations_are_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("strodthoff", [override])
    assert message in str(caught.value)


def test_more_impossible_combinations() -> None:
    with pytest.raises(RecipeError, match="drop_last = false"):
        load_recipe("multiresnet", ["stage2.micro_batch=25"])
    assert load_recipe("multiresnet", ["stage2.micro_batch=50"]).stage2 is not None
    with pytest.raises(RecipeError, match="schedule = constant"):
        load_recipe("wavelet-nn", ["stage2.min_lr=1e-4"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage2.droppath=0.2", "stage2.droppath .*stage2.drop_path"),
        ("stage3.epochs=1", "stage3"),
        ("stage2.drop_path=1.0", "drop_path = 1.0"),
        ("stage2.drop_path=high", "drop_path = 'high'"),
        ("stage2.epochs=0", "epochs = 0"),
        ("stage2.epochs=2.5", "epochs = 2.5"),
        ("stage2.epochs=true", "epochs = True"),
        ("seed=9223372036854775808", "seed = 9223372036854775808"),
        ("stage2.micro_batch=3", "micro_batch 3"),
        ("stage2.base_lr=nan", "base_lr"),
        ("initialise=random", "initialise = random"),
        ("precision=fp8", "precision"),
        ("stage2", "'stage2'"),
        ("name.first=x", "name"),
    ],
)
def test_mistakes_are_refused_before_any_data_is_read(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("post-training", [override])


def test_unknown_recipes_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="post-training"):
        load_recipe("posttraining")
    with pytest.raises(RecipeError, match=r"absent\.toml"):
        load_recipe(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(RecipeError, match=r"broken\.toml"):
        load_recipe(tmp_path / "broken.toml")
    (tmp_path / "latin.toml").write_bytes(b'description = "\xe9"')
    with pytest.raises(RecipeError, match=r"latin\.toml"):
        load_recipe(tmp_path / "latin.toml")
    (tmp_path / "empty.toml").write_text('name = "nothing"\n')
    with pytest.raises(RecipeError, match=r"stage1 .*stage2"):
        load_recipe(tmp_path / "empty.toml")
    (tmp_path / "own.toml").write_text('name = "own"\n[stage1]\nepochs = 3\n')
    assert load_recipe(tmp_path / "own.toml").stage2 is None


def test_docs_describe_every_key() -> None:
    """docs/recipes.md and the recipe's own descriptions say the same."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text()
    for table, prefix in [
        (Recipe, ""),
        (Data, "data."),
        (Stage1, "stage1."),
        (Stage2, "stage2."),
        (Cycle, "stage2.one_cycle."),
        (Pretraining, ""),
    ]:
        for key, field in table.model_fields.items():
            if key in ("data", "stage1", "stage2"):
                continue
            assert field.description, f"{prefix}{key} has no description"
            row = f"| `{prefix}{key}` |"
            assert row in page, row
            assert " ".join(field.description.split()) in page, row


def test_overrides_cannot_add_a_stage() -> None:
    """A linear probe would be fine-tuned, under its own name."""
    for name, setting in (("linear-probe", "stage2.epochs=1"), ("fine-tuning", "stage1.epochs=1")):
        with pytest.raises(RecipeError, match=rf"{name} .*\[{setting[:6]}\]"):
            load_recipe(name, [setting])


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)


def test_a_file_starts_from_the_recipe_that_suits_the_backbone(tmp_path: Path) -> None:
    """Two epochs more are all that differs, with the stages that the file has."""
    write(
        tmp_path,
        two="[stage1]\n[stage2]\nepochs = 26",
        fine="[stage2]\nepochs = 26",
        head="[stage1]\ncrops = 3",
        start='initialise = "random"',
    )
    for file, base, key in (
        ("two", "s4-100hz-cpu/post-training", "stage2.epochs=26"),
        ("fine", "s4-100hz-cpu/fine-tuning", "stage2.epochs=26"),
        ("head", "s4-100hz-cpu/linear-probe", "stage1.crops=3"),
        ("start", "s4-100hz-cpu/scratch", "seed=0"),
    ):
        recipe = load_recipe(tmp_path / f"{file}.toml", backbone="s4_small")
        same = {"name": file, "description": "", "extends": base}
        assert recipe == load_recipe(base, [key]).model_copy(update=same)
    fine = load_recipe(tmp_path / "fine.toml", ["initialise=random"], backbone="lstm")
    assert fine.extends == "strodthoff-rnn"
    assert load_recipe(tmp_path / "fine.toml").stage2 == Stage2(epochs=26)


def test_a_pretraining_file_starts_from_the_recipe_of_the_backbone(tmp_path: Path) -> None:
    write(tmp_path, longer="epochs = 20", masked='objective = "mae"')
    longer = load_pretraining(tmp_path / "longer.toml", backbone="s4_small")
    assert (longer.objective, longer.epochs, longer.base_lr) == ("cpc", 20, 4e-3)
    assert longer.extends == "s4-ptbxl-100hz-cpu"
    assert load_pretraining(tmp_path / "masked.toml", backbone="s4_small") == Pretraining(
        name="masked"
    )


def test_extends_names_a_recipe_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, first='extends = "post-training"\n[data]\nfraction = 0.5')
    write(tmp_path / "sub", second='extends = "../first.toml"\n[stage2]\ndrop_path = 0.2')
    recipe = load_recipe(tmp_path / "sub" / "second.toml", backbone="s4_small")
    assert (recipe.name, recipe.extends, recipe.data.fraction) == ("second", "first.toml", 0.5)
    assert recipe.stage2 is not None
    assert (recipe.stage2.epochs, recipe.stage2.drop_path) == (24, 0.2)
    exact = 'extends = "st-mem/post-training"'
    write(tmp_path, exact=exact, cosine='extends = "strodthoff"\nstage2.schedule = "cosine"')
    assert load_recipe(tmp_path / "exact.toml", backbone="s4_small").stage2 == Stage2(
        drop_path=0.1, dropout=0.01, min_steps=500, select="auto", keep="auto"
    )
    cosine = load_recipe(tmp_path / "cosine.toml").stage2  # without the keys of one-cycle
    assert cosine is not None
    assert (cosine.one_cycle, cosine.warmup_epochs, cosine.batch_size) == (None, 3, 128)


def test_another_package_ships_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        own='initialise = "random"\n[stage2]\nepochs = 7',
        masked="epochs = 8",
        user="[stage2]\nmin_lr = 1e-6",
    )
    (folder := tmp_path / "folder").mkdir()
    write(folder, scratch='initialise = "random"\n[stage2]\nepochs = 9')
    own, masked = (str(tmp_path / f"{name}.toml") for name in ("own", "masked"))
    changes = {"recipe": own, "pretraining_recipe": masked, "recipes": str(folder)}
    monkeypatch.setitem(catalogue(), "other", replace(entry("s4_small"), **changes))
    load = partial(load_recipe, backbone="other")
    assert load(recipe_for("other")) == load_recipe(own)
    assert load("scratch") == load_recipe(folder / "scratch.toml")
    assert load("fine-tuning") == load_recipe("fine-tuning")
    user = load(tmp_path / "user.toml")
    assert (user.extends, user.stage2) == ("own.toml", Stage2(epochs=7, min_lr=1e-6))
    assert load_pretraining(masked, backbone="other") == Pretraining(name="masked", epochs=8)
    changes["recipes"] = str(tmp_path / "missing")
    monkeypatch.setitem(catalogue(), "other", replace(entry("s4_small"), **changes))
    with pytest.raises(RecipeError, match="missing") as refused:
        load("fine-tuning")
    assert "recipes" in refused.value.remedy


def test_a_loop_of_files_and_unknown_bases_are_refused(tmp_path: Path) -> None:
    write(
        tmp_path,
        a='extends = "b.toml"',
        b='extends = "a.toml"',
        c='extends = "c.toml"',
        d='extends = "nothing"',
        e="extends = 3",
    )
    for name, message in {
        "a": "b.toml > a.toml", "c": "c.toml > c.toml", "d": "'nothing'", "e": "extends = 3"
    }.items():  # fmt: skip
        with pytest.raises(RecipeError, match=message):
            load_recipe(tmp_path / f"{name}.toml")
    with pytest.raises(RecipeError, match="extends"):
        load_recipe("post-training", ["extends=fine-tuning"])


@pytest.mark.parametrize(
    ("name", "override", "other"),
    [
        ("post-training", "stage1.base_lr=1e-2", "stage1.base_lr_sweep"),
        ("post-training", "stage2.head_init=zero", "stage1.head_init"),
        ("fine-tuning", "stage2.keep=auto", "stage1"),
        ("fine-tuning", "stage2.drop_path_schedule=constant", "stage2.drop_path"),
        ("fine-tuning", "stage2.dropout_where=stmem-all", "stage2.dropout"),
        ("wavelet-nn", "stage2.decay_exempt=backbone", "stage2.weight_decay"),
        ("wavelet-nn", "stage2.min_lr=0.0", "stage2.schedule"),
        ("multiresnet", "data.augmentation_level=5", "data.augmentation"),
        ("multiresnet", "data.aggregate=max", "data.evaluation_crops"),
    ],
)
def test_a_key_without_effect_is_refused(
    tmp_path: Path, name: str, override: str, other: str
) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(RecipeError, match=f"{key} .*{other} = "):
        load_recipe(name, [override])
    changed = value if value[0].isdigit() else f'"{value}"'
    write(tmp_path, own=f'extends = "{name}"\n{key} = {changed}')
    if override != "stage2.min_lr=0.0":  # which is the value of the recipe: no change
        with pytest.raises(RecipeError, match=key):
            load_recipe(tmp_path / "own.toml")


def test_query_attention_excludes_what_needs_a_linear_head() -> None:
    assert load_recipe("linear-probe").head == "linear"
    assert load_recipe("post-training", ["head=query-attention"]).head == "query-attention"
    for override, message in (
        ("stage1.solver=logistic", "solver = logistic"),
        ("stage1.penalty=1.0", "stage1.penalty .*head = query-attention"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe("linear-probe", ["head=query-attention", override])
    with pytest.raises(RecipeError, match="head_bias"):
        load_recipe("fine-tuning", ["head=query-attention", "stage2.head_bias=prior"])


def test_keys_of_another_solver_have_no_effect() -> None:
    for solver, setting in (("logistic", "epochs=5"), ("adamw", "penalty=1.0")):
        with pytest.raises(RecipeError, match=f"stage1.solver = {solver}"):
            load_recipe("linear-probe", [f"stage1.solver={solver}", f"stage1.{setting}"])
    with pytest.raises(RecipeError, match="penalty"):
        load_recipe("linear-probe", ["stage1.penalty=1.0", "stage1.epochs=5"])


@pytest.mark.parametrize(
    ("setting", "solver"),
    [
        ("stage1.base_lr_sweep=[0.01]", "adamw"),
        ("stage1.epochs=100", "adamw"),  # the value of the recipe, but written by the user
        ("stage1.penalty=1.0", "logistic"),
        ("stage1.crops=2", "adamw"),
        ("stage2.epochs=2", "auto"),
    ],
)
def test_a_key_of_one_solver_decides_auto(tmp_path: Path, setting: str, solver: str) -> None:
    stage1 = load_recipe("post-training", [setting]).stage1
    assert stage1 is not None
    assert stage1.solver == solver
    key, _, value = setting.partition("=")
    section, name = key.split(".")
    other = value.replace("100", "99")  # a file that repeats a value of its recipe changes nothing
    (tmp_path / "own.toml").write_text(f'extends = "post-training"\n[{section}]\n{name} = {other}')
    (tmp_path / "next.toml").write_text('extends = "own.toml"\nseed = 1')
    stage1 = load_recipe(tmp_path / "next.toml").stage1
    assert stage1 is not None
    assert stage1.solver == solver


@pytest.mark.parametrize(
    ("settings", "keep"),
    [
        ([], "auto"),
        (["stage1.epochs=2", "seed=1"], "auto"),
        (["stage2.epochs=50"], "better"),
        (["stage2.epochs=1", "stage2.keep=auto"], "auto"),
        (["stage2.epochs=1", "stage2.keep=always"], "always"),
    ],
)
def test_a_key_of_stage_2_means_that_it_is_trained(settings: list[str], keep: str) -> None:
    stage2 = load_recipe("post-training", settings).stage2
    assert stage2 is not None
    assert stage2.keep == keep


def test_a_key_regains_its_effect() -> None:
    both = ["stage1.base_lr=1e-2", "stage1.base_lr_sweep=[]"]
    assert load_recipe("post-training", both).stage1 == Stage1(
        solver="adamw", base_lr=1e-2, crops=4
    )
    cosine = load_recipe("strodthoff", ["stage2.schedule=cosine", "stage2.warmup_epochs=2"]).stage2
    assert cosine is not None
    assert (cosine.warmup_epochs, cosine.one_cycle) == (2, None)
