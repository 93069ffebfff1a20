"""Networks without public weights against their reference implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from einthoven.backbones.classifier import create_classifier

BENCHMARK = ("fcn_wang", "resnet1d_wang", "xresnet1d101", "inception1d", "lstm", "lstm_bidir")


def check_size(net: torch.nn.Module, case: Any) -> None:
    assert sum(p.numel() for p in net.parameters()) == case.meta["parameters"]


@pytest.mark.parametrize("name", BENCHMARK)
def test_benchmark_logits_and_pooled_vector(
    name: str, parity: Callable[[str], Any], load_named: Callable[..., Any]
) -> None:
    case = parity(f"peer_{name}")
    net = load_named(name.removesuffix("_bidir"), name, case.weights())
    check_size(net, case)
    backbone = net.backbone
    with torch.no_grad():
        case.check(logits=net(case.x()), pooled=backbone.pool(backbone.tokens(case.x())))


def test_mtecg(parity: Callable[[str], Any], load_named: Callable[..., Any]) -> None:
    case = parity("mtecg_ti")
    net = load_named("mtecg", "mtecg_tiny", case.weights())
    check_size(net, case)
    x = case.x()[:, 0]
    with torch.no_grad():
        case.check(
            features=net.backbone.features(x),
            logits=net(x),
            logits_tiny_input=net(x * 2**-9),
        )


def test_multiresnet(parity: Callable[[str], Any], load_named: Callable[..., Any]) -> None:
    case = parity("peer_multiresnet")
    net = load_named("multiresnet", "multiresnet", case.weights())
    check_size(net, case)
    means: dict[str, Tensor] = {}
    for index in (0, 5):

        def keep(_: Any, inputs: tuple[Tensor], __: Any, name: str = f"layer{index}") -> None:
            means[f"{name}_time_mean"] = inputs[0].mean(1)

        # The input of the first dropout is a layer's output after its activation.
        net.backbone.blocks[index].drop1.register_forward_hook(keep)
    with torch.no_grad():
        logits = net(case.x())
    assert len(means) == 2
    case.check(logits=logits, **means)


def test_spacetime(parity: Callable[[str], Any], load_named: Callable[..., Any]) -> None:
    case = parity("peer_spacetime_encoder")
    windows = {"encoder.blocks.0.preprocessing.windows": case.stored("ma_windows").long()}
    net = load_named("spacetime", "spacetime", case.weights() | windows)
    check_size(net, case)
    tokens: list[Tensor] = []
    for block in net.backbone.blocks:
        block.register_forward_hook(lambda _, args, out: tokens.append(out))
    with torch.no_grad():
        logits = net(case.x().transpose(1, 2))
    means = {f"block{i}_time_mean": each.mean(1) for i, each in enumerate(tokens)}
    case.check(logits=logits, last_block_first3=tokens[-1][:, :3], **means)
    assert len(tokens) == 4


def test_fixed_filters_of_spacetime(parity: Callable[[str], Any]) -> None:
    case = parity("peer_spacetime_encoder")
    first = create_classifier("spacetime", seed=0).backbone.blocks[0].preprocessing  # type: ignore[union-attr,index]
    first.windows.copy_(case.stored("ma_windows").long())
    groups = first.kernel().unflatten(0, (16, 2, 4))
    for half, key in enumerate(("diff_kernel", "ma_r_kernel")):
        sums = case.meta["kept_as_computed"][f"encoder.blocks.0.pre.{key}"]
        kernel = groups[:, half].double()
        assert abs(kernel.sum().item() - sums["sum"]) < 1e-5
        assert abs(kernel.abs().sum().item() - sums["abs_sum"]) < 1e-4
