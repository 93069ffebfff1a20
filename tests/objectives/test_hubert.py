"""HuBERT's later iterations: clusters of a layer of the encoder that was trained before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.backbones.registry import create_backbone
from einthoven.errors import RecipeError
from einthoven.models import Model, save_model
from einthoven.objectives import create_pretraining

SMALL = {"width": 16, "depth": 2}


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder of an encoder of the same shape with other weights."""
    folder = tmp_path_factory.mktemp("former") / "model"
    network = create_backbone("s4_tiny", seed=5, causal=False, **SMALL)
    save_model(Model(network, network.preparation), folder)
    return folder


def iterated(former: Path, **options: Any) -> Any:
    own: dict[str, Any] = {"clusters": 6, "prediction_width": 8, "former": str(former)} | options
    return create_pretraining(
        "s4_tiny", objective="hubert", seed=0, backbone_options=SMALL, **own
    ).train()


def test_clusters_are_those_of_a_layer_of_the_former_encoder(former: Path) -> None:
    x = torch.randn(8, 12, 250)
    network: Any = create_backbone("s4_tiny", seed=5, causal=False, **SMALL).eval()
    first = network.blocks[0](network.embed(x))
    objective = iterated(former, former_layer=1)
    torch.testing.assert_close(objective._raw_features(x), first.detach())
    assert not torch.allclose(iterated(former)._raw_features(x), first)
    objective.fit([x])
    labels = objective.labels(x)
    assert labels.shape == (8, 125)
    assert len(labels.unique()) == 6


def test_the_former_encoder_is_not_trained(former: Path) -> None:
    x = torch.randn(4, 12, 250)
    objective = iterated(former)
    objective.fit([x])
    objective(x, generator=torch.Generator().manual_seed(0)).loss.backward()
    assert not objective.former.training
    assert all(p.grad is None for p in objective.former.parameters())
    assert any(p.grad is not None for p in objective.backbone.parameters())
    assert any(key.startswith("former.") for key in objective.state_dict())  # in the checkpoint


@pytest.mark.parametrize("layer", [-1, 3])
def test_layers_that_are_refused(former: Path, layer: int) -> None:
    with pytest.raises(RecipeError):
        iterated(former, former_layer=layer)
