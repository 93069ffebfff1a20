"""Networks of every recipe and experiment at full size, built without memory for their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.contract import SequenceBackbone
from einthoven.backbones.registry import create_backbone
from einthoven.objectives import create_pretraining
from einthoven.reproduce.experiment import POST, experiment_names, load_experiment
from einthoven.signals.prepare import resampled_length
from einthoven.stages.data import adapt_preparation
from einthoven.stages.finetune import _groups, regularise
from einthoven.stages.pretrain import parts_of
from einthoven.stages.recipe import Pretraining, Recipe, load_pretraining, recipe_names
from einthoven.training.optim import parameter_groups, scaled_lr

# Backbones of each pretraining preset.
PRETRAINED = {
    "demo": ("mtecg_tiny_100hz",),
    "ecg-fm": ("ecg_fm",),
    "hubert-ecg": ("hubert_ecg_small",),
    **{
        f"{objective}-100hz-cpu": ("s4_small", "transformer_small", "net1d_small")
        for objective in ("data2vec", "dinosr", "hubert", "jepa", "sinkhorn-kmeans")
    },
    **{
        f"{objective}-240hz": ("s4", "transformer")
        for objective in ("data2vec", "dinosr", "jepa", "sinkhorn-kmeans")
    },
    "mae": ("st_mem_base", "mtecg_tiny"),
    "ptbxl-100hz-cpu": ("mtecg_tiny_100hz",),
    "release": ("st_mem_base",),
    "s4-240hz": ("s4", "ecg_cpc"),
    "s4-240hz-corrected": ("s4", "ecg_cpc"),
    "s4-ptbxl-100hz-cpu": ("s4_small", "s4_tiny"),
}
# Backbones of the experiments whose files name none.
BACKBONES = {
    "ptbxl-100hz-cpu": ("mtecg_tiny_100hz",),
    "published": ("st_mem_base",),
    "s4-240hz-gpu": ("s4", "ecg_cpc"),
    "s4-240hz-corrected-gpu": ("s4",),
    "st-mem-250hz-gpu": ("st_mem_base",),
}
WITH_PRETRAINING = {
    name
    for name in experiment_names()
    if load_experiment(name).pretraining and not load_experiment(name).has_backbones
}
GRIDS = [
    (name, backbone)
    for name in sorted(WITH_PRETRAINING)
    for backbone in BACKBONES.get(name, tuple(load_experiment(name).backbones))
]


def objective_of(recipe: Pretraining, backbone: str, **options: Any) -> Any:
    with torch.device("meta"):
        return create_pretraining(
            backbone, objective=recipe.objective, backbone_options=options, **recipe.options
        )


def without_memory(backbone: str, options: dict[str, Any] | None) -> Any:
    with torch.device("meta"):
        return create_backbone(backbone, **(options or {}))


def fine_tuned(recipe: Recipe, backbone: str, options: dict[str, Any] | None) -> Any:
    """A classifier at the start of the recipe's second stage."""
    with torch.device("meta"):
        classifier = create_classifier(backbone, labels=71, **(options or {}))
    if recipe.stage2:
        regularise(classifier, recipe.stage2)
    return classifier


def rates(groups: list[dict[str, Any]], names: dict[int, str], peak: float) -> dict[str, float]:
    """Learning rate at the peak by parameter."""
    return {names[id(p)]: peak * group["lr_scale"] for group in groups for p in group["params"]}


def test_the_lists_name_every_preset_and_experiment() -> None:
    assert PRETRAINED.keys() == set(recipe_names(Pretraining))
    assert BACKBONES.keys() <= WITH_PRETRAINING == {name for name, _ in GRIDS}


@pytest.mark.parametrize(("name", "backbone"), [(n, b) for n in PRETRAINED for b in PRETRAINED[n]])
def test_pretraining_trains_every_parameter(name: str, backbone: str) -> None:
    recipe = load_pretraining(name)
    objective = objective_of(recipe, backbone)
    preparation = objective.backbone.preparation
    if recipe.crop_seconds is not None:
        preparation = preparation.with_window(seconds=recipe.crop_seconds)
    for rate in (100, 500):  # of PTB-XL
        assert resampled_length(preparation, 10 * rate, rate=rate) >= preparation.window
    groups = parameter_groups(
        objective, weight_decay=recipe.weight_decay, layers=parts_of(objective)
    )
    trainable = [p for p in objective.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trainable)
    heads = [n for n, _ in objective.named_parameters() if not n.startswith("backbone.")]
    assert len(heads) + sum(map(len, parts_of(objective))) == len(list(objective.parameters()))


