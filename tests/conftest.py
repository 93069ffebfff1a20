"""What every room's tests share."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from einthoven.backbones.registry import catalogue, register_backbone
from einthoven.cohorts import Cohort, open_cohort
from einthoven.cohorts.synthetic import synthesize
from einthoven.signals.pack import pack
from einthoven.signals.store import Store

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums in one order, whatever the machine; a processor has a process of tests of its own."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Unseeded draws are the same ones whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def outside() -> Callable[[str], ModuleType]:
    """`outside(name)` imports a module of `tests/extensions`, as another package's."""

    def load(name: str) -> ModuleType:
        file = Path(__file__).parent / "extensions" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def outside_backbone(outside: Callable[[str], ModuleType]) -> Iterator[str]:
    """The name of the first backbone that another package has registered, for one test."""
    entries = outside("outside_backbone").ENTRIES
    for entry in entries:
        register_backbone(entry)
    yield entries[0].name
    for entry in entries:
        del catalogue()[entry.name]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of fixtures and real data beside the repository; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared folder of real data and golden outputs is not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def ptbxl_60(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 60 records of real PTB-XL, as PhysioNet lays them out."""
    folder = tmp_path_factory.mktemp("ptbxl") / "data"
    unpack = shared / "data" / "ptbxl" / "unpack.py"
    subprocess.run([sys.executable, unpack, folder, "--records", "60"], check=True)
    return folder


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Two processes by torchrun: `torchrun(script, *arguments)`, environment as keywords."""

    def start(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
        command: list[Any] = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            "--nproc_per_node", "2", *arguments,
        ]  # fmt: skip
        known = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        return done

    return start


@pytest.fixture(scope="session")
def synthetic_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated cohort of 160 records."""
    return synthesize(tmp_path_factory.mktemp("synthetic") / "cohort", records=160, seed=1)


@pytest.fixture(scope="session")
def synthetic(synthetic_path: Path) -> Cohort:
    """Simulated cohort, opened with the labels of at least eight records."""
    return open_cohort(synthetic_path, min_records=8)


@pytest.fixture(scope="session")
def synthetic_store(synthetic_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Packed store of the simulated cohort."""
    everyone = open_cohort(synthetic_path, empty_rows="keep")
    return pack(everyone, tmp_path_factory.mktemp("store") / "store", workers=1)
