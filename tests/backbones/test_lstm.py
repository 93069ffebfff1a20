from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from einthoven.backbones.registry import create_backbone


def _by_hand(x: Tensor, lstm: Any, layer: int, *, reverse: bool) -> Tensor:
    """The states of one direction of one layer, (batch, samples, units), in the samples' order."""
    end = f"_l{layer}_reverse" if reverse else f"_l{layer}"
    w_in, w_state, b_in, b_state = (
        getattr(lstm, name + end) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    steps = x.unbind(1)[::-1] if reverse else x.unbind(1)
    state = cell = x.new_zeros(len(x), w_state.shape[1])
    states = []
    for step in steps:
        gates = step @ w_in.T + b_in + state @ w_state.T + b_state
        take, forget, new, give = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
        state = give.sigmoid() * cell.tanh()
        states.append(state)
    return torch.stack(states[::-1] if reverse else states, dim=1)


@pytest.mark.parametrize("name", ["lstm", "lstm_bidir"])
def test_two_layers_over_every_sample(name: str) -> None:
    net: Any = create_backbone(name, seed=0, width=6).eval()
    x = torch.randn(3, 12, 9, generator=torch.Generator().manual_seed(0))
    h = x.transpose(1, 2)
    for layer in range(2):
        directions = [False, True] if name == "lstm_bidir" else [False]
        h = torch.cat([_by_hand(h, net.lstm, layer, reverse=r) for r in directions], dim=2)
    with torch.no_grad():
        assert torch.allclose(net.tokens(x), h, atol=1e-6)


def test_pools_mean_maximum_and_the_last_sample_s_step() -> None:
    net: Any = create_backbone("lstm", width=2)
    tokens = torch.tensor([[[1.0, -4.0], [5.0, -2.0], [3.0, -6.0]]])
    assert net.pool(tokens).tolist() == [[3.0, -4.0, 5.0, -2.0, 3.0, -6.0]]


def test_the_last_step_is_the_last_sample_s_in_both_directions() -> None:
    """The benchmark's quirk: the backward half of the last step knows one sample only."""
    net: Any = create_backbone("lstm_bidir", seed=0, width=6, depth=1).eval()
    x = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(0))
    other = torch.cat([torch.randn(2, 12, 29), x[..., -1:]], dim=-1)
    with torch.no_grad():
        backward, changed = (net.pool(net.tokens(each))[:, -6:] for each in (x, other))
        assert torch.allclose(backward, changed, atol=1e-6)
        assert torch.allclose(backward, net.tokens(x[..., -1:])[:, 0, -6:], atol=1e-6)
        forward = net.pool(net.tokens(x))[:, -12:-6]
        assert torch.allclose(forward, net.tokens(x)[:, -1, :6])


@pytest.mark.parametrize(("name", "sizes"), [("lstm", [4, 4, 6]), ("lstm_bidir", [8, 8, 6])])
def test_the_first_layer_is_the_stem(name: str, sizes: list[int]) -> None:
    net = create_backbone(name, width=4)
    assert [len(group) for group in net.layer_groups()] == sizes
    assert all(n.endswith(("_l1", "_l1_reverse")) for n in net.layer_groups()[1])
    assert net.residual_branches() == [[]]
