"""What the pretraining loop relies on, over every registered objective and backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from recorder import KilledError, Recorder
from torch import Tensor
from torch.nn.functional import layer_norm, smooth_l1_loss

from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import BackboneError, RecipeError
from einthoven.objectives import create_objective, create_pretraining, objective_names
from einthoven.objectives.objective import FittedObjective, ObjectiveOutput, SteppedObjective
from einthoven.objectives.registry import OBJECTIVES, suitable_objectives
from einthoven.objectives.teacher import Teacher
from einthoven.signals.random import generator_for
from einthoven.training.distributed import Processes
from einthoven.training.loop import Loop
from einthoven.training.optim import Settings, parameter_groups


@cache
def _fields(name: str) -> dict[str, Any]:
    """Options of a small network that draws nothing from PyTorch's generator."""
    with torch.device("meta"):
        fields = vars(create_backbone(name).config)
    options = {"depth": 2, "dropout": 0.0} | ({"width": 96} if name == "ecg_fm" else {})
    return {key: value for key, value in options.items() if key in fields}


def _smallest() -> list[str]:
    """The smallest network of each family."""
    found: dict[str, str] = {}
    for each in sorted(map(entry, backbone_names()), key=lambda each: each.parameters):
        found.setdefault(each.family, each.name)
    return list(found.values())


def _pairs() -> Iterator[tuple[str, str]]:
    """Every objective on the smallest networks of the first families that it accepts."""
    networks = [name for name in _smallest() if not entry(name).is_supervised]
    for objective in objective_names():
        with torch.device("meta"):
            accepted = [name for name in networks if _accepts(objective, name)]
        yield from ((objective, name) for name in accepted[:3])


def _accepts(objective: str, name: str) -> bool:
    try:
        create_pretraining(name, objective=objective, backbone_options=_fields(name))
    except BackboneError:
        return False
    return True


PAIRS = list(_pairs())
WITHOUT_DROPOUT = {
    "wav2vec2": {"dropout": 0.0},
    "ecg_fm": {"dropout": 0.0},
    "jepa": {"head_dropout": 0.0},
    "data2vec": {"head_dropout": 0.0},
    "dinosr": {"head_dropout": 0.0},
}


def test_every_objective_suits_a_network() -> None:
    assert {objective for objective, _ in PAIRS} == set(objective_names())


@pytest.fixture(params=PAIRS, ids="-".join)
def built(request: pytest.FixtureRequest) -> Any:
    objective, backbone = request.param
    own = WITHOUT_DROPOUT.get(objective, {})
    return create_pretraining(
        backbone, objective=objective, seed=0, backbone_options=_fields(backbone), **own
    )


def _x(objective: Any, records: int = 2) -> Tensor:
    window = objective.backbone.preparation.window
    samples = 200 if window <= 250 else window // 5
    return torch.randn(records, 12, samples, generator=torch.Generator().manual_seed(0))


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gives_a_finite_scalar_and_detached_metrics(built: Any) -> None:
    out = built(_x(built))
    assert isinstance(out, ObjectiveOutput)
    assert out.loss.shape == ()
    assert out.loss.isfinite()
    assert all(not value.requires_grad and value.ndim == 0 for value in out.metrics.values())


def test_trains_in_bf16(built: Any) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = built(_x(built), generator=torch.Generator().manual_seed(0)).loss
    loss.backward()
    assert loss.isfinite()
    if isinstance(built, SteppedObjective):
        built.after_step(1)


