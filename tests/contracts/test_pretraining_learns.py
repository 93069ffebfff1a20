"""Every objective's encoder is better than a random one, by a linear probe on simulated ECGs.

Clean simulated ECGs show nothing: the features of a random S4 reach a macro AUROC of 0.98 on them
with 800 labels. The recordings here have a gain and a noise of their own, and 200 of them labels.
The gains of three seeds are in docs/studies/objectives.md; a seed is one of data, network and
draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import interpolate

from einthoven.cohorts.synthetic import simulate
from einthoven.objectives import create_pretraining
from einthoven.objectives.objective import FittedObjective, SteppedObjective
from einthoven.objectives.registry import OBJECTIVES
from einthoven.signals.random import generator_for
from einthoven.training.distributed import Processes
from einthoven.training.loop import Loop
from einthoven.training.optim import Settings, parameter_groups

WAVEFORMS = [
    "NORM",
    "IMI",
    "ASMI",
    "AMI",
    "CLBBB",
    "CRBBB",
    "IRBBB",
    "LAFB",
    "LVH",
    "1AVB",
    "INVT",
    "NDT",
    "STD_",
    "ISC_",
    "LNGQT",
    "WPW",
    "LAO/LAE",
    "ABQRS",
    "AFIB",
    "QWAVE",
]
UNLABELLED, LABELLED, UNSEEN = 800, 200, 600  # the labelled ones are among the unlabelled
RATE, SECONDS, BATCH, STEPS = 100, 2.5, 32, 400


@dataclass(frozen=True)
class Case:
    """An objective's network, options, learning rate, steps and seconds of a crop."""

    network: str = "s4_small"
    fields: dict[str, Any] = field(default_factory=lambda: {"width": 32, "depth": 2})
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = 3e-3
    steps: int = STEPS
    seconds: float = SECONDS


# A teacher that follows within the few steps, not within the 2,000 of the default.
NEAR = {"momentum": (0.98, 0.999), "momentum_steps": STEPS}
WAV2VEC = Case(
    "ecg_fm",
    {"width": 32, "depth": 2, "heads": 2, "conv_width": 32, "pos_kernel": 16, "pos_groups": 4},
    # With its penalty the extractor's output is near zero before anything is predicted.
    {"codes": 32, "target_width": 32, "negatives": 20, "penalty_weight": 0.0},
    rate=1e-3,
)
CASES = {
    "mae": Case("mtecg_tiny_100hz", {"width": 64, "depth": 2, "heads": 2}),
    "cpc": Case(),
    "jepa": Case(options=NEAR),
    "data2vec": Case(options=NEAR),
    "dinosr": Case(options=NEAR | {"codes": 32}),
    "sinkhorn_kmeans": Case(options=NEAR | {"clusters": (16, 32)}),
    "hubert": Case(options={"clusters": 32}),
    "cmsc": Case(steps=2 * STEPS, seconds=5.0),
    "wav2vec2": WAV2VEC,
    "ecg_fm": Case(WAV2VEC.network, WAV2VEC.fields, WAV2VEC.options, WAV2VEC.rate, seconds=5.0),
}


@cache
def recordings(seed: int) -> tuple[Tensor, np.ndarray]:
    """Signals (records, 12, samples) in quarters of a millivolt, and the number of the waveform."""
    count = UNLABELLED + UNSEEN
    rng = np.random.default_rng(seed)
    signals = []
    for record in range(count):
        patient, recording = np.random.SeedSequence([seed, record]).spawn(2)
        code = WAVEFORMS[record % len(WAVEFORMS)]
        signals.append(simulate([code], patient, recording, age=rng.uniform(30, 85)).signal)
    clean = np.stack(signals)
    gain = np.exp(rng.uniform(-0.4, 0.4, (count, 1, 1)))
    noise = rng.uniform(0.05, 0.15, (count, 1, 1)) * rng.standard_normal(clean.shape)
    x = torch.from_numpy(4 * (gain * clean + noise)).float()
    return x, np.arange(count) % len(WAVEFORMS)


