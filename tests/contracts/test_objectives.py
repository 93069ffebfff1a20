"""What the pretraining loop relies on, over every registered objective and backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import BackboneError, RecipeError
from einthoven.objectives import create_objective, create_pretraining, objective_names
from einthoven.objectives.objective import ObjectiveOutput, SteppedObjective


def _small(name: str) -> dict[str, Any]:
    """Options of a small network that draws nothing from PyTorch's generator."""
    with torch.device("meta"):
        fields = vars(create_backbone(name).config)
    options = {"depth": 2, "dropout": 0.0} | ({"width": 96} if name == "ecg_fm" else {})
    return {key: value for key, value in options.items() if key in fields}


def _pairs() -> Iterator[tuple[str, str]]:
    """Every objective on the smallest networks of the first families that it accepts."""
    entries = [entry(name) for name in backbone_names() if not entry(name).is_supervised]
    smallest: dict[str, str] = {}
    for each in sorted(entries, key=lambda each: each.parameters):
        smallest.setdefault(each.family, each.name)
    for objective in objective_names():
        with torch.device("meta"):
            accepted = [name for name in smallest.values() if _accepts(objective, name)]
        yield from ((objective, name) for name in accepted[:3])


def _accepts(objective: str, name: str) -> bool:
    try:
        create_pretraining(name, objective=objective)
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
        backbone, objective=objective, seed=0, backbone_options=_small(backbone), **own
    )


def _x(objective: Any) -> torch.Tensor:
    window = objective.backbone.preparation.window
    samples = 200 if window <= 250 else window // 5
    return torch.randn(2, 12, samples, generator=torch.Generator().manual_seed(0))


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
