"""What the recipe relies on, over every registered backbone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.backbones.contract import Backbone, UnfittedWarning
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import RecipeError
from einthoven.signals.preparation import Preparation
from einthoven.stages.data import adapt_preparation
from einthoven.stages.finetune import ineffective_settings
from einthoven.stages.posttrain import check_weights
from einthoven.stages.recipe import Stage2, load_pretraining, load_recipe, recipe_for
from einthoven.weights.fit import Naming
from einthoven.weights.load import reader_of

# Registered by another package, `tests/extensions`: the second one has nothing to drop.
OUTSIDE = ("outside_mixer", "outside_cnn")
SHIPPED = [
    name for name in backbone_names() if entry(name).network.__module__.startswith("einthoven.")
]


@pytest.fixture(params=[*backbone_names(), *OUTSIDE])
def name(request: pytest.FixtureRequest) -> str:
    """A registered name."""
    if request.param in OUTSIDE:
        request.getfixturevalue("outside_backbone")
    registered: str = request.param
    return registered


def test_the_entry_states_the_parameters(name: str) -> None:
    with torch.device("meta"):
        net = create_backbone(name)
    assert sum(p.numel() for p in net.parameters()) == entry(name).parameters
    assert (net.name, net.family) == (name, entry(name).family)


def test_the_entry_names_recipes_that_exist(name: str) -> None:
    load_recipe(recipe_for(name), backbone=name)
    load_pretraining(entry(name).pretraining_recipe, backbone=name)


def test_the_reader_is_a_naming(name: str) -> None:
    assert isinstance(reader_of(name), Naming if entry(name).reader else type(None))


def _is_slow(name: str) -> bool:
    """Whether a network is large, and a smaller one of its family runs the same code."""
    registered = entry(name)
    family = [
        entry(other) for other in backbone_names() if entry(other).family == registered.family
    ]
    smallest = min(other.parameters for other in family)
    return registered.parameters > (40e6 if registered.parameters == smallest else 20e6)


@cache
def _built(name: str) -> Backbone:
    built = create_backbone(name, seed=0)
    built.fit_statistics([_x(built, 16)])
    return built


@pytest.fixture(
    params=[
        *(pytest.param(n, marks=pytest.mark.slow if _is_slow(n) else ()) for n in backbone_names()),
        *OUTSIDE,
    ]
)
def net(request: pytest.FixtureRequest) -> Backbone:
    """A registered backbone at full size, as it was built."""
    if request.param in OUTSIDE:
        request.getfixturevalue("outside_backbone")
    built = _built(request.param).eval()
    for branches in built.residual_branches():
        for branch in branches:
            branch.rate = 0.0
    return built.requires_grad_(True)


def _x(net: Backbone, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    samples = net.preparation.window
    if samples > 250:  # a short input, of whole patches
        samples = ceil(max(samples // 10, net.shortest) / net.multiple) * net.multiple
    return torch.randn(batch, len(net.leads), samples, generator=generator)


def test_takes_what_its_preparation_gives(net: Backbone) -> None:
    preparation = net.preparation
    assert isinstance(preparation, Preparation)
    assert preparation.leads == net.leads
    assert Preparation.from_dict(preparation.to_dict()) == preparation
    x = torch.randn(1, len(preparation.leads), preparation.window)
    with torch.no_grad():
        features, tokens = net.features(x), net.tokens(x)
    assert features.shape == (1, net.feature_dim)
    assert (tokens.shape[0], tokens.ndim) == (1, 3)
    assert features.isfinite().all()


def test_forward_is_features_and_eval_is_deterministic(net: Backbone) -> None:
    x = _x(net)
    with torch.no_grad():
        assert torch.equal(net(x), net.features(x))


def test_records_of_a_batch_are_independent(net: Backbone) -> None:
    x = _x(net, 3)
    with torch.no_grad():
        together = net(x)
        # Untrained batch norms pass on what they get: a deep peer's features are millions.
        scale = max(1.0, float(together.abs().max())) if entry(net.name).is_supervised else 1.0
        assert torch.allclose(together[1:2], net(x[1:2]), atol=1e-4 * scale)
        assert net(x[:0]).shape == (0, net.feature_dim)


def test_backward_reaches_every_parameter(net: Backbone) -> None:
    classifier = Classifier(net.train(), 3)
    classifier.zero_grad()
    classifier(_x(net)).square().sum().backward()
    lost = [n for n, p in classifier.named_parameters() if p.grad is None or not p.grad.any()]
    # Softmax cancels the key biases, which are part of a fused tensor and so do not show here.
    assert lost == []


def test_a_head_of_query_attention_reads_the_tokens(net: Backbone) -> None:
    """Of inputs of any length and any of the leads that a network takes."""
    classifier = Classifier(net.train(), 3, head="query-attention")
    x = _x(net)
    classifier.zero_grad()
    classifier(x).square().sum().backward()
    reached = {name for name, p in net.named_parameters() if p.grad is not None}
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert reached == trained  # of several processes, each averages every gradient
    assert trained | set(net.pooling_parameters()) == {name for name, _ in net.named_parameters()}
    assert all(p.grad is not None and p.grad.any() for p in classifier.head.parameters())
    with torch.no_grad():
        classifier.eval()
        assert net.tokens(x).shape[2] == net.token_dim
        longer = x.repeat(1, 1, 2)
        if net.longest is None or longer.shape[2] <= net.longest:
            assert classifier(longer).shape == (2, 3)
        assert classifier(x[:0]).shape == (0, 3)


def test_trains_after_it_was_used_in_inference_mode(net: Backbone) -> None:
    """Whatever it keeps from one call to the next must not have been made in inference mode."""
    overrides = {key: value for key, value in vars(net.config).items() if key != "name"}
    fresh = create_backbone(net.name, **overrides).train()  # nothing is kept yet
    fresh.load_state_dict(net.state_dict())
    x = _x(net)
    with torch.inference_mode():
        fresh.features(x)
    fresh.features(x).sum().backward()
    assert any(parameter.grad is not None for parameter in fresh.parameters())


def test_layer_groups_partition_the_parameters(net: Backbone) -> None:
    groups = net.layer_groups()
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(name for name, _ in net.named_parameters())
    assert all(groups[:-1])  # the last holds the final norm, where there is one
    assert len(groups) == len(net.residual_branches()) + 2
    assert net.no_weight_decay() <= set(names)


def test_residual_branches_are_all_the_holders_and_they_work(net: Backbone) -> None:
    blocks = net.residual_branches()
    holders = [module for module in net.modules() if isinstance(module, StochasticDepth)]
    assert [id(h) for block in blocks for h in block] == [id(h) for h in holders]
    assert all(blocks) or not holders  # in every block, or nowhere
    if not holders:
        return
    x = _x(net)
    with torch.no_grad():
        plain = net.eval().features(x)
        for block in blocks:
            for branch in block:
                branch.rate = 0.5
        assert torch.allclose(net.features(x), plain, atol=1e-4)  # in evaluation nothing is dropped
        for holder in holders:
            holder.train()  # nothing else: batch norm and dropout stay as in evaluation
        assert not torch.allclose(net.features(x), plain, atol=1e-4)
        net.eval()


def test_dropouts_are_listed_or_declared_in_the_config(net: Backbone) -> None:
    """A peer's own dropouts are in its config and in no list, so that no recipe changes them."""
    listed = [*net.feedforward_dropouts(), *net.other_dropouts()]
    own = [d for d in net.modules() if isinstance(d, _DropoutNd) and not _among(d, listed)]
    published = getattr(net.config, "dropout", 0.0)  # S4's own, until a recipe sets another
    assert all(isinstance(d, nn.Dropout) and d.p == published for d in listed)
    assert len({id(d) for d in listed}) == len(listed)
    if entry(net.name).is_supervised:
        assert {d.p for d in own} == _declared(net.config) - {d.p for d in listed}
    else:
        assert not any(d.p for d in own)  # attention's, which no recipe sets
        own = []
    rates = [(dropout, dropout.p) for dropout in (*listed, *own)]
    for dropout, _ in rates:
        dropout.p = 0.0
    x = _x(net)
    with torch.no_grad():
        plain = net.train().features(x)
        assert torch.allclose(net.features(x), plain, atol=1e-4)  # nothing else is drawn
        for dropouts in filter(None, (net.feedforward_dropouts(), net.other_dropouts(), own)):
            for dropout in dropouts:
                dropout.p = 0.3
            assert not torch.allclose(net.features(x), plain, atol=1e-4)
            for dropout in dropouts:
                dropout.p = 0.0
    for dropout, rate in rates:
        dropout.p = rate


