"""Attributions of networks whose evidence is known: a wave that was planted in simulated ECGs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts.synthetic import SyntheticECG, simulate
from einthoven.explain import attribute, shares_of
from einthoven.models import Model
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.signals.prepare import prepare_record

pytest.importorskip("captum")

RATE = 100
SAMPLES = 10 * RATE
TIME = np.arange(SAMPLES) / RATE
TRAINING, TEST = 32, 6
MARGIN = 0.04  # s around a wave that count as inside: the network sees 140 ms at a time


@dataclass
class Planted:
    """An ECG without and with a planted wave, and where it is, (leads, samples)."""

    without: Record
    record: Record
    site: np.ndarray


def bump(start: float, end: float) -> np.ndarray:
    place = np.clip((TIME - start) / (end - start), 0, 1)
    return np.sin(np.pi * place)


def delta_wave(ecg: SyntheticECG, random: np.random.Generator) -> np.ndarray:
    """A slow start of every QRS complex, in all leads."""
    return np.tile(sum(0.3 * bump(q - 0.06, q + 0.02) for q in ecg.truth.qrs_times), (12, 1))


def st_elevation(ecg: SyntheticECG, random: np.random.Generator) -> np.ndarray:
    """Elevation of 0.3 mV after every QRS complex in V1 to V3."""
    ends = (q + ecg.truth.qrs_ms / 1000 for q in ecg.truth.qrs_times)
    wave = np.zeros((12, SAMPLES))
    wave[6:9] = sum(0.3 * bump(end, end + 0.15) for end in ends)
    return wave


def premature_beat(ecg: SyntheticECG, random: np.random.Generator) -> np.ndarray:
    """One wide complex between two beats."""
    times = ecg.truth.r_times
    beat = int(random.integers(1, len(times) - 2))
    middle = times[beat] + 0.55 * (times[beat + 1] - times[beat])
    signs = np.array([1, 1, 1, -1, 1, 1, -1, -1, 1, 1, 1, 1])[:, None]
    return 1.2 * signs * bump(middle - 0.08, middle + 0.08)


Plant = Callable[[SyntheticECG, np.random.Generator], np.ndarray]


def planted(seed: int, plant: Plant) -> Planted:
    seeds = (np.random.SeedSequence(seed, spawn_key=(part,)) for part in (0, 1))
    ecg = simulate(["NORM"], *seeds, rate=RATE, age=50)
    wave = plant(ecg, np.random.default_rng(seed))
    records = [
        Record.create(x.astype(np.float32), RATE, leads=STANDARD_LEADS, name=str(seed))
        for x in (ecg.signal, ecg.signal + wave)
    ]
    width = 2 * round(MARGIN * RATE) + 1
    near = [np.convolve(np.abs(row) > 1e-6, np.ones(width), "same") > 0 for row in wave]
    return Planted(*records, np.array(near))


def trained(ecgs: list[Planted]) -> Model:
    """A convolutional network that finds the wave, whatever ECG it is planted in.

    The ECG and the wave have sizes of their own, down to no ECG at all, so that nothing but the
    wave tells the two classes apart, and a flat line is not a sign of either.
    """
    options = {"widths": (16, 16, 16), "window": SAMPLES, "evaluation_crops": 1}
    network = create_classifier("fcn_wang", labels=("WAVE",), seed=0, **options)
    prepared = [
        torch.cat([prepare_record(network.preparation, record) for record in records])
        for records in ([e.without for e in ecgs], [e.record for e in ecgs])
    ]
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01)
    there = (torch.arange(32) % 2).float()
    for _ in range(200):
        rows = torch.randint(0, len(ecgs), (32,), generator=generator)
        size, height = torch.rand(2, 32, 1, 1, generator=generator)
        ecg, wave = prepared[0][rows], prepared[1][rows] - prepared[0][rows]
        noise = 0.02 * torch.randn(ecg.shape, generator=generator)
        x = 1.2 * size * ecg + there[:, None, None] * (0.5 + height) * wave + noise
        loss = binary_cross_entropy_with_logits(network(x)[:, 0], there)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Model(network.eval(), network.preparation)


def inside(model: Model, ecg: Planted, method: str) -> float:
    """Share of the evidence within the planted wave."""
    values = np.maximum(attribute(model, ecg.record, "WAVE", method).values, 0)
    return float(values[ecg.site].sum() / values.sum())


@pytest.mark.parametrize("plant", [delta_wave, premature_beat])
def test_grad_cam_finds_the_wave(plant: Plant) -> None:
    ecgs = [planted(seed, plant) for seed in range(TRAINING + TEST)]
    model = trained(ecgs[:TRAINING])
    found = np.mean([inside(model, ecg, "grad-cam") for ecg in ecgs[TRAINING:]])
    blind = np.mean([ecg.site.mean() for ecg in ecgs[TRAINING:]])
    assert found >= 0.8
    assert blind < 0.25


def test_integrated_gradients_find_the_leads_of_an_st_elevation() -> None:
    ecgs = [planted(seed, st_elevation) for seed in range(TRAINING + TEST)]
    model = trained(ecgs[:TRAINING])
    shares = [shares_of(attribute(model, e.record, "WAVE"), e.record) for e in ecgs[TRAINING:]]
    assert np.mean([share.of_wave("ST-T")[6:9].sum() for share in shares]) >= 0.8
    words = [share.in_words() for share in shares]
    assert sum("ST-T of V1 to V3" in text for text in words) >= TEST - 1
