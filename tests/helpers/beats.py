"""ECG-like signals in mV."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def beats(
    records: int, leads: int, samples: int, rate: float, seed: int = 0
) -> NDArray[np.float64]:
    """Beats with drift, offset and noise, (records, leads, samples)."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / rate
    wave = np.exp(-(((time * 1.2) % 1 - 0.5) ** 2) / 5e-4)
    size = random.uniform(0.2, 2.0, (records, leads, 1))
    drift = np.cumsum(random.standard_normal((records, leads, samples)), -1) / samples**0.5
    noise = 0.03 * random.standard_normal((records, leads, samples))
    return size * wave + drift + noise + random.uniform(-1, 1, (records, leads, 1))
