"""A network, a recipe and a cohort so small that every stage runs in a blink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorder import KilledError, Recorder

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.models import Model, save_model
from einthoven.signals.store import Store
from einthoven.stages.posttrain import PosttrainResult, posttrain
from einthoven.stages.pretraining_data import PackedCohort
from einthoven.stages.recipe import Data, Recipe, Stage1, Stage2
from einthoven.training.distributed import Processes

BACKBONE = "mtecg_tiny_100hz"
TINY = {"depth": 2, "width": 32, "heads": 1}


@pytest.fixture(scope="session")
def killed() -> type[Exception]:
    return KilledError


@pytest.fixture(scope="session")
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny network, as pretraining leaves it."""
    file = tmp_path_factory.mktemp("encoder") / "model"
    network = create_backbone(BACKBONE, seed=7, init="pretraining", **TINY)
    save_model(Model(network, network.preparation), file)
    return file


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Both stages, with everything on that draws random numbers."""
    return Recipe(
        name="tiny",
        precision="fp32",
        data=Data(crop_seconds=2.5, evaluation_crops=2),
        stage1=Stage1(
            solver="adamw",
            epochs=3,
            batch_size=16,
            crops=2,
            base_lr_sweep=(1e-2, 1.0),
            warmup_epochs=1,
        ),
        stage2=Stage2(
            epochs=3, batch_size=16, base_lr=1e-2, warmup_epochs=1, drop_path=0.2, dropout=0.1
        ),
    )


@pytest.fixture(scope="session")
def labelled(synthetic: Cohort, synthetic_store: Store) -> PackedCohort:
    """The simulated cohort and its store."""
    return synthetic, synthetic_store


@pytest.fixture(scope="session")
def renamed(synthetic_path: Path) -> Callable[[Path], int]:
    """`renamed(folder)` copies the simulated recordings there as ecg0, ecg1, ...: how many."""

    def copy(folder: Path) -> int:
        folder.mkdir()
        headers = sorted((synthetic_path / "records100").rglob("*.hea"))
        for number, header in enumerate(headers):
            text = header.read_text().replace(header.stem, f"ecg{number}")
            (folder / f"ecg{number}.hea").write_text(text)
            (folder / f"ecg{number}.dat").write_bytes(header.with_suffix(".dat").read_bytes())
        return len(headers)

    return copy


Train = Callable[..., PosttrainResult]


@pytest.fixture(scope="session")
def train(synthetic: Cohort, synthetic_store: Store, encoder: Path, recipe: Recipe) -> Train:
    """Post-train the tiny network: `train(folder, **changes)`; `stage1={...}`, `stage2={...}`
    and `data={...}` change single keys of the recipe."""

    def run(
        out: Path, *, cohort: Cohort = synthetic, store: Store = synthetic_store, **changes: Any
    ) -> PosttrainResult:
        changed = recipe
        for section in ("data", "stage1", "stage2"):
            keys = changes.pop(section, {})
            part = getattr(changed, section).model_copy(update=keys) if keys is not None else None
            changed = changed.model_copy(update={section: part})
        arguments: dict[str, Any] = {"weights": encoder, "processes": Processes("cpu")}
        arguments |= {"options": TINY, "recipe": changed}
        return posttrain(cohort, store, BACKBONE, out=out, **(arguments | changes))

    return run


@pytest.fixture(scope="session")
def finished(train: Train, tmp_path_factory: pytest.TempPathFactory) -> PosttrainResult:
    """A run from its beginning to its end, uninterrupted."""
    return train(tmp_path_factory.mktemp("finished") / "run")
