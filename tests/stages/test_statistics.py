"""Statistics of the training records: fitted once, and stored with the run and the model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from einthoven.backbones.mtecg import MTECG
from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import RecipeError
from einthoven.experiment.run import model_of
from einthoven.files import read_tensors
from einthoven.inference import predict_record
from einthoven.models import load_model, save_model
from einthoven.records import read_record
from einthoven.signals.batches import SignalSource
from einthoven.signals.pack import pack
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_batch
from einthoven.signals.steps import Filter, MinMax, Resample, Scale, Standardise, Window
from einthoven.signals.store import ArrayStore, Store
from einthoven.stages import posttrain as stage
from einthoven.stages.data import Dataset
from einthoven.stages.posttrain import PosttrainResult
from einthoven.stages.recipe import Data, Recipe, Stage2
from einthoven.stages.statistics import Standardiser, fit_standardiser, with_scale
from einthoven.training.loop import CHECKPOINT

Train = Callable[..., PosttrainResult]
RATE = 100.0
SCRATCH = Recipe(
    name="from-scratch",
    initialise="random",
    precision="fp32",
    data=Data(augmentation="none", standardise="scalar"),
    stage2=Stage2(
        epochs=2,
        batch_size=24,
        base_lr=0.05,
        schedule="one-cycle",
        drop_last=False,
        betas=(0.95, 0.99),
        head_init="kaiming-normal",
        clip=0.25,
        select="lowest-loss",
    ),
)


def source_of(array: np.ndarray, *steps: Any, leads: tuple[str, ...] = ("I", "II")) -> SignalSource:
    store = ArrayStore.over(array, leads=leads, rate=RATE)
    targets = np.zeros((len(array), 0), dtype=np.uint8)
    return SignalSource(store, np.arange(len(array)), targets, Preparation(leads, steps))


def noise(records: int = 40, samples: int = 300) -> np.ndarray:
    return np.random.default_rng(0).normal(0.1, 0.3, (records, 2, samples))


def test_standardiser_uses_every_sample_once() -> None:
    array = noise()
    array[:, 1] *= 3  # leads differ, and are scaled alike
    fitted = fit_standardiser(source_of(array, Resample(RATE), Window(50)))
    assert fitted.mean == pytest.approx(array.mean(), abs=1e-7)
    assert fitted.std == pytest.approx(array.std(), abs=1e-6)  # over n, not n - 1
    assert (fitted.records, fitted.values) == (40, array.size)


def test_steps_before_the_scaling_are_applied_to_whole_records() -> None:
    """At the network's rate, behind its filters."""
    array = noise(samples=800)
    steps = (Resample(50.0), Window(100), Filter("highpass", 0.5, order=2))
    fitted = fit_standardiser(source_of(array, *steps))
    whole = Preparation(("I", "II"), (steps[0], Window(400), steps[2]))
    x = prepare_batch(
        whole, torch.from_numpy(array), rate=RATE, starts=torch.zeros(40, dtype=torch.long)
    )
    assert fitted.mean == pytest.approx(float(x.double().mean()), abs=1e-8)
    assert fitted.std == pytest.approx(float(x.double().std(correction=0)), rel=1e-7)
    assert fitted.values == 40 * 2 * 400


def test_position_of_the_fitted_scale() -> None:
    fitted = Standardiser(0.1, 0.3, records=1, values=1)
    plain = Preparation(("I",), (Resample(RATE), Window(50)))
    assert with_scale(plain, fitted).steps == (*plain.steps, Scale(0.1, 0.3))
    filtered = Filter("lowpass", 40.0)
    own = Preparation(("I",), (Resample(RATE), Scale(0.0, 0.25), Window(50), filtered))
    assert with_scale(own, fitted).steps == (
        Resample(RATE), Scale(0.1, 0.3), Window(50), filtered
    )  # fmt: skip


@pytest.mark.parametrize("step", [Standardise(over="record"), Standardise(over="lead"), MinMax()])
def test_scaling_twice_is_refused(step: Any) -> None:
    source = source_of(noise(), Resample(RATE), Window(50), step)
    with pytest.raises(RecipeError, match=r"data\.standardise") as caught:
        fit_standardiser(source)
    assert str(step) in str(caught.value)
    with pytest.raises(RecipeError, match=r"data\.standardise"):
        with_scale(source.preparation, Standardiser(0.0, 1.0, 1, 1))
    with pytest.raises(RecipeError, match="6000 samples"):
        fit_standardiser(source_of(np.zeros((10, 2, 300)), Resample(RATE), Window(50)))


