"""A whole reproduction in seconds: a tiny network, one epoch, a simulated cohort."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from einthoven.reproduce.experiment import Experiment, load_experiment
from einthoven.reproduce.grid import runs_of
from einthoven.reproduce.run import Reproduction, State
from einthoven.signals.store import Store

BACKBONE = "mtecg_tiny_100hz"
EXPERIMENT = """
name = "tiny"
tasks = ["all-71", "superclass-5"]
table_variants = ["scratch", "fine-tuning", "linear-probe", "post-training"]
fractions = [0.5, 1.0]
schedule = [
    "stage1.epochs=3", "stage1.crops=1", "stage1.batch_size=16",
    "stage2.epochs=1", "stage2.batch_size=16", "precision=fp32",
    "data.evaluation_crops=1", "refit=never",
]
resamples = 20
min_records = 8

[[more_seeds]]
variants = ["post-training", "fine-tuning"]
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

[variants.post-training]
recipe = "ptbxl-100hz-cpu/post-training"

[variants.fine-tuning]
recipe = "ptbxl-100hz-cpu/fine-tuning"

[variants.linear-probe]
recipe = "ptbxl-100hz-cpu/linear-probe"

[variants.scratch]
recipe = "ptbxl-100hz-cpu/scratch"

[variants.without-stochastic-depth]
recipe = "ptbxl-100hz-cpu/post-training"
set = ["stage2.drop_path=0.0"]

[variants.without-probe]
recipe = "ptbxl-100hz-cpu/post-training"
without = ["stage1"]

[variants.scratch-post-training]
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
variant = "scratch"
published = "resnet1d_wang"
our_reading = "made up for this test"

[[rows]]
name = "plain one"
backbone = "mtecg_tiny_100hz"
variant = "fine-tuning"

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


At = Callable[[Path], Reproduction]


@pytest.fixture(scope="session")
def at(tiny: Experiment, synthetic_path: Path, synthetic_store: Store) -> At:
    """A reproduction of its own: `at(folder)`."""

    def reproduction(out: Path) -> Reproduction:
        store = Path(synthetic_store.root)
        return Reproduction(tiny, BACKBONE, synthetic_path, store, out, device="cpu", threads=1)

    return reproduction


@pytest.fixture(scope="session")
def whole(at: At, tmp_path_factory: pytest.TempPathFactory) -> Reproduction:
    """A reproduction with every run finished, by one process without interruption."""
    reproduction = at(tmp_path_factory.mktemp("reproduction") / "whole")
    states = reproduction.run(runs_of("grid", reproduction.experiment, BACKBONE))
    assert set(states.values()) == {State.DONE}
    return reproduction


@pytest.fixture(scope="session")
def rows(whole: Reproduction, experiment_file: Path) -> Reproduction:
    """Three rows over the finished reproduction's runs; none of them is its post-trained model."""
    folder = experiment_file.parent / "rows"
    folder.mkdir(exist_ok=True)
    text = re.sub(
        r"(?m)^(fractions|table_variants) = .*\n", "", experiment_file.read_text(), count=2
    )
    (folder / "tiny.toml").write_text(text)
    (folder / "rows.toml").write_text(ROWS)
    return replace(whole, experiment=load_experiment(folder / "rows.toml"), backbone="")


@pytest.fixture
def begun(whole: Reproduction, tmp_path: Path) -> Reproduction:
    """The same with its pretraining done and no run begun."""
    reproduction = replace(whole, out=tmp_path / "begun")
    source = next((whole.out / "shared").glob("pretraining--*"))
    target = reproduction.out / "shared" / source.name
    shutil.copytree(source, target)
    return reproduction
