"""Features that nobody trained: random convolutions of windows, a linear probe and neighbours.

A network that was pretrained or trained on PTB-XL's training folds knows their records already; cut
anew, its features would measure that instead of the cut. Random convolutions summed up as share of
positive values and maximum (ROCKET; Dempster et al., Data Mining and Knowledge Discovery 34, 2020)
are a random-weights encoder of one layer that no record has touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv1d

from einthoven.errors import ReproduceError
from einthoven.records import STANDARD_LEADS
from einthoven.signals.batches import SignalSource
from einthoven.signals.prepare import Preparation, Resample, Window
from einthoven.signals.store import Store

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]
Places = NDArray[np.intp]

WINDOWS = 4  # of 2.5 s each: a record of 10 s, cut without overlap
PREPARATION = Preparation(
    leads=STANDARD_LEADS, steps=(Resample(100), Window(250, evaluation_crops=WINDOWS))
)
DILATIONS = (1, 2, 4, 8, 16)
KERNELS, LENGTH = 60, 9  # a dilation, and samples of a kernel
LEADS = 0.25  # share of the leads that a kernel sees
THRESHOLD = 0.15  # mV: deviation of the thresholds above which an output counts as positive
PENALTY = 0.3  # of the probe, per training record; features have unit variance
NEIGHBOURS = 20
_BATCH, _BLOCK = 64, 256


def window_features(
    store: Store,
    rows: Places,
    *,
    kernels: int = KERNELS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Singles:
    """Random convolutions of every window.

    Parameters
    ----------
    store : Store
    rows : array of int, shape (records,)
        Rows of the store.
    kernels : int
        For each of five dilations.
    seed : int
        What kernels are drawn from.
    progress : callable, optional
        `(done, total)`.

    Returns
    -------
    array of float32, shape (records, windows, 10 kernels)
        Shares of positive outputs and maxima, mV.

    Raises
    ------
    ReproduceError
        When a record is too short for its windows.
    """
    bank = _bank(kernels, seed)
    source = SignalSource(store, rows, np.zeros((len(rows), 0), np.uint8), PREPARATION)
    out = np.empty((len(rows), WINDOWS, 2 * kernels * len(DILATIONS)), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, len(rows), _BATCH):
            chosen = np.arange(start, min(start + _BATCH, len(rows)))
            crops, owner = source.evaluation_crops(chosen)
            if len(crops) != WINDOWS * len(chosen):
                raise ReproduceError(
                    f"{store.root}: records of less than {WINDOWS} windows of 2.5 s",
                    remedy="pack PTB-XL, whose records are of 10 s",
                )
            order = torch.argsort(owner, stable=True)
            out[chosen] = _convolved(crops, bank)[order].reshape(len(chosen), WINDOWS, -1).numpy()
            if progress:
                progress(int(chosen[-1]) + 1, len(rows))
    return out


def _bank(kernels: int, seed: int) -> list[tuple[int, Tensor, Tensor]]:
    """Dilation, kernels (kernels, leads, length) and thresholds, for each dilation."""
    draws = np.random.default_rng(np.random.SeedSequence([seed, 0x20C7]))
    bank = []
    for dilation in DILATIONS:
        seen = draws.random((kernels, len(STANDARD_LEADS), 1)) < LEADS
        weights = draws.normal(size=(kernels, len(STANDARD_LEADS), LENGTH)) * seen
        weights -= weights.mean(axis=-1, keepdims=True)  # blind to a lead's offset
        size = np.sqrt((weights**2).sum(axis=(1, 2), keepdims=True))
        weights /= np.where(size > 0, size, 1.0)
        thresholds = draws.normal(scale=THRESHOLD, size=(1, kernels, 1))
        bank.append((dilation, torch.from_numpy(weights).float(), torch.tensor(thresholds).float()))
    return bank


def _convolved(x: Tensor, bank: list[tuple[int, Tensor, Tensor]]) -> Tensor:
    parts = []
    for dilation, weights, thresholds in bank:
        y = conv1d(x, weights, dilation=dilation)
        parts += [(y > thresholds).float().mean(dim=-1), y.amax(dim=-1)]
    return torch.cat(parts, dim=1)


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe by penalised least squares: one solution, no epochs, nothing to choose.

    Attributes
    ----------
    centre, scale : arrays, shape (features,)
        Of the training features.
    weights : array, shape (features, labels)
    prevalence : array, shape (labels,)
    """

    centre: Singles
    scale: Singles
    weights: Singles
    prevalence: Floats

    @classmethod
    def fit(cls, x: Singles, targets: NDArray[np.uint8]) -> Probe:
        """Fit it to `(rows, features)` and `(rows, labels)` of 0 and 1."""
        centre, scale = x.mean(axis=0), x.std(axis=0) + np.float32(1e-6)
        z = (x - centre) / scale
        prevalence = targets.mean(axis=0)
        gram = (z.T @ z).astype(np.float64)
        gram[np.diag_indices_from(gram)] += PENALTY * len(x)
        products = z.T @ (targets - prevalence).astype(np.float32)
        weights = np.linalg.solve(gram, products.astype(np.float64)).astype(np.float32)
        return cls(centre, scale, weights, prevalence)

    def probabilities(self, x: Singles) -> Floats:
        """Its values pressed into 0 to 1, which keeps their order."""
        z = (x - self.centre) / self.scale
        return squashed((z @ self.weights).astype(np.float64) + self.prevalence)


def squashed(values: Floats) -> Floats:
    """Increasing, onto (0, 1)."""
    return np.asarray(0.5 + np.arctan(4 * values) / np.pi)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Nearest neighbours by the cosine of standardised features: what memorising is worth.

    Attributes
    ----------
    centre, scale : arrays, shape (features,)
        Of the training features.
    directions : array, shape (rows, features)
        Training rows, standardised, of length 1.
    targets : array, shape (rows, labels)
    """

    centre: Singles
    scale: Singles
    directions: Singles
    targets: NDArray[np.uint8]

    @classmethod
    def fit(cls, x: Singles, targets: NDArray[np.uint8]) -> Neighbours:
        """Remember `(rows, features)` and their targets."""
        centre, scale = x.mean(axis=0), x.std(axis=0) + np.float32(1e-6)
        return cls(centre, scale, _directions(x, centre, scale), targets)

    def __call__(self, x: Singles) -> tuple[Floats, Places]:
        """Similarity-weighted targets of the nearest rows, `(rows, labels)`, and the nearest."""
        count = min(NEIGHBOURS, len(self.directions))
        values, nearest = np.empty((len(x), self.targets.shape[1])), np.empty(len(x), np.intp)
        for start in range(0, len(x), _BLOCK):
            part = slice(start, start + _BLOCK)
            close = _directions(x[part], self.centre, self.scale) @ self.directions.T
            places = np.argpartition(-close, count - 1, axis=1)[:, :count]
            weights = np.exp(10.0 * np.take_along_axis(close, places, axis=1).astype(np.float64))
            sums = np.einsum("rn,rnl->rl", weights, self.targets[places])
            values[part] = sums / weights.sum(axis=1, keepdims=True)
            nearest[part] = close.argmax(axis=1)
        return values, nearest


def _directions(x: Singles, centre: Singles, scale: Singles) -> Singles:
    z = (x - centre) / scale
    return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True).clip(1e-6), dtype=np.float32)
