from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from einthoven.backbones.layers.wav2vec import (
    ConvExtractor,
    ConvPositions,
    PaddedAttention,
    PostNormBlock,
    PostNormBlocks,
    mean_of_valid,
    valid_tokens,
)
from einthoven.errors import BackboneError

HUBERT = {"kernels": (10, 3, 3, 2, 2), "strides": (4, 2, 2, 2, 2)}
ECG_FM = {"kernels": (2, 2, 2, 2), "strides": (2, 2, 2, 2)}


@pytest.mark.parametrize(("shape", "field"), [(HUBERT, 82), (ECG_FM, 16)])
def test_tokens_are_counted_without_computing_them(
    shape: dict[str, tuple[int, ...]], field: int
) -> None:
    extractor = ConvExtractor(1, 4, **shape)
    assert extractor.receptive_field == field
    assert extractor.tokens_of(field) == 1
    assert extractor.tokens_of(field - 1) == 0
    for samples in (field, field + 1, 500, 501, 563):
        assert extractor(torch.randn(1, 1, samples)).shape == (1, extractor.tokens_of(samples), 4)


def test_published_numbers_of_tokens() -> None:
    lengths = torch.tensor([500, 1000, 3000, 6000, 12000])
    assert ConvExtractor(1, 2, **HUBERT).tokens_of(lengths).tolist() == [7, 15, 46, 93, 187]
    lengths = torch.tensor([1000, 1250, 2500, 5000])
    assert ConvExtractor(12, 2, **ECG_FM).tokens_of(lengths).tolist() == [62, 78, 156, 312]


