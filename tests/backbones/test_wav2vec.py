"""Parts that HuBERT-ECG and ECG-FM share, and what a recipe does to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.backbones.layers.wav2vec import (
    ConvExtractor,
    PaddedAttention,
    PostNormBlock,
    PostNormBlocks,
    mean_of_valid,
    valid_tokens,
)
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError, RecipeError
from einthoven.stages.finetune import extractor_of, regularise
from einthoven.stages.recipe import Stage2
from einthoven.training.optim import parameter_groups

ECG_FM = {"kernels": (2, 2, 2, 2), "strides": (2, 2, 2, 2)}


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
        remaining = [block for i, block in enumerate(blocks) if not skipped >> i & 1]
        y = x
        for block in remaining:
            y = block(y)
        outcomes.append(y)
    seen = set()
    for _ in range(60):
        y = blocks(x)
        seen |= {i for i, outcome in enumerate(outcomes) if torch.allclose(y, outcome, atol=1e-6)}
    assert seen == set(range(8))
    assert torch.allclose(blocks.eval()(x), outcomes[0], atol=1e-6)


def test_valid_tokens_are_those_whose_samples_are_all_there() -> None:
    extractor = ConvExtractor(1, 2, **ECG_FM)
    valid = valid_tokens(extractor, torch.tensor([160, 47, 16]), tokens=10)
    assert valid.sum(1).tolist() == [10, 2, 1]
    assert valid[1].tolist() == [True, True] + [False] * 8
    x = torch.randn(3, 10, 4)
    assert torch.allclose(mean_of_valid(x, valid)[1], x[1, :2].mean(0), atol=1e-6)
    assert torch.equal(mean_of_valid(x), x.mean(1))
    for samples in (15, 176):
        with pytest.raises(BackboneError, match=rf"\b{samples}\b"):
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


TINY: dict[str, Any] = {
    "depth": 2, "width": 32, "heads": 2, "conv_width": 16, "pos_kernel": 9, "pos_groups": 4,
}  # fmt: skip
SAMPLES = {"hubert_ecg_small": 100, "ecg_fm": 160}


@pytest.fixture(params=list(SAMPLES))
def classifier(request: pytest.FixtureRequest) -> Classifier:
    return create_classifier(request.param, labels=3, seed=0, **TINY)


def test_a_frozen_extractor_stays_and_everything_else_moves(classifier: Classifier) -> None:
    regularise(classifier, Stage2(freeze_extractor=True))
    before = {name: p.detach().clone() for name, p in classifier.named_parameters()}
    optimiser = torch.optim.SGD(
        [{"params": g["params"]} for g in parameter_groups(classifier, weight_decay=0.0)], lr=1.0
    )
    x = torch.randn(4, 12, SAMPLES[classifier.backbone.name])
    loss = binary_cross_entropy_with_logits(classifier.train()(x), torch.eye(4, 3))
    loss.backward()
    optimiser.step()
    still = {name for name, p in classifier.named_parameters() if torch.equal(p, before[name])}
    assert still == {f"backbone.{name}" for name in extractor_of(classifier.backbone)}
    # Nothing of the backward pass reached it: that is the time it saves.
    assert all(p.grad is None for p in classifier.backbone.extractor.parameters())


def test_backbones_without_an_extractor_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="mtecg_tiny_100hz"):
        extractor_of(create_backbone("mtecg_tiny_100hz", seed=0, depth=1))
