"""A whole reproduction in seconds: a tiny network, one epoch, a simulated cohort."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from einthoven.reproduce.experiment_files import load_experiment
from einthoven.reproduce.experiments import Experiment
from einthoven.reproduce.folders import Request
from einthoven.reproduce.grid import cells_of
from einthoven.reproduce.run import Runner
from einthoven.signals.store import Store

BACKBONE = "mtecg_tiny_100hz"
EXPERIMENT = """
name = "tiny"
tasks = ["all-71", "superclass-5"]
table_arms = ["scratch", "fine-tuning", "linear-probe", "post-training"]
fractions = [0.5, 1.0]
schedule = [
    "stage1.epochs=3", "stage1.crops=1", "stage1.batch_size=16",
    "stage2.epochs=1", "stage2.batch_size=16", "precision=fp32",
]
resamples = 20
min_records = 8

[[more_seeds]]
arms = ["post-training", "fine-tuning"]
tasks = ["all-71"]
fractions = [1.0]
seeds = [0, 1]

[pretraining]
recipe = "demo"
set = ["epochs=1", "precision=fp32"]

[backbones.mtecg_tiny_100hz.options]
depth = 2
width = 32
heads = 1

[arms.post-training]
recipe = "ptbxl-100hz-cpu/post-training"

[arms.fine-tuning]
recipe = "ptbxl-100hz-cpu/fine-tuning"

[arms.linear-probe]
recipe = "ptbxl-100hz-cpu/linear-probe"

[arms.scratch]
recipe = "ptbxl-100hz-cpu/scratch"

[arms.without-stochastic-depth]
recipe = "ptbxl-100hz-cpu/post-training"
set = ["stage2.drop_path=0.0"]

[arms.without-probe]
recipe = "ptbxl-100hz-cpu/post-training"
without = ["stage1"]

[arms.scratch-post-training]
recipe = "ptbxl-100hz-cpu/post-training"
start = "random"
"""

ROWS = """
name = "rows"
extends = "tiny.toml"
table_1_only = true
tasks = ["all-71", "superclass-5"]

[[rows]]
name = "resnet1d_wang"
backbone = "mtecg_tiny_100hz"
arm = "scratch"
published = "resnet1d_wang"
our_reading = "made up for this test"

[[rows]]
name = "plain one"
backbone = "mtecg_tiny_100hz"
arm = "fine-tuning"

[[rows]]
name = "both"
members = ["plain one", "resnet1d_wang"]
published = "ensemble of 7"
"""


@pytest.fixture(scope="session")
def experiment_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("experiment") / "tiny.toml"
    file.write_text(EXPERIMENT)
    return file


@pytest.fixture(scope="session")
def tiny(experiment_file: Path) -> Experiment:
    return load_experiment(experiment_file)


Asked = Callable[[Path], Request]


@pytest.fixture(scope="session")
def asked(tiny: Experiment, synthetic_path: Path, synthetic_store: Store) -> Asked:
    """A reproduction of its own: `asked(folder)`."""

    def request(out: Path) -> Request:
        store = Path(synthetic_store.root)
        return Request(tiny, BACKBONE, synthetic_path, store, out, device="cpu", threads=1)

    return request


@pytest.fixture(scope="session")
def whole(asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """A reproduction with every cell finished, by one process without interruption."""
    request = asked(tmp_path_factory.mktemp("reproduction") / "whole")
    outcome = Runner(request).run(cells_of("grid", request.experiment, BACKBONE))
    assert not outcome.failed
    return request


@pytest.fixture(scope="session")
def rows(whole: Request, experiment_file: Path) -> Request:
    """Three rows over the finished reproduction's runs; none of them is its post-trained model."""
    keys = ("fractions", "table_arms")
    kept = [
        line
        for line in experiment_file.read_text().splitlines()
        if not line.startswith(tuple(f"{key} = " for key in keys))
    ]
    folder = experiment_file.parent / "rows"
    folder.mkdir(exist_ok=True)
    (folder / "tiny.toml").write_text("\n".join(kept))
    (folder / "rows.toml").write_text(ROWS)
    return replace(whole, experiment=load_experiment(folder / "rows.toml"), backbone="")


@pytest.fixture
def begun(whole: Request, tmp_path: Path) -> Request:
    """The same with its pretraining done and no cell begun."""
    request = replace(whole, out=tmp_path / "begun")
    source = next((whole.out / "shared").glob("pretraining--*"))
    target = request.out / "shared" / source.name
    target.mkdir(parents=True)
    for name in ("model", "run.json", "seen.json"):
        (target / name).write_bytes((source / name).read_bytes())
    return request