def _among(module: nn.Module, modules: Sequence[nn.Module]) -> bool:
    return any(module is each for each in modules)


def _declared(config: Any) -> set[float]:
    """Every rate that a config's fields named after dropout give."""
    fields = [value for field, value in vars(config).items() if "dropout" in field]
    return {rate for value in fields for rate in (value if isinstance(value, tuple) else (value,))}


@pytest.mark.parametrize("name", [name for name in SHIPPED if not entry(name).is_supervised])
def test_post_training_regularises_every_pretrained_network_of_this_package(name: str) -> None:
    """Other packages' networks, and those trained from random weights, may have nothing to drop."""
    with torch.device("meta"):
        made = create_classifier(name, labels=1)
    assert ineffective_settings(made, Stage2(drop_path=0.1, dropout=0.1)) == []


def test_is_rebuilt_from_its_name_and_config(net: Backbone) -> None:
    overrides: dict[str, Any] = {
        key: value for key, value in vars(net.config).items() if key != "name"
    }
    with torch.device("meta"):
        again = create_backbone(net.name, **overrides)
    shapes = {key: tensor.shape for key, tensor in again.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in net.state_dict().items()}


def test_unfitted_statistics_warn_once(net: Backbone) -> None:
    with torch.device("meta"):
        fresh = create_backbone(net.name)
    if not fresh.fits_statistics:
        fresh.fit_statistics([_x(net)])  # nothing to do
        return
    fresh = create_backbone(net.name, seed=0).eval()
    with torch.no_grad():
        with pytest.warns(UnfittedWarning, match="fit_statistics"):
            fresh.features(_x(fresh))
        fresh.features(_x(fresh))  # another warning would be an error here


@pytest.mark.parametrize("name", [name for name in backbone_names() if entry(name).is_supervised])
def test_supervised_networks_have_a_recipe(name: str) -> None:
    required = entry(name).recipe
    recipe = load_recipe(required)
    assert (recipe.initialise, recipe.stage1) == ("random", None)
    if name in SHIPPED:  # as in the benchmark
        assert (recipe.data.augmentation, recipe.data.standardise) == ("none", "scalar")
    with torch.device("meta"):
        made = create_classifier(
            name, head_init=recipe.stage2.head_init if recipe.stage2 else "stock"
        )
    # The recipe's crops are those that the network is made for.
    assert adapt_preparation(made.preparation, recipe.data) == made.preparation
    check_weights(recipe, None, name)
    with pytest.raises(RecipeError, match="post-training") as refused:
        check_weights(load_recipe("post-training"), None, name)
    assert f"`{required}`" in refused.value.remedy
    assert "scratch" not in refused.value.remedy
