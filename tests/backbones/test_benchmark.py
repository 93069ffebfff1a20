"""What holds for all networks of the PTB-XL benchmark."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import SMALL
from torch import Tensor, nn

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.layers.benchmark import BenchmarkBackbone
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.steps import Resample, Scale, Window
from einthoven.stages.finetune import regularise
from einthoven.stages.recipe import Stage2

NAMES = ("fcn_wang", "resnet1d_wang", "xresnet1d101", "inception1d", "lstm")
FULL = ("fcn_wang", "resnet1d_wang", "xresnet1d50", "inception1d", "lstm_bidir")


@pytest.fixture(params=FULL)
def net(request: pytest.FixtureRequest) -> BenchmarkBackbone:
    """Each class of network, small."""
    return _small(request.param)


def _small(name: str, **options: Any) -> BenchmarkBackbone:
    built = create_backbone(name, seed=0, **(SMALL[name] | options))
    assert isinstance(built, BenchmarkBackbone)
    return built.eval()


def _x(batch: int = 3, samples: int = 100) -> Tensor:
    return torch.randn(batch, 12, samples, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("name", NAMES)
def test_preparation_is_that_of_the_benchmark(name: str) -> None:
    with torch.device("meta"):
        net = create_backbone(name)
        scaled = create_backbone(name, standardiser=[-0.001, 0.239], window=500)
    assert net.preparation.steps == (Resample(100), Window(250, evaluation_crops=7))
    assert net.preparation.leads == STANDARD_LEADS
    assert net.feature_dim == 128
    assert scaled.preparation.steps[1:] == (
        Window(500, evaluation_crops=7),
        Scale(mean=-0.001, std=0.239),
    )


@pytest.mark.parametrize("name", ["fcn_wang", "xresnet1d50", "inception1d", "lstm"])
def test_initial_weights_are_those_of_the_benchmark(name: str) -> None:
    net = create_backbone(name, seed=0)
    drawn = [part for part in net.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for part in (part for part in drawn if part.weight.numel() > 5000):
        weight = part.weight.detach()
        expected = (2 / weight[0].numel()) ** 0.5
        assert float(weight.std()) == pytest.approx(expected, rel=0.05)
        assert weight.mean().abs() < 0.1 * expected
    assert all(part.bias is None or not part.bias.any() for part in drawn)
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms
    assert all(bool((norm.weight == 1).all()) and not norm.bias.any() for norm in norms)


def test_a_batch_of_one_is_evaluated_but_not_trained_on(net: BenchmarkBackbone) -> None:
    x = _x()
    with torch.no_grad():
        assert torch.allclose(net(x[:1]), net(x)[:1], rtol=1e-3, atol=1e-4)
    with pytest.raises(BackboneError, match="drop_last"):
        net.train()(x[:1])
    assert net(x[:2]).isfinite().all()


def test_a_recipe_leaves_the_published_dropouts_alone(net: BenchmarkBackbone) -> None:
    classifier = create_classifier(net.name, labels=3, **SMALL[net.name])
    regularise(classifier, Stage2(drop_path=0.2, dropout=0.1, dropout_where="stmem-all"))
    rates = [part.p for part in classifier.backbone.modules() if isinstance(part, nn.Dropout)]
    assert rates == [0.25, 0.5]
    holders = [branch for block in classifier.backbone.residual_branches() for branch in block]
    assert not holders or holders[-1].rate == 0.2


def test_shortcuts_go_on_where_every_branch_is_dropped(net: BenchmarkBackbone) -> None:
    """Every record loses every branch: the network still trains, on its shortcuts."""
    for block in net.residual_branches():
        for branch in block:
            branch.rate = 1 - 1e-12
    net.train()(_x()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
