from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from einthoven.backbones.classifier import (
    Classifier,
    create_classifier,
    initialise_head,
    start_at_prior,
)
from einthoven.backbones.layers.query_attention import QueryAttention
from einthoven.errors import BackboneError

NAME = "mtecg_tiny_100hz"


def test_logits_are_the_head_of_the_features() -> None:
    net = create_classifier(NAME, labels=("NORM", "AFIB"), seed=0, depth=1).eval()
    x = torch.randn(3, 12, 100)
    assert net.labels == ("NORM", "AFIB")
    assert torch.equal(net(x), net.head(net.backbone.features(x)))
    assert create_classifier(NAME, depth=1).head.out_features == 71


def test_head_start() -> None:
    assert not create_classifier(NAME, labels=4, depth=1, head_init="zero").head.weight.any()
    drawn = create_classifier(NAME, labels=400, depth=1, seed=0, head_init="kaiming-normal").head
    assert drawn.weight.std().item() == pytest.approx((2 / drawn.in_features) ** 0.5, rel=0.02)
    assert not drawn.bias.any()
    head = torch.nn.Linear(192, 500)
    initialise_head(head, "glorot-uniform")
    limit = (6 / (192 + 500)) ** 0.5
    assert head.weight.abs().max().item() == pytest.approx(limit, rel=0.001)
    assert head.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.01)
    assert not head.bias.any()
    initialise_head(head, "normal-0.01")
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.bias.any()
    initialise_head(head, "stock")
    assert head.weight.abs().max().item() == pytest.approx(192**-0.5, rel=0.01)


def test_a_head_that_starts_at_the_labels_shares() -> None:
    head = torch.nn.Linear(8, 3)
    weight = head.weight.clone()
    targets = np.array([[1, 0, 1]] * 19 + [[0, 0, 1]] * 180, dtype=np.uint8)
    start_at_prior(head, targets)
    assert torch.equal(head.weight, weight)
    # 19, none and all of 199, and half a record on either side.
    assert head.bias.sigmoid().tolist() == pytest.approx([0.0975, 0.0025, 0.9975], rel=1e-4)


@pytest.mark.parametrize("labels", [0, (), "NORM", ("A", "A")])
def test_refuses_impossible_labels(labels: object) -> None:
    net = create_classifier(NAME, labels=2, depth=1)
    with pytest.raises(BackboneError, match="labels"):
        Classifier(net.backbone, labels)  # type: ignore[arg-type]


def test_refuses_an_unknown_head_start() -> None:
    with pytest.raises(BackboneError, match="head_init = 'ones'"):
        create_classifier(NAME, depth=1, head_init="ones")


def reference(head: QueryAttention, tokens: Tensor) -> Tensor:
    """The same attention by PyTorch's module, which projects every token."""
    width = head.key_projection.out_features
    attention = nn.MultiheadAttention(
        width, QueryAttention.HEADS, bias=False, kdim=head.in_features, vdim=head.in_features,
        batch_first=True,
    )  # fmt: skip
    with torch.no_grad():
        parameters = dict(attention.named_parameters())
        if attention.in_proj_weight is None:
            parameters["q_proj_weight"].copy_(torch.eye(width))
            parameters["k_proj_weight"].copy_(head.key_projection.weight)
            parameters["v_proj_weight"].copy_(head.value_projection.weight)
        else:
            weights = torch.eye(width), head.key_projection.weight, head.value_projection.weight
            parameters["in_proj_weight"].copy_(torch.cat(weights))
        attention.out_proj.weight.copy_(torch.eye(width))
    query = head.query_projection(head.query).expand(len(tokens), 1, width)
    return head.output(attention(query, tokens, tokens)[0][:, 0])


@pytest.mark.parametrize("width", [64, 20, 7])
def test_query_attention_is_attention_of_sixteen_heads(width: int) -> None:
    torch.manual_seed(0)
    head, tokens = QueryAttention(width, 5), 3 * torch.randn(4, 9, width)
    assert torch.allclose(head(tokens), reference(head, tokens), atol=1e-5)
    shares = head.attention(tokens)
    assert shares.shape == (4, 16, 9)
    assert torch.allclose(shares.sum(-1), torch.ones(4, 16))
    assert head.key_projection.out_features % 16 == 0
    order = torch.randperm(9)
    assert torch.allclose(head(tokens), head(tokens[:, order]), atol=1e-5)


def test_query_attention_reads_tokens_and_has_the_published_size() -> None:
    net = create_classifier(NAME, labels=("NORM", "AFIB"), head="query-attention", seed=0, depth=1)
    x = torch.randn(3, 12, 100)
    assert torch.equal(net.eval()(x), net.head(net.backbone.tokens(x)))
    assert net.head_kind == "query-attention"
    s4 = create_classifier("ecg_cpc", head="query-attention")
    # "3.8 M" with 71 outputs: 2.93 M of the encoder, and the head.
    assert sum(p.numel() for p in s4.head.parameters()) == 512 + 3 * 512**2 + 512 * 71
    zero = create_classifier(NAME, depth=1, head="query-attention", head_init="zero").head
    assert isinstance(zero, QueryAttention)
    assert not zero.output.weight.any()
    assert zero.query.any()
    with pytest.raises(BackboneError, match="biases"):
        start_at_prior(zero, np.ones((3, 71)))
    with pytest.raises(BackboneError, match="head = 'mlp'"):
        create_classifier(NAME, depth=1, head="mlp")  # type: ignore[arg-type]
