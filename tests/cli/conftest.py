"""The command line as a user types it, on a network small enough for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from einthoven.backbones.registry import catalogue, create_backbone
from einthoven.cli import main
from einthoven.errors import EinthovenError
from einthoven.models import Model, save_model
from einthoven.signals.store import Store

BACKBONE = "tiny"
TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}
RECIPE = """
name = "short"
precision = "fp32"
[data]
crop_seconds = 2.5
evaluation_crops = 2
augmentation = "none"
[stage1]
epochs = 2
batch_size = 16
[stage2]
epochs = 2
batch_size = 16
base_lr = 1e-2
warmup_epochs = 1
drop_path = 0.1
"""


@contextmanager
def registered() -> Iterator[str]:
    """Register a tiny network for a while; other tests read the catalogue too.

    Reports draw two wrong calls instead of 24: the drawings take most of their time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("einthoven.report.cases.MOST_DRAWINGS", 2)
        entry = catalogue()["mtecg_tiny_100hz"]
        config = replace(entry.config, name=BACKBONE, **TINY)
        entry = replace(entry, config=config, parameters=21_184)
        patch.setitem(catalogue(), BACKBONE, entry)
        yield BACKBONE


@pytest.fixture(autouse=True)
def tiny_backbone() -> Iterator[str]:
    """The name of a network that is registered in these tests only."""
    with registered() as name:
        yield name


@dataclass(frozen=True)
class Result:
    """Output of a command."""

    out: str
    err: str

    @property
    def remedies(self) -> int:
        """Number of refusals that were printed, each with its remedy."""
        return self.err.count(str(EinthovenError("", remedy="")).strip())


Cli = Callable[..., Result]


def status_of(*arguments: Any) -> int:
    """Run a command; return its exit status."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run a command, and check its exit status: `cli("predict", file, "--json", status=0)`."""
    monkeypatch.setenv("EINTHOVEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EINTHOVEN_MODEL", raising=False)

    def run(*arguments: Any, status: int = 0) -> Result:
        capsys.readouterr()
        ended = status_of(*arguments)
        captured = capsys.readouterr()
        assert ended == status, captured.err
        assert "Traceback" not in captured.err
        return Result(captured.out, captured.err)

    return run


@dataclass(frozen=True)
class Made:
    """Files of earlier commands: a recipe, an encoder, two runs."""

    recipe: Path
    encoder: Path
    run: Path
    other: Path

    @property
    def model(self) -> Path:
        return self.run / "model"


@pytest.fixture(scope="session")
def made(
    synthetic_path: Path, synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """Two runs of `einthoven posttrain`."""
    folder = tmp_path_factory.mktemp("cli")
    made = Made(folder / "short.toml", folder / "model", folder / "pt", folder / "ft")
    made.recipe.write_text(RECIPE)
    with registered() as name:
        network = create_backbone(name, seed=0, init="pretraining")
        save_model(Model(network, network.preparation), made.encoder)
        for out, seed in ((made.run, 0), (made.other, 1)):
            status = status_of(
                "posttrain", synthetic_path, "--backbone", name, "--weights", made.encoder,
                "--recipe", made.recipe, "--store", synthetic_store.root, "--out", out,
                "--min-records", 8, "--resamples", 20, "--device", "cpu", "--set", f"seed={seed}",
            )  # fmt: skip
            assert status == 0
    return made