# ---------------------------------------------------------------------- in a run


@pytest.fixture(scope="module")
def scratch(train: Train, tmp_path_factory: pytest.TempPathFactory) -> PosttrainResult:
    return train(tmp_path_factory.mktemp("scratch") / "run", **start())


def start(**changes: Any) -> dict[str, Any]:
    """What `train` is given: the recipe above on 2.5 s crops, with single keys changed."""
    data = {"crop_seconds": 2.5, "evaluation_crops": 2, "aggregate": "max"}
    data |= changes.pop("data", {})
    sections = {
        "data": SCRATCH.data.model_copy(update=data),
        "stage2": SCRATCH.stage2.model_copy(update=changes.pop("stage2", {})),  # type: ignore[union-attr]
    }
    return {"recipe": SCRATCH.model_copy(update=sections), "weights": None, **changes}


def test_request_records_the_standardiser(
    scratch: PosttrainResult, synthetic: Cohort, synthetic_store: Store
) -> None:
    request = scratch.run.request
    rows = synthetic_store.rows(synthetic.ids("train"))
    values = np.concatenate([c.signals.ravel() for c in synthetic_store.read(rows)]) / 1000
    assert request["standardiser"] == {
        "mean": pytest.approx(values.mean(), abs=1e-8),
        "std": pytest.approx(values.std(), rel=1e-7),
        "records": len(rows),
        "values": values.size,
    }
    scale = Scale(request["standardiser"]["mean"], request["standardiser"]["std"])
    steps = [step for step in scratch.data.preparation.steps if isinstance(step, Scale)]
    assert steps == [scale]
    assert request["recipe"]["data"]["standardise"] == "scalar"


