"""What holds for all networks of the PTB-XL benchmark."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.layers.benchmark import BenchmarkBackbone, Dense, max_and_mean
from einthoven.backbones.layers.convolution import ConvNorm
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import Resample, Scale, Window
from einthoven.stages.finetune import regularise
from einthoven.stages.recipe import Stage2

NAMES = (
    "fcn_wang",
    "resnet1d_wang",
    "xresnet1d50",
    "xresnet1d101",
    "inception1d",
    "lstm",
    "lstm_bidir",
)
SMALL: dict[str, dict[str, Any]] = {
    "fcn_wang": {"widths": (16, 16, 8)},
    "resnet1d_wang": {"width": 16},
    "xresnet1d50": {"stem_widths": (8, 8, 8), "width": 8, "depths": (1, 2, 1)},
    "inception1d": {"width": 8},
    "lstm_bidir": {"width": 8},
}


@pytest.fixture(params=SMALL)
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


def test_recurrent_weights_have_pytorch_defaults() -> None:
    net: Any = create_backbone("lstm", seed=0)
    for weight in net.lstm.parameters():
        assert weight.abs().max() < 1 / 16
        assert float(weight.detach().std()) == pytest.approx(1 / 16 / 3**0.5, rel=0.1)


# ---------------------------------------------------------------------- forward


def test_features_are_the_dense_layers_over_the_pooled_tokens(net: BenchmarkBackbone) -> None:
    x = _x()
    with torch.no_grad():
        tokens = net.tokens(x)
        assert torch.equal(net(x), net.dense(net.pool(tokens)))
    assert tokens.shape[:1] == (3,)
    assert net.dense.norm1.num_features == net.pool(tokens).shape[1]


def test_the_maxima_come_first() -> None:
    tokens = torch.tensor([[[1.0, -4.0], [3.0, -2.0]]])
    assert max_and_mean(tokens, torch.float32).tolist() == [[3.0, -2.0, 2.0, -3.0]]


def test_a_batch_of_one_is_evaluated_but_not_trained_on(net: BenchmarkBackbone) -> None:
    x = _x()
    with torch.no_grad():
        assert torch.allclose(net(x[:1]), net(x)[:1], rtol=1e-3, atol=1e-4)
    with pytest.raises(BackboneError, match=r"one record in training[\s\S]*drop_last"):
        net.train()(x[:1])
    assert net(x[:2]).isfinite().all()


def test_lengths_from_the_shortest_on(net: BenchmarkBackbone) -> None:
    assert net.shortest == (2 if net.name == "fcn_wang" else 1)
    with torch.no_grad():
        for samples in (net.shortest, 33, 64, 250):
            assert net(_x(2, samples)).isfinite().all()
        with pytest.raises(BackboneError, match=r"input of \d samples"):
            net(_x(2, net.shortest - 1))


def test_a_double_network_and_a_half_one_run(net: BenchmarkBackbone) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        assert net.to(dtype)(_x().to(dtype)).dtype is dtype


FULL = ("fcn_wang", "resnet1d_wang", "xresnet1d50", "inception1d", "lstm_bidir")


def _product_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Every convolution with its norm, every one without, and recurrent layers."""
    found = {n: part for n, part in net.named_modules() if isinstance(part, ConvNorm | nn.LSTM)}
    bare = {n: part for n, part in net.named_modules() if isinstance(part, nn.Conv2d)}
    return found | {n: part for n, part in bare.items() if n.rpartition(".")[0] not in found}


@pytest.mark.parametrize("name", FULL)
def test_every_layer_is_right_in_bf16(name: str) -> None:
    """Outputs and weights' gradients on the inputs that the layers get, at full size."""
    net = create_backbone(name, seed=0).eval()
    layers, inputs = _product_layers(net), {}
    assert sum(p.numel() for part in layers.values() for p in part.parameters()) > 200_000
    for key, part in layers.items():
        part.register_forward_hook(lambda _, args, out, key=key: inputs.update({key: args[0]}))
    net(_x(2, 125))
    for key, part in layers.items():
        part.relu = False  # whose zeros are decided by rounding
        x, found = inputs[key].detach(), []
        for low in (False, True):
            part.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
                out = part(x)
            out = (out[0] if isinstance(out, tuple) else out).float()
            (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
            gradients = [p.grad.flatten() for p in part.parameters() if p.grad is not None]
            found.append((out.detach(), torch.cat(gradients)))
        for exact, rough in zip(*found, strict=True):
            assert (rough - exact).norm() < 0.03 * exact.norm(), key


@pytest.mark.parametrize("name", FULL)
def test_bf16_in_training_is_like_rounding_the_input(name: str) -> None:
    """Deep untrained networks enlarge any error: that of a rounded input is the measure."""
    net = create_backbone(name, seed=0).train()
    assert isinstance(net, BenchmarkBackbone)
    x = _x(8, 125)
    with torch.no_grad():
        exact, near = (net.pool(net.tokens(each)) for each in (x, x.bfloat16().float()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net.pool(net.tokens(x))
            assert net(x).dtype is torch.float32
    assert rough.dtype is torch.float32
    assert (rough - exact).norm() < 8 * (near - exact).norm()


# ---------------------------------------------------------------------- recipes


def test_a_recipe_leaves_the_published_dropouts_alone(net: BenchmarkBackbone) -> None:
    classifier = create_classifier(net.name, labels=3, **SMALL[net.name])
    regularise(classifier, Stage2(drop_path=0.2, dropout=0.1, dropout_where="stmem-all"))
    rates = [part.p for part in classifier.backbone.modules() if isinstance(part, nn.Dropout)]
    assert rates == [0.25, 0.5]
    holders = [branch for block in classifier.residual_branches() for branch in block]
    assert not holders or holders[-1].rate == 0.2


def test_shortcuts_go_on_where_every_branch_is_dropped(net: BenchmarkBackbone) -> None:
    """Every record loses every branch: the network still trains, on its shortcuts."""
    for block in net.residual_branches():
        for branch in block:
            branch.rate = 1 - 1e-12
    net.train()(_x()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_dense_layers_in_their_order() -> None:
    dense = Dense(6, 4, (0.25, 0.5)).eval()
    for norm in (dense.norm1, dense.norm2):
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(value, 0.5, 1.5)  # type: ignore[arg-type]
    x = torch.randn(3, 6)
    hidden = torch.relu(dense.linear(dense.norm1(x)))
    assert torch.allclose(dense(x), dense.norm2(hidden))
    dropped = dense.train().drop1(torch.ones(10_000)), dense.drop2(torch.ones(10_000))
    assert [float((d == 0).float().mean()) for d in dropped] == pytest.approx([0.25, 0.5], abs=0.02)
