from __future__ import annotations

from pathlib import Path

import pytest
import torch

from einthoven.backbones.registry import backbone_names, entry
from einthoven.errors import BackboneError, RecipeError
from einthoven.stages.recipe import load_pretraining, load_recipe
from einthoven.stages.suited import (
    check_pretraining,
    default_pretraining,
    recipe_for,
    suggestions,
    suited_recipes,
    suits,
)


def why(recipe: str, backbone: str, **options: object) -> BackboneError:
    with pytest.raises(BackboneError) as caught:
        check_pretraining(load_pretraining(recipe), backbone, options)
    return caught.value


@pytest.mark.parametrize(
    "backbone",
    ["s4_tiny", "s4_small", "s4", "ecg_cpc", "ecg_fm", "mtecg_tiny_100hz", "st_mem_tiny"],
)
def test_the_default_suits(backbone: str) -> None:
    name = default_pretraining(backbone)
    check_pretraining(load_pretraining(name), backbone)
    assert suited_recipes(backbone)[0] == name


def test_defaults_are_of_backbones_that_are_there() -> None:
    assert default_pretraining("st_mem_base") == "release"
    with pytest.raises(BackboneError, match="unknown backbone"):
        default_pretraining("s5")


def test_the_four_recipes_are_those_of_the_backbone_s_own_settings() -> None:
    folders = {name: entry(name).recipes for name in backbone_names() if entry(name).recipes}
    assert folders
    for name in ("post-training", "fine-tuning", "linear-probe", "scratch"):
        for backbone, folder in folders.items():
            assert recipe_for(backbone, name) == f"{folder}/{name}"
            assert load_recipe(recipe_for(backbone, name)).name == name
        assert recipe_for("st_mem_base", name) == name
    assert recipe_for("s4_small") == "s4-100hz-cpu/post-training"
    assert recipe_for("st_mem_base") == "post-training"
    assert recipe_for("lstm") == "strodthoff-rnn"
    with pytest.raises(BackboneError, match="unknown backbone"):
        recipe_for("s5")


def test_what_is_named_in_full_is_what_is_meant() -> None:
    for name in ("demo/post-training", "ptbxl-100hz-cpu/scratch", "own.toml", Path("own.toml")):
        assert recipe_for("s4_small", name) == name
    assert recipe_for("lstm", "strodthoff") == "strodthoff"


def test_what_suits_is_told_apart() -> None:
    masked, causal = suited_recipes("mtecg_tiny_100hz"), suited_recipes("s4_tiny")
    assert {"mae", "release", "ptbxl-100hz-cpu"} <= set(masked)
    assert "s4-ptbxl-100hz-cpu" in causal
    assert not set(masked) & set(causal)
    assert suited_recipes("xresnet1d101") == []


def test_a_crop_that_is_no_whole_number_of_patches_does_not_suit() -> None:
    error = why("ptbxl-100hz-cpu", "st_mem_tiny")
    assert "625 samples" in error.problem
    assert suited_recipes("st_mem_tiny") == ["release", "mae"]


def test_options_of_the_backbone_count() -> None:
    recipe = load_pretraining("s4-ptbxl-100hz-cpu")
    assert suits(recipe, "s4_tiny", {"causal": True})
    assert not suits(recipe, "s4_tiny", {"causal": False})


def test_the_remedy_names_recipes_or_objectives() -> None:
    error = why("release", "s4_tiny")
    assert suggestions(error, "s4_tiny").startswith("choose --recipe s4-ptbxl-100hz-cpu")
    assert "objective cmsc" in suggestions(why("release", "xresnet1d101"), "xresnet1d101")
    both = why("s4-ptbxl-100hz-cpu", "s4_tiny", causal=False)
    assert "causal=True" in suggestions(both, "s4_tiny", {"causal": False})


def test_a_wrong_option_of_the_objective_is_its_own_refusal() -> None:
    with pytest.raises(RecipeError, match="mask_ratioo"):
        check_pretraining(
            load_pretraining("release", ["options.mask_ratioo=0.5"]), "mtecg_tiny_100hz"
        )


def test_nothing_is_drawn() -> None:
    before = torch.random.get_rng_state()
    for name, backbone in (("release", "mtecg_tiny_100hz"), ("s4-ptbxl-100hz-cpu", "s4_tiny")):
        check_pretraining(load_pretraining(name), backbone)
    assert torch.equal(torch.random.get_rng_state(), before)