def test_only_the_first_convolution_is_normalised_and_over_time() -> None:
    extractor = ConvExtractor(2, 4, kernels=(4, 3), strides=(2, 2))
    x = torch.randn(3, 2, 40)
    first = extractor.convs[0](x)
    first = (first - first.mean(-1, keepdim=True)) / (
        first.var(-1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    gelu = nn.functional.gelu
    expected = gelu(extractor.convs[1](gelu(first))).transpose(1, 2)
    assert torch.allclose(extractor(x), expected, atol=1e-5)


@pytest.mark.parametrize("kernel", [8, 7])
def test_positions_equal_a_convolution_with_pytorchs_weight_norm(kernel: int) -> None:
    positions = ConvPositions(12, kernel=kernel, groups=3)
    conv = nn.Conv1d(12, 12, kernel, padding=kernel // 2, groups=3)
    reference = weight_norm(conv, dim=2)
    with torch.no_grad():
        positions.gain.uniform_(0.5, 2.0)
        positions.bias.normal_()
        reference.parametrizations.weight.original0.copy_(positions.gain)
        reference.parametrizations.weight.original1.copy_(positions.direction)
        reference.bias.copy_(positions.bias)
    x = torch.randn(2, 20, 12)
    out = reference(x.transpose(1, 2))[..., :20]  # an even kernel gives one more
    expected = x + nn.functional.gelu(out).transpose(1, 2)
    assert torch.allclose(positions(x), expected, atol=1e-6)


def test_positions_start_from_their_direction_alone() -> None:
    positions = ConvPositions(64, kernel=16, groups=4)
    assert torch.allclose(positions.weight, positions.direction)
    assert positions.direction.std().item() == pytest.approx((4 / (16 * 64)) ** 0.5, rel=0.05)


def _pytorch_layer(block: PostNormBlock, width: int, heads: int) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True
    )
    pairs = {
        "self_attn.in_proj_weight": block.attn.qkv.weight,
        "self_attn.in_proj_bias": block.attn.qkv.bias,
        "self_attn.out_proj.weight": block.attn.proj.weight,
        "self_attn.out_proj.bias": block.attn.proj.bias,
        "linear1.weight": block.mlp.fc1.weight,
        "linear1.bias": block.mlp.fc1.bias,
        "linear2.weight": block.mlp.fc2.weight,
        "linear2.bias": block.mlp.fc2.bias,
        "norm1.weight": block.norm1.weight,
        "norm1.bias": block.norm1.bias,
        "norm2.weight": block.norm2.weight,
        "norm2.bias": block.norm2.bias,
    }
    layer.load_state_dict(pairs)
    return layer


def test_a_block_is_pytorchs_post_norm_layer() -> None:
    block = PostNormBlock(16, 4)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    layer = _pytorch_layer(block, 16, 4)
    x = torch.randn(2, 7, 16)
    assert torch.allclose(block(x), layer(x), atol=1e-5)
    valid = torch.arange(7) < torch.tensor([[7], [4]])
    padded = layer(x, src_key_padding_mask=~valid)
    assert torch.allclose(block(x, valid)[valid], padded[valid], atol=1e-5)
    assert not torch.allclose(block(x)[1, :4], padded[1, :4], atol=1e-3)


def test_a_dropped_branch_leaves_the_norm_of_the_input() -> None:
    block, x = PostNormBlock(16, 4), 3.0 + 5.0 * torch.randn(64, 3, 16)
    block.drop_path1.rate = block.drop_path2.rate = 0.999
    normalised = block.norm2(block.norm1(x))
    kept_nothing = [
        torch.allclose(ours, plain, atol=1e-5)
        for ours, plain in zip(block(x), normalised, strict=True)
    ]
    assert sum(kept_nothing) >= 60


def test_layerdrop_skips_whole_blocks_for_the_batch() -> None:
    torch.manual_seed(0)
    blocks, x = PostNormBlocks(3, 16, 4, layerdrop=0.5), torch.randn(4, 5, 16)
    outcomes = []
    for skipped in range(8):
        chosen = [block for i, block in enumerate(blocks) if not skipped >> i & 1]
        y = x
        for block in chosen:
            y = block(y)
        outcomes.append(y)
    seen = set()
    for _ in range(60):
        y = blocks(x)
        seen |= {i for i, outcome in enumerate(outcomes) if torch.allclose(y, outcome, atol=1e-6)}
    assert seen == set(range(8))
    assert torch.allclose(blocks.eval()(x), outcomes[0], atol=1e-6)


def test_a_skipped_block_gets_gradients_of_zero() -> None:
    blocks = PostNormBlocks(2, 16, 4, layerdrop=0.9999)
    x = torch.randn(4, 5, 16, requires_grad=True)
    out = blocks(x)
    assert torch.equal(out, x)
    out.square().sum().backward()
    gradients = [parameter.grad for parameter in blocks.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_without_layerdrop_no_random_numbers_are_drawn() -> None:
    blocks, state = PostNormBlocks(2, 16, 4), torch.get_rng_state()
    blocks(torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)


def test_valid_tokens_are_those_whose_samples_are_all_there() -> None:
    extractor = ConvExtractor(1, 2, **ECG_FM)
    valid = valid_tokens(extractor, torch.tensor([160, 47, 16]), tokens=10)
    assert valid.sum(1).tolist() == [10, 2, 1]
    assert valid[1].tolist() == [True, True] + [False] * 8
    x = torch.randn(3, 10, 4)
    assert torch.allclose(mean_of_valid(x, valid)[1], x[1, :2].mean(0), atol=1e-6)
    assert torch.equal(mean_of_valid(x), x.mean(1))
    for samples in (15, 176):
        with pytest.raises(BackboneError, match=f"and {samples}|between {samples}"):
            valid_tokens(extractor, torch.tensor([samples]), tokens=10)


def test_padding_under_stochastic_depth_is_refused() -> None:
    torch.manual_seed(0)
    blocks = PostNormBlocks(1, 16, 4)
    x, valid = torch.randn(8, 5, 16), torch.ones(8, 5, dtype=torch.bool)
    blocks(x, valid)
    for block in blocks:
        block.drop_path1.rate = 0.5
    with pytest.raises(BackboneError, match="stochastic depth"):
        blocks(x, valid)
    blocks.eval()(x, valid)


def test_dropout_on_attention_acts_with_and_without_padding() -> None:
    attention, x = PaddedAttention(16, 4), torch.randn(2, 5, 16)
    attention.attention_dropout.p = 0.5
    everything = torch.ones(2, 5, dtype=torch.bool)
    plain = attention.eval()(x)
    assert torch.allclose(attention(x, everything), plain, atol=1e-6)
    attention.train()
    assert not torch.allclose(attention(x, everything), plain, atol=1e-3)
    assert not torch.allclose(attention(x), plain, atol=1e-3)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: ConvExtractor(1, 2, kernels=(2, 2), strides=(2,)), "conv_strides"),
        (lambda: ConvExtractor(1, 2, kernels=(), strides=()), "conv_kernels"),
        (lambda: ConvPositions(10, groups=4), "pos_groups = 4"),
        (lambda: PostNormBlocks(0, 8, 2), "depth = 0"),
        (lambda: PostNormBlocks(1, 8, 2, layerdrop=1.0), "layerdrop = 1.0"),
        (lambda: PostNormBlocks(1, 8, 2, attention_dropout=-0.1), "attention_dropout = -0.1"),
    ],
)
def test_refuses_impossible_shapes(build: object, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        build()  # type: ignore[operator]
