from __future__ import annotations

from pathlib import Path

import pytest
import torch

from einthoven.backbones.registry import backbone_names, entry
from einthoven.errors import BackboneError, RecipeError
from einthoven.stages.pretrain import check_pretraining, suitable_recipes
from einthoven.stages.recipe import load_pretraining, load_recipe, recipe_for


def refusal(recipe: str, backbone: str, **options: object) -> BackboneError:
    with pytest.raises(BackboneError) as caught:
        check_pretraining(load_pretraining(recipe), backbone, options)
    return caught.value


@pytest.mark.parametrize(
    "backbone",
    ["s4_tiny", "s4_small", "s4", "ecg_cpc", "ecg_fm", "mtecg_tiny_100hz", "st_mem_tiny"],
)
def test_default_pretraining_suits_the_backbone(backbone: str) -> None:
    name = entry(backbone).pretraining_recipe
    before = torch.random.get_rng_state()
    check_pretraining(load_pretraining(name), backbone)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert suitable_recipes(backbone)[0] == name


def test_general_recipes_are_replaced_by_those_of_the_backbone() -> None:
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
    with pytest.raises(BackboneError, match="'s5'"):
        recipe_for("s5")


def test_other_recipe_names_stay() -> None:
    for name in ("demo/post-training", "ptbxl-100hz-cpu/scratch", "own.toml", Path("own.toml")):
        assert recipe_for("s4_small", name) == name
    assert recipe_for("lstm", "strodthoff") == "strodthoff"


def test_suitable_recipes_of_masked_and_causal_backbones() -> None:
    masked, causal = suitable_recipes("mtecg_tiny_100hz"), suitable_recipes("s4_tiny")
    assert {"mae", "release", "ptbxl-100hz-cpu"} <= set(masked)
    assert "s4-ptbxl-100hz-cpu" in causal
    assert not set(masked) & set(causal)
    assert suitable_recipes("xresnet1d101") == []


def test_crop_of_a_fractional_number_of_patches_does_not_suit() -> None:
    assert "625 samples" in refusal("ptbxl-100hz-cpu", "st_mem_tiny").problem
    assert suitable_recipes("st_mem_tiny") == ["release", "mae"]


def test_options_of_the_backbone_decide() -> None:
    check_pretraining(load_pretraining("s4-ptbxl-100hz-cpu"), "s4_tiny", {"causal": True})
    error = refusal("s4-ptbxl-100hz-cpu", "s4_tiny", causal=False)
    assert "causal=True" in error.remedy


def test_unknown_option_of_the_objective_is_refused() -> None:
    with pytest.raises(RecipeError, match="mask_ratioo"):
        check_pretraining(
            load_pretraining("release", ["options.mask_ratioo=0.5"]), "mtecg_tiny_100hz"
        )