def at_rate(x: Tensor, rate: float) -> Tensor:
    return x if rate == RATE else interpolate(x, scale_factor=rate / RATE, mode="linear")


class Crops:
    """Random crops of recordings, one epoch."""

    def __init__(self, x: Tensor, case: Case, rate: float, seed: int) -> None:
        self.x, self.rate, self.seed = x, rate, seed
        self.per_epoch, self.samples = case.steps, round(case.seconds * RATE)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Tensor]:
        for position in range(start, self.per_epoch):
            draws = generator_for(self.seed, epoch, position)
            rows = torch.randint(len(self.x), (BATCH,), generator=draws)
            begin = torch.randint(self.x.shape[-1] - self.samples + 1, (BATCH,), generator=draws)
            index = begin[:, None] + torch.arange(self.samples)
            crops = self.x[rows].gather(2, index[:, None].expand(-1, self.x.shape[1], -1))
            yield at_rate(crops, self.rate)


@torch.no_grad()
def probed(backbone: Any, x: Tensor, waveform: np.ndarray) -> float:
    """Macro AUROC on unseen recordings of a logistic regression on features of four crops."""
    backbone.eval()
    rate, samples = backbone.preparation.rate, round(SECONDS * RATE)
    crops = x.unfold(-1, samples, samples).unbind(2)
    means = [
        torch.cat([backbone.features(at_rate(part, rate)) for part in crop.split(100)])
        for crop in crops
    ]
    features = torch.stack(means).mean(0).numpy()
    areas = []
    for number in range(len(WAVEFORMS)):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(features[:LABELLED], waveform[:LABELLED] == number)
        scores = model.decision_function(features[UNLABELLED:])
        areas.append(roc_auc_score(waveform[UNLABELLED:] == number, scores))
    return float(np.mean(areas))


def before_and_after(name: str, seed: int, folder: Path) -> tuple[float, float]:
    """Macro AUROC of the random encoder, and of the same encoder after pretraining."""
    case, (x, waveform) = CASES[name], recordings(seed)
    objective: Any = create_pretraining(
        case.network, objective=name, seed=seed, backbone_options=case.fields, **case.options
    )
    before = probed(objective.backbone, x, waveform)
    batches = Crops(x[:UNLABELLED], case, objective.backbone.preparation.rate, seed)
    if isinstance(objective, FittedObjective):
        objective.fit(batch for _, batch in zip(range(8), batches.epoch(1), strict=False))
    Loop(
        name="test",
        model=objective,
        loss=lambda model, x, device, *, generator: model(x, generator=generator).loss,
        batches=batches,
        groups=parameter_groups(objective, weight_decay=0.01),
        settings=Settings(
            epochs=1,
            base_lr=case.rate * 256 / BATCH,
            batch_size=BATCH,
            warmup_epochs=0.1,
            clip=1.0,
            shared_draws=True,
            seed=seed,
        ),
        folder=folder,
        processes=Processes("cpu"),
        after_step=objective.after_step if isinstance(objective, SteppedObjective) else None,
    ).run()
    return before, probed(objective.backbone, x, waveform)


def test_every_objective_is_a_case() -> None:
    assert set(CASES) == set(OBJECTIVES)


# The seed of three, for objectives that lose to a random encoder on one of them.
LOST = {"jepa": 2, "hubert": 1, "cmsc": 1}
REASON = "in so few steps not better than a random encoder on one of three seeds"
RUNS = [
    pytest.param(
        name,
        LOST.get(name, 0),
        marks=[pytest.mark.xfail(strict=True, raises=AssertionError, reason=REASON)]
        if name in LOST
        else [],
        id=name,
    )
    for name in CASES
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), RUNS)
def test_an_encoder_beats_a_random_one(name: str, seed: int, tmp_path: Path) -> None:
    before, after = before_and_after(name, seed, tmp_path)
    assert after > before + 0.01