def test_model_folder_has_the_same_scale(
    scratch: PosttrainResult, synthetic: Cohort, tmp_path: Path
) -> None:
    model = model_of(scratch, synthetic, start()["recipe"])
    save_model(model, tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert model.preparation == scratch.data.preparation
    record = read_record(next((synthetic.root / "records100").rglob("*.hea")))
    probabilities = predict_record(model, record).probabilities
    steps = tuple(s for s in model.preparation.steps if not isinstance(s, Scale))
    unscaled = replace(model, preparation=replace(model.preparation, steps=steps))
    assert predict_record(unscaled, record).probabilities != pytest.approx(probabilities, abs=1e-3)


@pytest.mark.parametrize("step", [1, 4, 6])
def test_killed_run_from_scratch_resumes_to_the_same_weights(
    tmp_path: Path,
    step: int,
    train: Train,
    scratch: PosttrainResult,
    recorder: Any,
    killed: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One cycle, an incomplete last batch, clipping and the measured scaling; what was measured is
    read, for another machine might measure another last bit."""
    with pytest.raises(killed):
        train(tmp_path, progress=recorder(kill=("stage 2", step)), **start())

    def never(source: SignalSource) -> Standardiser:
        raise AssertionError("measured again")

    monkeypatch.setattr(stage, "fit_standardiser", never)
    progress = recorder()
    again = train(tmp_path, progress=progress, **start())
    ours, theirs = again.classifier.state_dict(), scratch.classifier.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert again.data.preparation == scratch.data.preparation
    lines = [
        [{k: v for k, v in line.items() if "seconds" not in k and "per_second" not in k}
         for line in run.results["stage2"].history]
        for run in (again, scratch)
    ]  # fmt: skip
    assert lines[0] == lines[1]


def test_fraction_has_its_own_standardiser(
    tmp_path: Path, train: Train, scratch: PosttrainResult
) -> None:
    half = train(tmp_path, **start(data={"fraction": 0.5}, stage2={"epochs": 1}))
    ours, whole = (run.run.request["standardiser"] for run in (half, scratch))
    assert ours["records"] < whole["records"]
    assert ours["mean"] != whole["mean"]


# ---------------------------------------------------------------------- statistics of a network


class Watched:
    """Statistics of a network that records its crops, with a number in a buffer."""

    def __init__(self) -> None:
        self.calls: list[Tensor] = []

    def __call__(self, network: nn.Module, batches: Iterable[Tensor]) -> None:
        crops = torch.cat(list(batches))
        self.calls.append(crops)
        network.measured.fill_(float(crops.square().mean()))  # type: ignore[union-attr, operator]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """MTECG with a number to measure."""
    seen, made = Watched(), MTECG.__init__

    def init(network: nn.Module, *arguments: Any, **more: Any) -> None:
        made(network, *arguments, **more)  # type: ignore[arg-type]
        network.register_buffer("measured", torch.zeros(()))

    monkeypatch.setattr(MTECG, "__init__", init)
    monkeypatch.setattr(MTECG, "fits_statistics", True)
    monkeypatch.setattr(MTECG, "fit_statistics", lambda network, batches: seen(network, batches))
    return seen


WHOLE = {"crop_seconds": 10.0, "evaluation_crops": 1}


def test_network_statistics_use_every_training_record_once(
    tmp_path: Path, train: Train, watched: Watched
) -> None:
    run = train(tmp_path, **start(data=WHOLE, stage2={"epochs": 1}))
    source = run.data.source("train")
    everyone = source.crops(np.arange(len(source)), torch.zeros(len(source), dtype=torch.long))
    assert [tuple(crops.shape) for crops in watched.calls] == [tuple(everyone.shape)]
    assert torch.equal(watched.calls[0], everyone)  # prepared, scaled, and not augmented
    expected = float(everyone.square().mean())
    best, _ = read_tensors(tmp_path / "stage2" / "best.safetensors")
    assert float(best["backbone.measured"]) == pytest.approx(expected)


def test_network_statistics_are_in_the_checkpoint(
    tmp_path: Path, train: Train, watched: Watched, recorder: Any, killed: type[Exception]
) -> None:
    short = start(data=WHOLE, stage2={"epochs": 2})
    with pytest.raises(killed):  # before the first checkpoint: measured again
        train(tmp_path, progress=recorder(kill=("stage 2", 2)), **short)
    assert not (tmp_path / "stage2" / CHECKPOINT).is_file()
    with pytest.raises(killed):
        train(tmp_path, progress=recorder(kill=("stage 2", 5)), **short)
    assert (tmp_path / "stage2" / CHECKPOINT).is_file()
    assert len(watched.calls) == 2
    again = train(tmp_path, **short)
    assert len(watched.calls) == 2
    value = again.classifier.state_dict()["backbone.measured"]
    assert float(value) == pytest.approx(float(watched.calls[0].square().mean()))


def test_pretrained_network_keeps_its_statistics(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(network: nn.Module, batches: Iterable[Tensor]) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(MTECG, "fits_statistics", True)
    monkeypatch.setattr(MTECG, "fit_statistics", never)
    train(tmp_path, stage1=None, stage2={"epochs": 1})


# ---------------------------------------------------------------------- the benchmark's records


@pytest.mark.slow
def test_ptbxl_s_training_records_are_scaled_as_in_the_benchmark(
    shared: Path, tmp_path: Path
) -> None:
    """Its committed scaler was fitted on the 500 Hz files of version 1.0.1: mean -0.00077717 mV,
    deviation 0.23895642 mV. At 100 Hz the high frequencies are gone, and the deviation is less."""
    unpack = shared / "data" / "ptbxl" / "unpack.py"
    subprocess.run([sys.executable, unpack, tmp_path / "data"], check=True, capture_output=True)
    cohort = open_cohort(tmp_path / "data")
    store = pack(cohort, tmp_path / "store", workers=2)
    steps = (Resample(100), Window(250, evaluation_crops=7))
    source = Dataset(cohort, store, Preparation(store.leads, steps)).source("train")
    fitted = fit_standardiser(source)
    assert asdict(fitted) == {
        "mean": pytest.approx(-0.00081917150, abs=1e-9),
        "std": pytest.approx(0.23512899791, abs=1e-9),
        "records": 17_418,
        "values": 17_418 * 12 * 1000,
    }
    assert fitted.mean == pytest.approx(-0.00077717, abs=1e-4)
    assert fitted.std == pytest.approx(0.23895642, rel=0.02)