@pytest.mark.parametrize(("name", "backbone"), GRIDS)
def test_fine_tuning_continues_the_pretrained_network(name: str, backbone: str) -> None:
    experiment = load_experiment(name)
    pretraining, pretraining_options = experiment.pretraining_of(backbone)
    source = objective_of(pretraining, backbone, **pretraining_options).backbone
    options = experiment.options_of(backbone)
    for variant in experiment.variants:
        recipe = experiment.recipe(variant, backbone)
        classifier = fine_tuned(recipe, backbone, options)
        preparation = adapt_preparation(classifier.preparation, recipe.data)
        assert resampled_length(preparation, 5000, rate=500) >= preparation.window
        if recipe.stage2 is not None:
            groups = _groups(classifier, recipe.stage2)
            trainable = sum(p.requires_grad for p in classifier.parameters())
            assert sum(len(group["params"]) for group in groups) == trainable
    network = without_memory(backbone, options)
    assert network.state_dict().keys() == source.state_dict().keys()
    if isinstance(network, SequenceBackbone):
        assert network.input_scale == source.input_scale


def test_the_published_pretraining_of_s4() -> None:
    """reference: rates of 3e-3, 3e-4 and 3e-5, 600 samples, 300 tokens, 14 ahead, 128 negatives."""
    recipe = load_pretraining("s4-240hz")
    objective = objective_of(recipe, "s4")
    assert (
        objective.backbone.preparation.with_window(seconds=recipe.crop_seconds or 0).window == 600
    )
    assert (objective.backbone.token_rate, objective.offsets) == (120.0, (14,))
    assert (objective.config.negatives, objective.config.pool) == (128, 0)
    assert objective.backbone.input_scale is None
    assert (recipe.epochs, recipe.batch_size, recipe.weight_decay) == (100, 64, 1e-3)
    names = {id(p): name for name, p in objective.named_parameters()}
    groups = parameter_groups(
        objective,
        weight_decay=recipe.weight_decay,
        layers=parts_of(objective),
        layer_decay=recipe.part_decay,
    )
    peak = scaled_lr(recipe.base_lr, recipe.batch_size)
    assert peak == pytest.approx(recipe.min_lr)  # constant
    learning_rates = rates(groups, names, peak)
    assert learning_rates["heads.0.weight"] == pytest.approx(3e-3)
    assert learning_rates["backbone.blocks.0.kernel.C"] == pytest.approx(3e-4)
    assert learning_rates["backbone.blocks.3.norm.weight"] == pytest.approx(3e-4)
    assert learning_rates["backbone.stem.0.weight"] == pytest.approx(3e-5)


def test_the_published_fine_tuning_of_s4() -> None:
    """reference: rates of 1e-3, 1e-4 and 1e-5 after pretraining, 1e-3 throughout without."""
    experiment = load_experiment("s4-240hz-gpu")
    for variant, expected in (
        (POST, (1e-3, 1e-4, 1e-5)),
        ("as-ecg-cpc", (1e-3, 1e-4, 1e-5)),
        ("scratch", (1e-3,) * 3),
    ):
        recipe = experiment.recipe(variant, "s4")
        assert recipe.stage2 is not None
        classifier = fine_tuned(recipe, "s4", None)
        names = {id(p): name for name, p in classifier.named_parameters()}
        peak = scaled_lr(recipe.stage2.base_lr, recipe.stage2.batch_size)
        learning_rates = rates(_groups(classifier, recipe.stage2), names, peak)
        keys = ("head.weight", "backbone.blocks.3.norm.weight", "backbone.stem.0.weight")
        assert [learning_rates[key] for key in keys] == pytest.approx(expected)
    dropouts = {drop.p for drop in fine_tuned(recipe, "s4", None).backbone.feedforward_dropouts()}
    assert dropouts == {0.0}
    published = experiment.recipe("as-ecg-cpc", "s4")
    assert {
        drop.p for drop in fine_tuned(published, "s4", None).backbone.feedforward_dropouts()
    } == {0.2}
