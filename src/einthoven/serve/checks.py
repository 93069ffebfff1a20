"""Limits, coefficients and filters with which the page checks a recording in the browser.

`assets/quality.js`, `average-beat.js` and `beats.js` repeat `records.quality`, `records.beats` and
`explain.beats` in JavaScript. Every number comes from the Python modules, so that there is one
source.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from scipy import signal as sps

from einthoven.explain import beats
from einthoven.files import Json
from einthoven.records import beats as average_beat
from einthoven.records import calibration, electrodes, limb_leads, quality


def checks_for(rate: float) -> Json:
    """Constants by module, for a model whose signals have a rate in Hz after preparation."""
    return {
        "quality": _constants(quality),
        "calibration": _constants(calibration),
        "limb_leads": _constants(limb_leads) | {"shares": limb_leads.LIMB_LEADS},
        "electrodes": _constants(electrodes) | {"exchanges": _exchanges()},
        "average_beat": _constants(average_beat) | {"faults": _faults()},
        "beats": _constants(beats) | _filter(rate),
    }


def _constants(module: ModuleType) -> Json:
    """Numbers, tuples and arrays that a module names in capitals, without leading underscores."""
    return {
        name.lstrip("_"): value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float | tuple | np.ndarray)
    }


def _faults() -> list[Json]:
    """Faults of the average beat: text and weights."""
    texts, weights = average_beat.FAULTS.values(), average_beat.coefficients().tolist()
    return [{"text": text, "weights": row} for text, row in zip(texts, weights, strict=True)]


def _exchanges() -> list[dict[str, Any]]:
    """Exchanges of electrodes: text, leads, the matrix that reverses it, and weights."""
    return [
        {
            "text": exchange.text,
            "leads": exchange.leads,
            "inverse": np.linalg.inv(exchange.matrix).round(12).tolist(),
            "weights": weights.tolist(),
        }
        for exchange, weights in zip(
            electrodes.EXCHANGES.values(), electrodes.coefficients(), strict=True
        )
    ]


def _filter(rate: float) -> Json:
    """Second-order sections, their initial state and padding; empty at too low a rate."""
    sections = beats.band_pass(rate)
    if sections is None:
        return {}
    # As in scipy.signal.sosfiltfilt, which has no name for it.
    taps = 2 * len(sections) + 1 - min((sections[:, 2] == 0).sum(), (sections[:, 5] == 0).sum())
    return {
        "sections": sections.tolist(),
        "initial": sps.sosfilt_zi(sections).tolist(),
        "padding": int(3 * taps),
    }
