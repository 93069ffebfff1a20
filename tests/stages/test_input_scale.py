"""The scale of the inputs that an encoder was pretrained on goes wherever the encoder goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven import load_backbone
from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import TrainingError, WeightsError
from einthoven.files import write_tensors
from einthoven.signals.batches import SignalSource
from einthoven.signals.steps import Scale
from einthoven.signals.store import Store
from einthoven.stages.posttrain import posttrain
from einthoven.stages.pretrain import PretrainResult, pretrain
from einthoven.stages.recipe import Data, Pretraining, Recipe, Stage2
from einthoven.training.distributed import Processes

SHAPE = {"width": 16, "depth": 1, "state": 4, "rate": 120, "window": 300}
RECIPE = Pretraining(
    name="tiny", objective="cpc", epochs=1, batch_size=16, warmup_epochs=0, precision="fp32"
)
FINE = Recipe(
    name="tiny",
    precision="fp32",
    data=Data(augmentation="none"),
    stage2=Stage2(epochs=1, batch_size=16, warmup_epochs=0),
)
SCALED = Scale(mean=0.0, std=0.25)


def pretrained(cohort: Cohort, store: Store, out: Path, preset: str) -> PretrainResult:
    """A small `s4` after an epoch, from records of another rate."""
    return pretrain(
        cohort,
        store,
        "s4",
        recipe=RECIPE.model_copy(update={"options": {"preset": preset}}),
        out=out,
        options=SHAPE,
        processes=Processes("cpu"),
    )


@pytest.fixture(scope="module")
def corrected(
    synthetic: Cohort, synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> PretrainResult:
    return pretrained(
        synthetic, synthetic_store, tmp_path_factory.mktemp("pretrained") / "run", "corrected"
    )


def test_encoder_file_restores_its_input_scale(corrected: PretrainResult) -> None:
    backbone = load_backbone("s4", weights=corrected.encoder, **SHAPE)
    assert backbone.preparation.steps[-1] == SCALED
    load_backbone("s4", weights=corrected.encoder, scale=0.25, **SHAPE)
    with pytest.raises(WeightsError, match=r"scale = 1.0"):
        load_backbone("s4", weights=corrected.encoder, scale=1.0, **SHAPE)


def test_published_preset_uses_millivolts(
    synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    done = pretrained(synthetic, synthetic_store, tmp_path / "run", "as-published")
    backbone = load_backbone("s4", weights=done.encoder, **SHAPE)
    assert not any(isinstance(step, Scale) for step in backbone.preparation.steps)
    # A run in millivolts does not go on in another scale.
    with pytest.raises(TrainingError):
        pretrained(synthetic, synthetic_store, tmp_path / "run", "corrected")


def test_pretraining_and_fine_tuning_share_the_input_scale(
    corrected: PretrainResult,
    synthetic: Cohort,
    synthetic_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    crops = SignalSource.crops

    def watched(source: SignalSource, *given: Any, **more: Any) -> torch.Tensor:
        found = crops(source, *given, **more)
        seen.append((source.preparation.steps, found))
        return found

    monkeypatch.setattr(SignalSource, "crops", watched)
    done = posttrain(
        synthetic,
        synthetic_store,
        "s4",
        recipe=FINE,
        out=tmp_path / "fine",
        weights=corrected.encoder,
        options=SHAPE,
        processes=Processes("cpu"),
    )
    assert done.data.preparation.steps[-1] == SCALED
    fine_tuned = list(seen)
    seen.clear()
    pretrained(synthetic, synthetic_store, tmp_path / "again", "corrected")
    assert {steps[-1] for steps, _ in fine_tuned} == {steps[-1] for steps, _ in seen} == {SCALED}
    # The same record, whole windows from the start: the check that either run begins with.
    np.testing.assert_array_equal(fine_tuned[0][1], seen[0][1])


def test_plain_weights_have_no_input_scale(tmp_path: Path) -> None:
    network = create_backbone("s4", seed=0, **SHAPE)
    write_tensors(tmp_path / "x.safetensors", network.state_dict(), {})
    found: Any = load_backbone("s4", weights=tmp_path / "x.safetensors", **SHAPE)
    assert found.input_scale is None
    found = load_backbone("s4", weights=tmp_path / "x.safetensors", scale=0.5, **SHAPE)
    assert found.input_scale == 0.5
