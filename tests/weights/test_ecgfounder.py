from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from public_names import to_public
from small_networks import SMALL, same_weights
from torch import Tensor

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.errors import WeightsError
from einthoven.weights import load_backbone, load_classifier

NAME = "ecgfounder_12lead"
TINY = SMALL["ecgfounder_12lead"]


def _source(**options: Any) -> Classifier:
    """A tiny classifier of 150 labels; its batch norms, if it has any, have seen a batch."""
    net = create_classifier(NAME, labels=150, seed=0, **(TINY | options))
    net(torch.randn(4, 12, 300))
    return net.eval()


def _released(state: dict[str, Tensor], path: Path) -> Path:
    torch.save({"state_dict": state}, path)
    return path


@pytest.mark.parametrize("wrap", [
    lambda s: {"state_dict": s},
    lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    lambda s: {"state_dict": {f"module._orig_mod.{k}": v for k, v in s.items()}},
    lambda s: {"epoch": 4, "step": 90, "state_dict": s, "optimizer": {"state": {}}, "mae": 7.5},
    lambda s: s,
    lambda s: {"state_dict": {k: v for k, v in s.items() if "bn" not in k}},
    lambda s: {"state_dict": {k: v for k, v in s.items() if not k.startswith("dense.")}},
])  # fmt: skip
def test_reads_the_released_container(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    source = _source()
    torch.save(wrap(to_public(source)), tmp_path / "x.pth")
    net = load_backbone(NAME, weights=tmp_path / "x.pth", **TINY)
    assert same_weights(net, source.backbone)
    assert not net.training
    assert all(p.requires_grad for p in net.parameters())


def test_fewer_leads_read_the_same_file(tmp_path: Path) -> None:
    source = _source()
    path = _released(to_public(source), tmp_path / "x.pth")
    net = load_backbone(NAME, weights=path, leads=("V2", "I", "II"), **TINY)
    assert net.preparation.sources == ("I", "II", "V2")
    assert same_weights(net, source.backbone)


def test_batch_norm_that_was_at_work_is_read_or_refused(tmp_path: Path) -> None:
    source = _source(use_bn=True)
    path = _released(to_public(source), tmp_path / "x.pth")
    net = load_classifier(NAME, weights=path, use_bn=True, **TINY)
    assert same_weights(net, source)
    x = torch.randn(2, 12, 300)
    assert torch.equal(net(x), source(x))
    with pytest.raises(WeightsError, match=r"bn\d?\.num_batches_tracked = 1[\s\S]*use_bn=True"):
        load_backbone(NAME, weights=path, **TINY)
