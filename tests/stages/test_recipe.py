from __future__ import annotations

from pathlib import Path

import pytest

from einthoven.errors import RecipeError
from einthoven.stages.recipe import (
    Data,
    Pretraining,
    Recipe,
    Stage1,
    Stage2,
    load_pretraining,
    load_recipe,
    recipe_names,
)


def test_every_preset_reads() -> None:
    for name in recipe_names():
        assert load_recipe(name).name == name.rsplit("/", 1)[-1]
    for name in recipe_names(Pretraining):
        assert load_pretraining(name).name == name


def test_the_paper_s_recipe() -> None:
    recipe = load_recipe("post-training")
    assert recipe.stage1 is not None
    assert recipe.stage2 is not None
    assert recipe.stage1.epochs == 100
    assert (recipe.stage2.drop_path, recipe.stage2.dropout) == (0.1, 0.01)
    assert (recipe.stage2.base_lr, recipe.stage2.weight_decay) == (1e-3, 0.05)
    assert recipe.stage2.select == recipe.stage1.hand_on == "best"


@pytest.mark.parametrize("folder", ["", "ptbxl-100hz-cpu/", "demo/"])
def test_plain_fine_tuning_differs_from_post_training_in_the_pieces_only(folder: str) -> None:
    plain, ours = load_recipe(f"{folder}fine-tuning"), load_recipe(f"{folder}post-training")
    assert plain.stage1 is None
    assert plain.data == ours.data
    assert plain.stage2 is not None
    assert ours.stage2 is not None
    pieces = {"drop_path": 0.0, "dropout": 0.0}
    assert ours.stage2.model_copy(update=pieces) == plain.stage2


def test_overrides_take_toml_values_and_bare_words() -> None:
    recipe = load_recipe(
        "post-training",
        ["stage2.drop_path=0.2", "stage2.drop_path_schedule=constant", "data.crop_seconds=2.5"],
    )
    assert recipe.stage2 is not None
    assert (recipe.stage2.drop_path, recipe.stage2.drop_path_schedule) == (0.2, "constant")
    assert recipe.data.crop_seconds == 2.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage2.droppath=0.2", "unknown key stage2.droppath"),
        ("stage3.epochs=1", "unknown key stage3"),
        ("stage2.drop_path=1.0", "drop_path = 1.0"),
        ("stage2.drop_path=high", "drop_path = 'high'"),
        ("stage2.epochs=0", "epochs = 0"),
        ("stage2.epochs=2.5", "epochs = 2.5"),
        ("stage2.micro_batch=3", "does not divide"),
        ("stage2.base_lr=nan", "base_lr"),
        ("initialise=random", "random backbone"),
        ("precision=fp8", "precision"),
        ("stage2", "no assignment"),
        ("name.first=x", "no section"),
    ],
)
def test_mistakes_are_refused_before_any_data_is_read(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("post-training", [override])


def test_unknown_recipes_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="choose fine-tuning"):
        load_recipe("posttraining")
    with pytest.raises(RecipeError, match="missing"):
        load_recipe(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(RecipeError, match="no TOML"):
        load_recipe(tmp_path / "broken.toml")
    (tmp_path / "empty.toml").write_text('name = "nothing"\n')
    with pytest.raises(RecipeError, match="nothing would be trained"):
        load_recipe(tmp_path / "empty.toml")
    (tmp_path / "own.toml").write_text('name = "own"\n[stage1]\nepochs = 3\n')
    assert load_recipe(tmp_path / "own.toml").stage2 is None


def test_docs_describe_every_key_with_its_default_s_reason() -> None:
    """docs/recipes.md and the recipe's own descriptions say the same."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text()
    for table, prefix in [
        (Recipe, ""),
        (Data, "data."),
        (Stage1, "stage1."),
        (Stage2, "stage2."),
        (Pretraining, ""),
    ]:
        for key, field in table.model_fields.items():
            if key in ("data", "stage1", "stage2"):
                continue
            assert field.description, f"{prefix}{key} has no description"
            row = f"| `{prefix}{key}` |"
            assert row in page, row
            assert " ".join(field.description.split()) in page, row
