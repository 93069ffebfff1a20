"""Contrastive predictive coding against its definition, loop by loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError, RecipeError
from einthoven.objectives import create_objective
from einthoven.objectives.cpc import draw_negatives
from einthoven.signals.steps import Scale


def _cpc(**options: Any) -> Any:
    backbone = create_backbone("s4_tiny", width=16, depth=1, state=4, seed=0)
    torch.manual_seed(0)
    return create_objective("cpc", backbone, **options).eval()  # type: ignore[attr-defined]


X = torch.randn(3, 12, 80, generator=torch.Generator().manual_seed(0))


def test_published_loss_is_that_of_gathered_vectors() -> None:
    cpc = _cpc(preset="as-published", negatives=7)
    loss = cpc(X, generator=torch.Generator().manual_seed(5)).loss
    z = cpc.backbone.embed(X)
    tokens, offset = z.shape[1], cpc.offsets[0]
    truth = torch.arange(offset, tokens).expand(3, -1)
    drawn = draw_negatives(truth, tokens, 7, torch.Generator().manual_seed(5))
    predicted = cpc.heads[0](cpc.backbone.contextualise(z)[:, :-offset])
    total = torch.zeros(())
    for record in range(3):
        for t in range(tokens - offset):
            rows = [t + offset, *drawn[record, t].tolist()]
            scores = z[record, rows] @ predicted[record, t]
            total = total + cross_entropy(scores[None], torch.zeros(1, dtype=torch.long))
    assert loss.item() == pytest.approx(total.item() / 3, rel=1e-5)


def test_all_negatives_are_the_softmax_over_the_record() -> None:
    cpc = _cpc(offsets_ms=[40.0, 100.0], pool=0)
    z = cpc.backbone.embed(X)
    context = cpc.backbone.contextualise(z)
    losses = []
    for head, offset in zip(cpc.heads, (2, 5), strict=True):
        scores = head(context[:, :-offset]) @ z.transpose(1, 2)
        truth = torch.arange(offset, z.shape[1]).expand(3, -1)
        losses.append(cross_entropy(scores.flatten(0, 1), truth.flatten()))
    assert cpc(X).loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_truth_in_the_pool_is_excluded() -> None:
    """Its score is minus infinity wherever the pool holds it, and nowhere else."""
    pooled = _cpc(pool=300)
    z = pooled.backbone.embed(X)
    records, tokens = z.shape[:2]
    pool = torch.randint(records * tokens, (300,), generator=torch.Generator().manual_seed(0))
    logits, _ = pooled._logits(z[:, :-4], z, 4, pool, None)
    truth = torch.arange(4, tokens) + tokens * torch.arange(records)[:, None]
    assert torch.equal(logits[..., tokens:].isneginf(), truth[..., None] == pool)
    assert logits[..., :tokens].isfinite().all()


def test_cosine_similarities_are_scale_free() -> None:
    cpc = _cpc(normalise=True, temperature=0.1, pool=0)
    before = cpc(X).loss.item()
    with torch.no_grad():
        for head in cpc.heads:
            head.weight *= 7.0
    assert cpc(X).loss.item() == pytest.approx(before, rel=1e-4)


def test_negatives_are_uniform_over_all_but_the_truth() -> None:
    truth = torch.tensor([[0, 3, 4]])
    drawn = draw_negatives(truth, 5, 40_000, torch.Generator().manual_seed(0))
    for row, positive in zip(drawn[0], truth[0].tolist(), strict=True):
        counts = torch.bincount(row, minlength=5).tolist()
        assert counts.pop(positive) == 0
        assert all(abs(count - 10_000) < 400 for count in counts)


def test_windows_shorter_than_an_offset_are_refused() -> None:
    with pytest.raises(RecipeError, match="24 tokens"):
        _cpc()(X[..., :48])


def test_encoders_that_see_the_future_are_refused() -> None:
    with pytest.raises(BackboneError, match="causal=True"):
        create_objective("cpc", create_backbone("s4_tiny", causal=False))


def test_the_corrected_preset_gives_every_backbone_a_scale_of_inputs() -> None:
    for name in ("s4", "ecg_cpc", "s4_tiny"):
        with torch.device("meta"):
            backbone = create_backbone(name, depth=1)
            raw = backbone.preparation
            objective = create_objective("cpc", backbone, preset="corrected")
        steps = objective.backbone.preparation.steps
        assert steps[-1] == Scale(mean=0.0, std=0.25)
        assert objective.backbone.config.scale == 0.25
        assert (raw.steps == steps) == (name == "s4_tiny")  # which has one by itself
    with torch.device("meta"):
        published = create_objective("cpc", create_backbone("s4"), preset="as-published")
    assert not any(isinstance(step, Scale) for step in published.backbone.preparation.steps)


def test_scale_of_the_backbone_is_kept() -> None:
    scaled = create_backbone("s4_tiny", depth=1, scale=0.5)
    assert create_objective("cpc", scaled).backbone.preparation.steps[-1] == Scale(0.0, 0.5)
    plain = create_objective("cpc", create_backbone("s4_tiny", depth=1, scale=None), scale=2.0)
    assert plain.backbone.preparation.steps[-1] == Scale(0.0, 2.0)
    with pytest.raises(RecipeError, match=r"0\.25 mV"):
        _cpc(scale=0.5)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(RecipeError, match="scale"):
            create_objective("cpc", create_backbone("s4_tiny", depth=1, scale=None), scale=wrong)
