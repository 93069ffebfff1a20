from __future__ import annotations

import pytest
import torch

from einthoven.objectives.quantiser import GumbelQuantiser


@pytest.fixture
def quantiser() -> GumbelQuantiser:
    torch.manual_seed(0)
    return GumbelQuantiser(6, codes=4, groups=2, out_width=10)


def test_noise_draws_codes_by_their_probabilities(quantiser: GumbelQuantiser) -> None:
    x = torch.randn(1, 1, 6).expand(1, 20_000, 6)
    with torch.no_grad():
        quantiser.projection.weight.mul_(0.3)
        quantised = quantiser(x, noise=torch.rand(1, 20_000, 8))
        expected = quantiser.projection(x[0, 0]).reshape(2, 4).softmax(-1)
    for group in range(2):
        share = torch.bincount(quantised.codes[0, :, group], minlength=4) / 20_000
        assert torch.allclose(share, expected[group], atol=0.015)
    # How the codes are used is measured without the noise.
    assert quantised.code_perplexity.item() == pytest.approx(2.0, abs=1e-4)


def test_the_choice_is_hard_and_its_gradient_soft(quantiser: GumbelQuantiser) -> None:
    x, noise = torch.randn(1, 5, 6, requires_grad=True), torch.rand(1, 5, 8)
    gradients = []
    for temperature in (2.0, 0.5):
        quantised = quantiser(x, temperature=temperature, noise=noise)
        table = quantiser.codebook[0]
        hard = [torch.cat([table[a], table[4 + b]]) for a, b in quantised.codes[0].tolist()]
        assert torch.allclose(quantised.vectors[0], torch.stack(hard), atol=1e-6)
        gradients.append(torch.autograd.grad(quantised.vectors.square().sum(), x)[0])
    assert gradients[0].abs().sum() > 0
    assert not torch.allclose(gradients[0], gradients[1], rtol=0.1)
