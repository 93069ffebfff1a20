"""ECGFounder against the reference implementation, through the public checkpoint's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from public_names import to_public
from torch import Tensor

from einthoven.weights import load_classifier

CASES = [
    # Fixture, name, options, parameters of the fixture that our network has no use for.
    ("ecgfounder_12lead", "ecgfounder_12lead", {}, 66_368),
    ("ecgfounder_1lead", "ecgfounder_1lead", {}, 66_368),
    ("ecgfounder_12lead_bn", "ecgfounder_12lead", {"use_bn": True}, 128),
]


@pytest.mark.parametrize(("fixture", "name", "options", "unused"), CASES)
def test_classifier_and_stages_match_the_reference(
    fixture: str,
    name: str,
    options: dict[str, Any],
    unused: int,
    parity: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    case = parity(fixture)
    weights = case.weights()
    torch.save({"state_dict": weights}, tmp_path / "x.pth")
    net = load_classifier(name, weights=tmp_path / "x.pth", **options)
    assert sum(p.numel() for p in net.parameters()) == case.meta["parameters"] - unused
    means: list[Tensor] = []
    for stage in net.backbone.stages:  # type: ignore[union-attr]
        stage.register_forward_hook(lambda _, args, out: means.append(out.mean(-1)))
    with torch.no_grad():
        logits = net(case.x())
    case.check(
        logits=logits,
        features=means[-1],
        **{f"stage{i}_time_mean": mean for i, mean in enumerate(means[:-1])},
    )
    assert len(means) == 7
    again = to_public(net)
    assert {key: t.shape for key, t in again.items()} == {
        key: t.shape for key, t in weights.items()
    }
    changed = {key for key in weights if not torch.equal(again[key], weights[key])}
    assert _modules(changed) == _modules(case.meta["not_exercised"])


def _modules(keys: Iterable[str]) -> set[str]:
    return {key.rpartition(".")[0] for key in keys}