def test_all_randomness_comes_from_the_generator(built: Any) -> None:
    x = _x(built)
    state = torch.get_rng_state()
    losses = [built(x, generator=torch.Generator().manual_seed(s)).loss.item() for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert losses[0] == losses[1] != losses[2]


def test_a_few_steps_lower_the_loss(built: Any) -> None:
    x = _x(built)
    trained = [p for p in built.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    losses = []
    for _ in range(8):
        loss = built(x, generator=torch.Generator().manual_seed(0)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_the_backbone_is_trained_in_place(built: Any) -> None:
    inside = {id(p) for p in built.backbone.parameters()}
    assert inside <= {id(p) for p in built.parameters()}
    assert built.backbone.features(_x(built)).shape == (2, built.backbone.feature_dim)


def test_unknown_names_are_answered_with_what_exists() -> None:
    with pytest.raises(RecipeError, match=r"'ma'[\s\S]*mae"):
        create_objective("ma", create_backbone("mtecg_tiny_100hz", depth=1))


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize("name", _smallest())
def test_a_network_is_accepted_or_refused_with_the_objectives_that_suit(name: str) -> None:
    known = entry(name).config.options
    small = _fields(name)
    for objective in objective_names():
        fields = {"init": "pretraining", **OBJECTIVES[objective].backbone_options}
        options = {key: value for key, value in fields.items() if key in known}
        with torch.device("meta"):
            names = suitable_objectives(create_backbone(name, **options | small))
            assert names
            if objective in names:
                create_pretraining(name, objective=objective, backbone_options=small)
                continue
            with pytest.raises(BackboneError) as refusal:
                create_pretraining(name, objective=objective, backbone_options=small)
        assert refusal.value.remedy.endswith(f"the objective {' or '.join(names)}")


# ------------------------------------------------------------------ losses


def _silent(*layers: torch.nn.Linear) -> None:
    """Zero the layers that make the logits."""
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.zero_()


def _chance_of_mae(objective: Any, x: Tensor) -> tuple[Tensor, float]:
    _silent(objective.decoder.head)
    values = objective.decoder.head.out_features
    return objective(x).loss, (values - 1) / values  # unit variance, unbiased


def _chance_of_cpc(objective: Any, x: Tensor) -> tuple[Tensor, float]:
    _silent(*objective.heads)
    return objective(x).loss, math.log(objective.backbone.embed(x).shape[1])


def _chance_of_regression(objective: Any, x: Tensor) -> tuple[Tensor, float]:
    """The loss of the mean of the targets, which is zero."""
    _silent(objective.head.output)
    part = getattr(objective.config, "target_part", "block")
    layers = objective.teacher.layers(x, getattr(objective.config, "target_layers", 1), part=part)
    target = torch.stack([layer_norm(layer, layer.shape[-1:]) for layer in layers]).mean(0)
    factor = math.sqrt(target.shape[-1]) if "target_layers" in vars(objective.config) else 1.0
    return objective(x).loss, factor * smooth_l1_loss(target, torch.zeros_like(target)).item()


def _chance_of_codes(objective: Any, x: Tensor) -> tuple[Tensor, float]:
    _silent(objective.head.output)
    return objective(x).loss, math.log(objective.config.codes)


def _chance_of_soft_clusters(objective: Any, x: Tensor) -> tuple[Tensor, float]:
    """Prototypes that are equal: the balanced target is uniform, as is the prediction."""
    _silent(objective.head[2])
    for prototypes in objective.prototypes:
        prototypes.vectors.copy_(prototypes.vectors[:1].expand_as(prototypes.vectors))
    entropies = map(math.log, objective.config.clusters)
    return objective(x).loss, objective.config.entropy_weight * sum(entropies)


def _chance_of_clusters(objective: Any, x: Tensor) -> tuple[Tensor, float]:
    with torch.no_grad():
        objective.codes.copy_(objective.codes[:1].expand_as(objective.codes))
    return objective(x).loss, math.log(objective.config.clusters)


def _chance_of_segments(objective: Any, x: Tensor) -> tuple[Tensor, float]:
    same = x[:1, :, : x.shape[-1] // 4].repeat(len(x), 1, 4)
    return objective(same).loss, math.log(len(x))


def _chance_of_contrast(objective: Any, x: Tensor) -> tuple[Tensor, float]:
    _silent(objective.context_projection)
    out = objective(x)
    competitors = out.logits.isfinite().sum(-1).double()
    return out.metrics["contrastive_loss"], competitors.log().mean().item()


CHANCE: dict[str, tuple[Callable[[Any, Tensor], tuple[Tensor, float]], dict[str, Any], float]] = {
    "mae": (_chance_of_mae, {"target": "segment-standardised"}, 1e-4),
    "cpc": (_chance_of_cpc, {"pool": 0}, 1e-5),
    # The loss is over the tokens of random blocks and spans, the expected value over all.
    "jepa": (_chance_of_regression, {}, 0.05),
    "data2vec": (_chance_of_regression, {}, 0.05),
    "dinosr": (_chance_of_codes, {}, 1e-5),
    "sinkhorn_kmeans": (_chance_of_soft_clusters, {}, 1e-2),
    "hubert": (_chance_of_clusters, {}, 1e-5),
    "cmsc": (_chance_of_segments, {}, 1e-5),
    "wav2vec2": (_chance_of_contrast, {}, 1e-5),
    "ecg_fm": (_chance_of_contrast, {}, 1e-5),
}
OWN = list(CHANCE)
FIRST: dict[str, str] = {}
for _objective, _backbone in PAIRS:
    FIRST.setdefault(_objective, _backbone)


def _first(objective: str, **options: Any) -> Any:
    """An objective on the first of its networks."""
    backbone = FIRST[objective]
    own = WITHOUT_DROPOUT.get(objective, {}) | options
    fields = _fields(backbone)
    return create_pretraining(backbone, objective=objective, seed=0, backbone_options=fields, **own)


def test_every_objective_of_ours_is_covered() -> None:
    assert set(OWN) == {n for n, one in OBJECTIVES.items() if isinstance(one.create, str)}


@pytest.mark.parametrize("name", OWN)
def test_a_head_without_opinion_is_at_chance(name: str) -> None:
    chance, options, tolerance = CHANCE[name]
    objective = _first(name, **options).eval()
    loss, expected = chance(objective, _x(objective, records=6))
    assert loss.item() == pytest.approx(expected, rel=tolerance)


# Shares of hidden tokens of whole windows. Blocks are simulated; ECG-FM's spans hide 49 % of a
# single row, and fewer of each row of a batch.
MASKED = {
    "mae": (0.75, 0.05),
    "jepa": (0.57, 0.05),
    "data2vec": (0.5, 0.05),
    "dinosr": (0.5, 0.05),
    "sinkhorn_kmeans": (0.5, 0.05),
    "hubert": (0.5, 0.05),
    "wav2vec2": (0.42, 0.05),
    "ecg_fm": (0.42, 0.05),
}
CODES = {
    "dinosr": "code_perplexity",
    "sinkhorn_kmeans": "cluster_perplexity",
    "hubert": "cluster_perplexity",
    "wav2vec2": "code_perplexity",
    "ecg_fm": "code_perplexity",
}
TEACHERS = ("jepa", "data2vec", "dinosr", "sinkhorn_kmeans")


@pytest.mark.parametrize("name", OWN)
@torch.no_grad()
def test_what_is_hidden_and_whether_targets_collapse_is_measured(name: str) -> None:
    objective = _first(name).eval()
    segments = 2 if name == "ecg_fm" else 1
    samples = segments * objective.backbone.preparation.window
    x = torch.randn(4, 12, samples, generator=_seeded())
    outputs = [objective(x, generator=_seeded(seed)).metrics for seed in range(6)]
    assert ("masked" in outputs[0]) == (name in MASKED)
    if name in MASKED:
        share, tolerance = MASKED[name]
        masked = torch.stack([metrics["masked"] for metrics in outputs]).mean()
        assert masked.item() == pytest.approx(share, abs=tolerance)
    if name in CODES:
        assert 0 < outputs[0][CODES[name]] <= 1 + 2 * 320
    if name in TEACHERS:
        assert outputs[0]["teacher_distance"] == 0
        assert outputs[0]["target_std"] > 0.01


# ------------------------------------------------------------------ teachers and other state


def _step(objective: Any, step: int, x: Tensor) -> None:
    """One step of plain gradient descent."""
    objective(x, generator=_seeded(step)).loss.backward()
    with torch.no_grad():
        for parameter in objective.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
    if isinstance(objective, SteppedObjective):
        objective.after_step(step)


def test_a_teacher_starts_equal_has_no_gradient_and_moves(built: Any) -> None:
    x = _x(built)
    teachers = [part for part in built.modules() if isinstance(part, Teacher)]
    assert all(teacher.distance(built.backbone) == 0 for teacher in teachers)
    built(x, generator=_seeded()).loss.backward()
    gradients = {name for name, value in built.named_parameters() if value.grad is not None}
    frozen = {name for name, value in built.named_parameters() if not value.requires_grad}
    assert not gradients & frozen
    assert any(name.startswith("backbone.") for name in gradients)
    for teacher in teachers:
        assert not any(p.requires_grad for p in teacher.parameters())
        before = [p.clone() for p in teacher.network.parameters()]
        _step(built, 1, x)
        moved = [
            not torch.equal(p, old)
            for p, old in zip(teacher.network.parameters(), before, strict=True)
        ]
        assert sum(moved) > len(moved) / 2
        assert 0 < float(teacher.distance(built.backbone)) < 0.1


def test_the_encoder_runs_once_a_step_and_so_does_a_teacher(built: Any) -> None:
    calls: dict[str, int] = {}
    networks = {"student": built.backbone}
    if hasattr(built, "teacher"):
        networks["teacher"] = built.teacher.network

    def count(name: str) -> Callable[..., None]:
        return lambda *_: calls.update({name: calls.get(name, 0) + 1})

    for name, network in networks.items():
        for place, block in enumerate(network.blocks):
            block.register_forward_hook(count(f"{name} {place}"))
    built(_x(built), generator=_seeded())
    assert set(calls.values()) == {1}
    assert {name.split()[0] for name in calls} == set(networks)


class _Signals:
    per_epoch = 3

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Tensor]:
        for position in range(start, self.per_epoch):
            yield torch.randn(self.x.shape, generator=generator_for(epoch, position))


def _trained(name: str, folder: Path, kill: int | None = None, fit: bool = True) -> Any:
    objective = _first(name)
    x = _x(objective)
    if fit and isinstance(objective, FittedObjective):
        objective.fit([torch.randn(16, *x.shape[1:], generator=_seeded(1))])
    Loop(
        name="test",
        model=objective,
        loss=lambda model, x, device, *, generator: model(x, generator=generator).loss,
        batches=_Signals(x),
        groups=parameter_groups(objective, weight_decay=0.01),
        settings=Settings(
            epochs=2, base_lr=0.1, batch_size=2, checkpoint_seconds=0.0, shared_draws=True
        ),
        folder=folder,
        processes=Processes("cpu"),
        progress=Recorder(("test", kill)) if kill else None,
        after_step=getattr(objective, "after_step", None),
    ).run()
    return objective


@pytest.mark.parametrize("name", OWN)
def test_a_killed_training_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    """Teachers, codebooks and clusters are those of the checkpoint."""
    whole = _trained(name, tmp_path / "whole").state_dict()
    with pytest.raises(KilledError):
        _trained(name, tmp_path / "killed", kill=4)
    again = _trained(name, tmp_path / "killed", fit=False).state_dict()
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
