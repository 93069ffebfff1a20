"""MULTIRESNET against the reference implementation, through its checkpoint's format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def test_network_and_layers_match_the_reference(
    parity: Callable[[str], Any],
    load_named: Callable[..., Any],
) -> None:
    case = parity("peer_multiresnet")
    net = load_named("multiresnet", "multiresnet", case.weights())
    assert sum(p.numel() for p in net.parameters()) == case.meta["parameters"]
    means: dict[str, Tensor] = {}
    for index in (0, 5):

        def keep(_: Any, given: tuple[Tensor], __: Any, name: str = f"layer{index}") -> None:
            means[f"{name}_time_mean"] = given[0].mean(1)

        # What the first dropout is given: a layer's output after its activation.
        net.backbone.blocks[index].drop1.register_forward_hook(keep)
    with torch.no_grad():
        logits = net(case.x())
    assert len(means) == 2
    case.check(logits=logits, **means)
