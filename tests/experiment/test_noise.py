"""Noise has the size, the frequencies and the seed of its specification."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from einthoven.errors import PreparationError
from einthoven.experiment.noise import NOISES, add_noise

RATE, SAMPLES = 500.0, 5000
BANDS = {"baseline-wander": (0.05, 0.5), "muscle": (20.0, 150.0), "powerline": (50.0, 50.0)}


@pytest.fixture(scope="module")
def signals() -> NDArray[np.int16]:
    generator = np.random.default_rng(0)
    size = np.array([300.0, 900.0, 50.0])[:, None, None]
    return (generator.normal(size=(3, 12, SAMPLES)) * size + 200).astype(np.int16)


def added(signals: NDArray[np.int16], **options: object) -> NDArray[np.float64]:
    settings = {"rate": RATE, "kind": "white", "snr": 10.0, "names": ["a", "b", "c"]} | options
    noisy = add_noise(signals, **settings)  # type: ignore[arg-type]
    assert noisy.dtype == np.int16
    return noisy.astype(np.float64) - signals


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("snr", [-5.0, 6.0, 15.0])
def test_the_ratio_is_the_requested_one(signals: NDArray[np.int16], kind: str, snr: float) -> None:
    noise = added(signals, kind=kind, snr=snr)
    power = signals.astype(float).var(axis=2).mean(axis=1)
    ratio = 10 * np.log10(power / np.square(noise).mean(axis=(1, 2)))
    assert ratio == pytest.approx([snr] * 3, abs=0.05)  # rounding to whole microvolts adds a little


@pytest.mark.parametrize("kind", BANDS)
def test_frequencies_are_where_they_should_be(signals: NDArray[np.int16], kind: str) -> None:
    noise = added(signals, kind=kind, snr=0.0)
    power = np.square(np.abs(np.fft.rfft(noise))).sum(axis=(0, 1))
    frequency = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    low, high = BANDS[kind]
    inside = (frequency >= low - 0.01) & (frequency <= high + 0.01)
    assert power[inside].sum() / power.sum() > 0.999
    if kind == "muscle":  # flat within its band
        lower, upper = inside & (frequency < 85), inside & (frequency >= 85)
        assert power[lower].mean() == pytest.approx(power[upper].mean(), rel=0.1)


def test_noise_depends_on_record_seed_and_kind_and_scales_with_the_ratio(
    signals: NDArray[np.int16],
) -> None:
    whole = added(signals, kind="muscle")
    alone = added(signals[1:2], kind="muscle", names=["b"])
    assert np.array_equal(whole[1], alone[0])
    other = added(signals[:1], kind="muscle", names=["b"])
    assert not np.allclose(other[0], whole[0])
    base = added(signals, snr=0.0)
    assert not np.allclose(base, added(signals, snr=0.0, seed=1))
    assert added(signals, snr=-10.0) == pytest.approx(base * np.sqrt(10), abs=3)


def test_flat_records_stay_flat_and_loud_ones_in_range() -> None:
    flat = np.full((1, 12, 1000), 7, dtype=np.int16)
    assert not added(flat, names=["x"]).any()
    square = np.where(np.arange(1000) % 2, 32767, -32768).astype(np.int16)
    loud = np.broadcast_to(square, (1, 12, 1000))
    noisy = add_noise(loud, rate=RATE, kind="white", snr=0.0, names=["x"])
    assert noisy.min() == -32768
    assert noisy.max() == 32767
    assert ((noisy > 0) == (loud > 0)).mean() > 0.8  # clipped, not wrapped around


def test_impossible_noise_is_refused(signals: NDArray[np.int16]) -> None:
    for options, message in (
        ({"kind": "hum"}, "hum"),
        ({"snr": float("nan")}, "nan"),
        ({"kind": "powerline", "rate": 80.0}, "50.*80"),
        ({"kind": "muscle", "rate": 30.0}, "20.*150"),
        ({"kind": "baseline-wander", "rate": 10_000.0}, r"0\.05.*0\.5"),
    ):
        with pytest.raises(PreparationError, match=message):
            added(signals, **options)
