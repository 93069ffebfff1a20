"""Objectives with student and teacher: masks, targets, teachers, codebooks, and their state."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, smooth_l1_loss

from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError, RecipeError, TrainingError
from einthoven.objectives import create_objective, create_pretraining
from einthoven.objectives.dinosr import Codebook
from einthoven.objectives.hubert import cluster_logits, signal_statistics
from einthoven.objectives.masks import draw_blocks, draw_centred_spans
from einthoven.objectives.sinkhorn_kmeans import Prototypes, sinkhorn, spread_starts
from einthoven.objectives.teacher import Teacher, TeacherConfig
from einthoven.signals.random import ShareGenerator

NAMES = ("jepa", "data2vec", "dinosr", "sinkhorn_kmeans")
SMALL = {"width": 16, "depth": 2, "state": 4, "stem_norm": "none"}
X = torch.randn(4, 12, 120, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, **options: Any) -> Any:
    own = {} if name == "sinkhorn_kmeans" else {"head_state": 4, "head_dropout": 0.0}
    own |= {"codes": 8} if name == "dinosr" else {}
    own |= {"clusters": (4, 8)} if name == "sinkhorn_kmeans" else {}
    return create_pretraining(
        "s4_tiny", objective=name, seed=0, backbone_options=SMALL, **own | options
    )


def train(objective: Any, steps: int, start: int = 0) -> list[float]:
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=0.05)
    losses = []
    for step in range(start, start + steps):
        loss = objective(X, generator=seeded(step)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        objective.after_step(step + 1)
        losses.append(loss.item())
    return losses


def state(objective: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in objective.state_dict().items()}


# ------------------------------------------------------------------ teacher


@pytest.mark.parametrize("name", NAMES)
def test_the_published_teacher_is_another_network_that_stays(name: str) -> None:
    objective = built(name, preset="as-published")
    assert float(objective.teacher.distance(objective.backbone)) > 0.3
    before = state(objective.teacher.network)
    train(objective, 2)
    after = state(objective.teacher.network)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert objective.teacher.network.training
    assert not built(name).teacher.network.training


def test_an_update_is_the_moving_average_and_copies_buffers() -> None:
    student = create_backbone("s4_tiny", **SMALL | {"stem_norm": "batch"}, seed=0)
    teacher = Teacher(student, TeacherConfig(momentum=(0.9, 0.9)))
    old = {name: p.clone() for name, p in student.named_parameters()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 1.0
        next(b for n, b in student.named_buffers() if "running_mean" in n).fill_(3.0)
    teacher.update(student, 1)
    for name, parameter in teacher.network.named_parameters():
        torch.testing.assert_close(parameter, old[name] + 0.1)
    averages = [b for n, b in teacher.network.named_buffers() if "running_mean" in n]
    assert (averages[0] == 3.0).all()


def test_momentum_is_a_ramp() -> None:
    student = create_backbone("s4_tiny", **SMALL, seed=0)
    teacher = Teacher(student, TeacherConfig(momentum=(0.9, 1.0), momentum_steps=10))
    values = [teacher.momentum(step) for step in (1, 6, 11, 500)]
    assert values == pytest.approx([0.9, 0.95, 1.0, 1.0])


def test_another_network_than_the_student_is_refused() -> None:
    student = create_backbone("s4_tiny", **SMALL, seed=0)
    teacher = Teacher(student, TeacherConfig())
    with pytest.raises(TrainingError):
        teacher.update(create_backbone("s4_tiny", **SMALL | {"depth": 1}), 1)


# ------------------------------------------------------------------ masks


def test_published_spans_hide_six_per_cent() -> None:
    """300 tokens: 18.8 hidden, none in 14 % of records (fact sheet, simulated there too)."""
    mask = draw_centred_spans((20_000, 300), 1 - (1 - 0.0065) ** 10, 10, generator=seeded())
    assert mask.float().mean().item() == pytest.approx(0.063, abs=0.002)
    assert (~mask.any(1)).float().mean().item() == pytest.approx(0.14, abs=0.01)


@pytest.mark.parametrize(("ratio", "span"), [(0.5, 10), (0.5, 4), (0.33, 1), (0.2, 3)])
def test_spans_hide_the_expected_share_in_whole_spans(ratio: float, span: int) -> None:
    mask = draw_centred_spans((5_000, 100), ratio, span, generator=seeded())
    assert mask.shape == (5_000, 100)
    inner = mask[:, span:-span].float().mean().item()
    assert inner == pytest.approx(ratio, abs=0.01)
    edges = torch.nn.functional.pad(mask.int(), (1, 1)).diff(dim=1)
    starts, ends = (edges == 1).nonzero(), (edges == -1).nonzero()
    lengths = ends[:, 1] - starts[:, 1]
    inside = (starts[:, 1] > 0) & (ends[:, 1] < 100)
    assert lengths[inside].min() == span


def test_published_blocks_cover_what_the_released_sampler_covers() -> None:
    """300 tokens: targets 58.9 %, context 36.7 % without fallback, which 10.4 % of records need.

    Numbers of the fact sheet, simulated there too.
    """
    covered, seen, fallback = [], [], []
    for seed in range(40):
        blocks = draw_blocks(
            (200, 300),
            blocks=4,
            target_share=(0.15, 0.2),
            context_share=(0.85, 1.0),
            least=64,
            generator=seeded(seed),
        )
        assert blocks.targets.shape == (200, 4, 64)
        target = torch.zeros(200, 300, dtype=torch.bool)
        target.scatter_(1, blocks.targets.flatten(1), True)
        covered.append(target.float().mean())
        replaced = (target & blocks.context).any(1)
        seen.append(blocks.context[~replaced].float().mean())
        fallback.append(replaced.float().mean())
    assert torch.stack(covered).mean().item() == pytest.approx(0.589, abs=0.01)
    assert torch.stack(seen).mean().item() == pytest.approx(0.367, abs=0.01)
    assert torch.stack(fallback).mean().item() == pytest.approx(0.104, abs=0.015)


def test_corrected_blocks_vary_in_length_and_leave_the_context_alone() -> None:
    lengths = set()
    for seed in range(30):
        blocks = draw_blocks(
            (50, 300),
            blocks=4,
            target_share=(0.15, 0.2),
            context_share=(0.85, 1.0),
            least=16,
            generator=seeded(seed),
        )
        lengths.add(blocks.targets.shape[2])
        target = torch.zeros(50, 300, dtype=torch.bool)
        target.scatter_(1, blocks.targets.flatten(1), True)
        assert not (target & blocks.context).any()
    assert min(lengths) >= 45
    assert max(lengths) <= 60
    assert len(lengths) > 5


def test_blocks_longer_than_the_window_are_refused() -> None:
    with pytest.raises(RecipeError):
        built("jepa")(X[..., :10])


# ------------------------------------------------------------------ losses


def test_jepa_is_smooth_l1_at_the_target_blocks() -> None:
    objective = built("jepa").eval()
    out = objective(X, generator=seeded(3))
    (target,) = objective.teacher.layers(X)
    target = layer_norm(target, target.shape[-1:])
    drawn = draw_blocks(
        target.shape[:2],
        blocks=4,
        target_share=(0.15, 0.2),
        context_share=(0.85, 1.0),
        least=objective.tokens_of(objective.config.least_ms),
        generator=seeded(3),
    )
    predicted = objective.head(objective.context(X, ~drawn.context))
    rows = torch.arange(len(X))[:, None, None]
    expected = smooth_l1_loss(predicted[rows, drawn.targets], target[rows, drawn.targets])
    torch.testing.assert_close(out.loss, expected)
    assert out.metrics["masked"] == (~drawn.context).float().mean()


def test_data2vec_predicts_the_mean_of_branches_at_hidden_tokens() -> None:
    objective = built("data2vec").eval()
    out = objective(X, generator=seeded(3))
    network = objective.teacher.network
    z, branches = network.embed(X), []
    for block in network.blocks:
        branches.append(block.branch(z))
        z = block(z)
    target = torch.stack([layer_norm(b, b.shape[-1:]) for b in branches]).mean(0)
    span = objective.tokens_of(objective.config.mask_ms)
    hidden = draw_centred_spans(target.shape[:2], 0.5, span, generator=seeded(3))
    predicted = objective.head(objective.context(X, hidden))
    errors = smooth_l1_loss(predicted[hidden], target[hidden], reduction="sum")
    expected = errors / hidden.sum() / math.sqrt(target.shape[-1])
    torch.testing.assert_close(out.loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES[1:])  # JEPA always hides a block
def test_nothing_hidden_is_no_loss_but_a_finite_one(name: str) -> None:
    loss = built(name, mask_ratio=0.0)(X, generator=seeded()).loss
    assert loss.isfinite()
    loss.backward()


# ------------------------------------------------------------------ codebooks


def test_sinkhorn_balances_rows_and_columns() -> None:
    weights = sinkhorn(torch.randn(512, 16, generator=seeded()) / 0.1, iterations=50)
    torch.testing.assert_close(weights.sum(1), torch.ones(512), rtol=0, atol=1e-5)
    assert float((weights.sum(0) / 32 - 1).abs().max()) < 0.02
    rough = sinkhorn(torch.randn(512, 16, generator=seeded()) / 0.1)
    torch.testing.assert_close(rough.sum(1), torch.ones(512), rtol=0, atol=1e-5)


def test_a_codebook_follows_the_mean_and_empty_codes_stay() -> None:
    torch.manual_seed(0)
    book = Codebook(3, 2, momentum=0.9)
    book.vectors.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 50.0]]))
    book.sums.copy_(book.vectors)
    x = torch.tensor([[[1.0, 1.0], [9.0, 0.0], [11.0, 2.0]]])
    codes = book.assign(x)
    assert codes.tolist() == [[0, 1, 1]]
    book.collect(x, codes)
    book.update()
    # 0.9 of the old sum and count, 0.1 of the new ones.
    torch.testing.assert_close(book.vectors[0], torch.tensor([0.1, 0.1]))
    torch.testing.assert_close(book.vectors[1], torch.tensor([(9 + 2) / 1.1, 0.2 / 1.1]))
    torch.testing.assert_close(book.vectors[2], torch.tensor([0.0, 50.0]))


def test_prototypes_start_apart_and_once() -> None:
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(3, 40, 6, generator=seeded()), dim=-1)
    prototypes = Prototypes(8, 6, momentum=0.99)
    prototypes.start(x, seeded(1))
    first = prototypes.vectors.clone()
    flat = x.flatten(0, 1)
    assert all((flat == row).all(1).any() for row in first)
    assert len(first.unique(dim=0)) == 8
    prototypes.start(x, seeded(2))
    assert torch.equal(prototypes.vectors, first)
    few = spread_starts(flat[:1].repeat(5, 1), 4, seeded())
    torch.testing.assert_close(few.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("name", ["jepa", "data2vec", "dinosr"])
@pytest.mark.parametrize("world", [2, 4])
def test_losses_of_shares_average_to_the_whole(name: str, world: int) -> None:
    objective = built(name)
    whole = objective(X, generator=ShareGenerator(7)).loss
    shares = [
        objective(X[rank::world], generator=ShareGenerator(7, rank=rank, world=world)).loss
        for rank in range(world)
    ]
    torch.testing.assert_close(torch.stack(shares).mean(), whole, rtol=1e-5, atol=0)


# ------------------------------------------------------------------ inputs and refusals


@pytest.mark.parametrize("name", [*NAMES, "hubert"])
def test_causal_networks_and_those_without_a_stem_are_refused(name: str) -> None:
    assert not create_pretraining("s4_tiny", objective=name).backbone.causal
    with pytest.raises(BackboneError):
        create_pretraining("s4_tiny", objective=name, backbone_options={"causal": True})
    with pytest.raises(BackboneError):
        create_objective(name, create_backbone("mtecg_tiny_100hz", depth=1))
    with pytest.raises(RecipeError):
        create_pretraining("s4_tiny", objective=name, preset="best")


def test_published_inputs_are_standardised_by_statistics_of_other_leads() -> None:
    objective = built("jepa", preset="as-published")
    x = objective.standardised(torch.zeros(1, 12, 4))
    assert x[0, 2, 0].item() == pytest.approx(-0.00017 / 0.234)
    scaled = built("jepa")
    torch.testing.assert_close(scaled.standardised(X), X)
    missing = X.clone()
    missing[0, 0, :5] = math.nan
    assert scaled(missing, generator=seeded()).loss.isfinite()


# ------------------------------------------------------------------ HuBERT


def test_hubert_finds_planted_clusters() -> None:
    objective: Any = create_pretraining(
        "s4_tiny", objective="hubert", seed=0, backbone_options=SMALL, clusters=3, around_ms=40.0
    )
    level = torch.tensor([-5.0, 0.0, 5.0]).repeat_interleave(40)
    x = level + 0.01 * torch.randn(6, 12, 120, generator=seeded())
    objective.fit(iter([x]))
    labels = objective.labels(x)
    assert labels.shape == (6, 60)
    assert [len(labels[:, part].unique()) for part in (slice(2, 18), slice(22, 38))] == [1, 1]
    assert len(labels.unique()) == 3
    again = deepcopy(objective)
    again.fit(iter([x]))
    assert torch.equal(again.labels(x), labels)
    with pytest.raises(TrainingError):
        objective.fit(iter([x[:1, :, :4]]))


def test_hubert_logits_and_signal_statistics() -> None:
    logits = cluster_logits(torch.ones(2, 4), torch.tensor([[2.0] * 4, [-1.0] * 4]))
    torch.testing.assert_close(logits, torch.tensor([[10.0, -10.0]] * 2))
    values = signal_statistics(torch.full((1, 2, 30), 3.0), tokens=5, width=6).view(5, 2, 6)
    torch.testing.assert_close(values[2, 0], torch.tensor([3.0, 0.0, 3.0, 3.0, 0.0, 0.0]))
