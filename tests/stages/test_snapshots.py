"""Encoders on the way: exactly those that were asked for, at every moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven import load_backbone
from einthoven.backbones.registry import create_backbone
from einthoven.models import read_config
from einthoven.stages.pretrain import Encoders, kept_epochs
from einthoven.stages.recipe import Pretraining

LOSSES = [5.0, 3.0, 4.0, 3.0, 2.0, 2.5, 2.6]
TINY = {"depth": 1, "width": 32, "heads": 1}


def history(epochs: int) -> list[dict[str, Any]]:
    pairs = zip(range(1, epochs + 1), LOSSES, strict=False)
    return [{"epoch": epoch, "validation_loss": loss} for epoch, loss in pairs]


def asked(**options: Any) -> Pretraining:
    return Pretraining(name="x", **options)


def test_no_snapshots_by_default() -> None:
    assert kept_epochs(history(7), asked()) == set()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"keep_every": 3}, {3, 6}),
        ({"keep_last": 2}, {6, 7}),
        ({"keep_last": 20}, set(range(1, 8))),
        ({"keep_best": True}, {5}),
        ({"keep_every": 3, "keep_last": 1, "keep_best": True}, {3, 5, 6, 7}),
    ],
)
def test_kept_epochs(options: dict[str, Any], expected: set[int]) -> None:
    assert kept_epochs(history(7), asked(**options)) == expected


def test_best_epoch_with_ties_and_without_validation() -> None:
    assert kept_epochs(history(4), asked(keep_best=True)) == {2}
    assert kept_epochs([{"epoch": 1}, {"epoch": 2}], asked(keep_best=True)) == set()
    broken = [{"epoch": 1, "validation_loss": float("nan")}, *history(3)[1:]]
    assert kept_epochs(broken, asked(keep_best=True)) == {2}


def test_snapshot_folder_after_every_epoch(tmp_path: Path) -> None:
    network = create_backbone("mtecg_tiny_100hz", seed=0, **TINY)
    recipe = asked(keep_every=3, keep_last=1, keep_best=True)
    encoders = Encoders(tmp_path, network, recipe, {}, {})
    folder = tmp_path / "snapshots"
    for epoch in range(1, 8):
        with torch.no_grad():
            network.get_parameter("patch_embed.weight").fill_(epoch)
        encoders.update_snapshots(history(epoch))
        found = {file.name for file in folder.iterdir()}
        expected = kept_epochs(history(epoch), recipe)
        assert found == {f"epoch-{kept:04d}" for kept in expected}
    best = folder / "epoch-0005"
    read = load_backbone("mtecg_tiny_100hz", weights=best, **TINY).state_dict()
    assert read["patch_embed.weight"].unique().tolist() == [5.0]
    assert read_config(best)["epoch"] == 5
