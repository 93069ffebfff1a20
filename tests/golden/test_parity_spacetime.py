"""SpaceTime's blocks against the reference implementation, in the assembly of the fixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.spacetime import SpaceTime

RENAMED = {
    "embedding.layers.": "backbone.embedding.",
    "encoder.blocks.": "backbone.blocks.",
    ".ssm.skip": ".skip",
    ".ssm.": ".kernel.",
    ".mlp.layers.2.": ".linear.",
}


def _ours(key: str) -> str:
    for theirs, ours in RENAMED.items():
        key = key.replace(theirs, ours)
    return key


def test_classifier_and_blocks_match_the_reference(parity: Callable[[str], Any]) -> None:
    case = parity("peer_spacetime_encoder")
    net = create_classifier("spacetime", labels=71, seed=0).eval()
    encoder = net.backbone
    assert isinstance(encoder, SpaceTime)
    assert sum(p.numel() for p in net.parameters()) == case.meta["parameters"]
    state = {_ours(key): tensor for key, tensor in case.weights().items()}
    windows = "backbone.blocks.0.preprocessing.windows"
    state[windows] = case.stored("ma_windows").long()
    net.load_state_dict(state)
    tokens: list[Tensor] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _, args, out: tokens.append(out))
    with torch.no_grad():
        logits = net(case.x().transpose(1, 2))
    means = {f"block{i}_time_mean": each.mean(1) for i, each in enumerate(tokens)}
    case.check(logits=logits, last_block_first3=tokens[-1][:, :3], **means)
    assert len(tokens) == 4


def test_fixed_filters_are_the_reference_ones(parity: Callable[[str], Any]) -> None:
    case = parity("peer_spacetime_encoder")
    first = create_classifier("spacetime", seed=0).backbone.blocks[0].preprocessing  # type: ignore[union-attr,index]
    first.windows.copy_(case.stored("ma_windows").long())
    groups = first.kernel().unflatten(0, (16, 2, 4))
    computed = case.meta["kept_as_computed"]
    for half, key in enumerate(("diff_kernel", "ma_r_kernel")):
        about = computed[f"encoder.blocks.0.pre.{key}"]
        kernel = groups[:, half].double()
        assert abs(kernel.sum().item() - about["sum"]) < 1e-5
        assert abs(kernel.abs().sum().item() - about["abs_sum"]) < 1e-4
