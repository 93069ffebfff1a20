"""What the pretraining loop relies on, over every registered objective and backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import RecipeError
from einthoven.objectives import create_objective, create_pretraining, objective_names
from einthoven.objectives.objective import ObjectiveOutput

# The families that an objective takes: masked reconstruction hides patches, contrastive prediction
# wants a causal sequence, ECG-FM's objective its convolutional tokens.
TAKES = {
    "mae": ("st_mem", "mtecg"),
    "cpc": ("s4",),
    "wav2vec2": ("ecg_fm",),
    "ecg_fm": ("ecg_fm",),
    "cmsc": ("mtecg", "ecg_fm"),  # takes any network
}
PAIRS = [
    (objective, backbone)
    for objective in objective_names()
    for backbone in backbone_names()
    if backbone not in ("st_mem_base", "st_mem_small")  # the same code as st_mem_tiny
    and entry(backbone).family in TAKES.get(objective, ())
]


@pytest.fixture(params=PAIRS, ids="-".join)
def built(request: pytest.FixtureRequest) -> Any:
    objective, backbone = request.param
    # Dropout draws from PyTorch's generator, which the loop seeds for every step.
    options = {"depth": 2} | ({"dropout": 0.0} if entry(backbone).family == "s4" else {})
    if entry(backbone).family == "ecg_fm":
        options |= {"width": 96}  # the same code as at 768
    own = {"dropout": 0.0} if objective in ("wav2vec2", "ecg_fm") else {}
    return create_pretraining(
        backbone, objective=objective, seed=0, backbone_options=options, **own
    )


def _x(objective: Any) -> torch.Tensor:
    samples = {250: 300, 500: 500, 100: 100, 240: 240}[int(objective.backbone.preparation.rate)]
    return torch.randn(2, 12, samples, generator=torch.Generator().manual_seed(0))


def test_gives_a_finite_scalar_and_detached_metrics(built: Any) -> None:
    out = built(_x(built))
    assert isinstance(out, ObjectiveOutput)
    assert out.loss.shape == ()
    assert out.loss.isfinite()
    assert all(not value.requires_grad and value.ndim == 0 for value in out.metrics.values())


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
    with pytest.raises(RecipeError, match=r"unknown objective 'ma'[\s\S]*mae"):
        create_objective("ma", create_backbone("mtecg_tiny_100hz", depth=1))


def test_a_seed_decides_all_weights() -> None:
    states = [
        create_pretraining("mtecg_tiny_100hz", seed=s, backbone_options={"depth": 1})
        for s in (3, 3)
    ]
    first, second = (objective.state_dict() for objective in states)  # type: ignore[attr-defined]
    assert all(torch.equal(first[key], second[key]) for key in first)
