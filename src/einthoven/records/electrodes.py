"""Electrodes in each other's place, by how the eight independent leads usually go together.

A chest lead that is inverted or ten times too small is found in the same way.

Exchanged limb electrodes obey the laws of the limb leads, and exchanged chest electrodes obey none.
For each exchange, a logistic regression tells recordings with it from those without, by the
correlations of the leads, their sizes and the asymmetry of their deflections. `electrodes.json`
holds the coefficients, fitted to PTB-XL's folds 1 to 8 by `studies/quality`.

Exchanges that could not be told there are left out: left arm and left leg, V4 and V5, V5 and V6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from einthoven.records.limb_leads import derive_limb_leads
from einthoven.records.record import Record

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
_CHEST = LEADS[2:]
_LIMB = ("I", "II", "III", "aVR", "aVL", "aVF")
_RATE = 100.0  # Hz, below which the features look; PTB-XL's lower rate
_HARDLY_ANY = 0.12  # share of the largest of I, II and III; one in 16,000 of PTB-XL is below
_PAIRS = [p for p in combinations(_CHEST, 2) if p not in (("V4", "V5"), ("V5", "V6"))]


@dataclass(frozen=True, eq=False)
class Exchange:
    """An exchange of electrodes, after which leads have wrong names, or a change of one lead.

    Attributes
    ----------
    text : str
        Description.
    leads : tuple of str
        Leads with wrong names or values.
    matrix : numpy.ndarray, shape (8, 8)
        Effect on `LEADS`, which it multiplies from the left.
    """

    text: str
    leads: tuple[str, ...]
    matrix: NDArray[np.float64]


def _exchanges() -> Mapping[str, Exchange]:
    unit = np.eye(len(LEADS))
    arms, leg = unit.copy(), unit.copy()
    arms[:2, :2] = [[-1, 0], [-1, 1]]  # I becomes -I, II becomes III
    leg[:2, :2] = [[1, -1], [0, -1]]  # I becomes -III, II becomes -II
    seems = "electrode seems to be on the right arm"
    result = {
        "arms": Exchange(f"the left arm's {seems}", _LIMB, arms),
        "arm-leg": Exchange(f"the left leg's {seems}", _LIMB, leg),
    }
    for one, other in _PAIRS:
        order = list(range(len(LEADS)))
        i, j = LEADS.index(one), LEADS.index(other)
        order[i], order[j] = j, i
        text = f"{one} and {other} seem to be exchanged"
        result[f"{one}-{other}"] = Exchange(text, (one, other), unit[order])
    backwards = unit[[0, 1, 7, 6, 5, 4, 3, 2]]
    result["reverse"] = Exchange("V1 to V6 seem to be in reverse order", _CHEST, backwards)
    for lead in _CHEST:
        sign = np.where(np.array(LEADS) == lead, -1.0, 1.0)
        result[f"-{lead}"] = Exchange(f"{lead} seems to be inverted", (lead,), np.diag(sign))
        tenth = np.where(np.array(LEADS) == lead, 0.1, 1.0)
        text = f"{lead} seems to be ten times too small"
        result[f"{lead}/10"] = Exchange(text, (lead,), np.diag(tenth))
    return result


EXCHANGES = _exchanges()


def independent_leads(record: Record) -> NDArray[np.float64] | None:
    """`LEADS` of a recording after `steady`, mV, shape (8, samples).

    None if one of the eight is absent, flat or has missing samples.
    """
    record = derive_limb_leads(record)
    if not set(LEADS) <= set(record.leads):
        return None
    rows = [record.leads.index(lead) for lead in LEADS]
    x = record.signal[rows].astype(np.float64)
    if not np.isfinite(x).all() or (np.ptp(x, axis=1) == 0).any():
        return None
    return steady(x, record.rate)


def exchange_of(x: NDArray[np.float64]) -> Exchange | None:
    """Find the exchange of electrodes that `independent_leads` look like; None for no exchange."""
    if exchange := _without_signal(x):
        return exchange
    weights = coefficients()
    scores = _scores(weights, x)
    candidates = [name for name, score in zip(EXCHANGES, scores, strict=True) if score >= 0]
    if not candidates:
        return None

    def remainder(name: str) -> float:
        """Highest score that remains after the reversal of an exchange."""
        return float(_scores(weights, np.linalg.inv(EXCHANGES[name].matrix) @ x).max())

    return EXCHANGES[min(candidates, key=remainder)]


def _without_signal(x: NDArray[np.float64]) -> Exchange | None:
    """An exchange with the right leg, whose potential hardly differs from that of the left leg."""
    limb = {"I": x[0], "II": x[1], "III": x[1] - x[0]}
    sizes = {lead: float(values.std()) for lead, values in limb.items()}
    lead = min(sizes, key=sizes.__getitem__)
    if sizes[lead] >= _HARDLY_ANY * max(sizes.values()):
        return None
    text = f"{lead} has hardly any signal: the right leg's electrode seems to be elsewhere"
    return Exchange(text, (lead,), np.eye(len(LEADS)))


def steady(x: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Leads in mV, (..., samples), averaged to about 100 Hz, without their mean over 1 s."""
    step = round(rate / steady_rate(rate))
    count = x.shape[-1] // step
    x = x[..., : count * step].reshape(*x.shape[:-1], count, step).mean(axis=-1)
    return x - uniform_filter1d(x, max(1, round(rate / step)), axis=-1, mode="nearest")


def steady_rate(rate: float) -> float:
    """Sampling rate after `steady`, Hz: 100 Hz, or a divisor of the rate close to it."""
    return rate / max(1, round(rate / _RATE))


def features(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features of `LEADS` after `steady`, (..., 8, samples) to (..., 44).

    The correlations of all pairs, and of each lead the logarithm of its size, relative to the
    others, and its skewness, in which large values are compressed.
    """
    covariance = x @ np.swapaxes(x, -1, -2) / x.shape[-1]
    size = np.sqrt(np.einsum("...ii->...i", covariance)) + 1e-9
    rows, columns = np.triu_indices(len(LEADS), 1)
    correlation = covariance / size[..., :, None] / size[..., None, :]
    logs = np.log(size)
    skewness = (x * x * x).mean(axis=-1) / size**3
    return np.concatenate(
        [
            correlation[..., rows, columns],
            logs - logs.mean(axis=-1, keepdims=True),
            np.sign(skewness) * np.log1p(np.abs(skewness)),
        ],
        axis=-1,
    )


def _scores(weights: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = weights[:, :-1] @ features(x) + weights[:, -1]
    return scores


@cache
def coefficients() -> NDArray[np.float64]:
    """Weights of the features and a constant for each of `EXCHANGES`; a sum >= 0 indicates it."""
    text = files("einthoven.records").joinpath("electrodes.json").read_text(encoding="utf-8")
    table = json.loads(text)
    return np.array([table[name] for name in EXCHANGES])
