"""Untrained features: random convolutions of windows, under a linear probe and nearest neighbours.

A network that was pretrained or trained on PTB-XL's training folds knows their records already; on
a new split, its features would measure that instead of the split. Random convolutions summarised by
the share of positive values and the maximum (ROCKET; Dempster et al., Data Mining and Knowledge
Discovery 34, 2020) are a random-weights encoder of one layer.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import conv1d

from einthoven.errors import ReproduceError
from einthoven.records import STANDARD_LEADS
from einthoven.signals.batches import SignalSource
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Resample, Window
from einthoven.signals.store import Store
from scoring import Floats, Indices, Targets

Singles = NDArray[np.float32]

WINDOWS = 4  # of 2.5 s each: a record of 10 s, cut without overlap
PREPARATION = Preparation(
    leads=STANDARD_LEADS, steps=(Resample(100), Window(250, evaluation_crops=WINDOWS))
)
DILATIONS = (1, 2, 4, 8, 16)
KERNELS, LENGTH = 60, 9  # kernels for each dilation, and their length in samples
LEADS = 0.25  # share of the leads that a kernel uses
THRESHOLD = 0.15  # mV: deviation of the thresholds above which an output counts as positive
PENALTY = 0.3  # of the probe, per training record; features have unit variance
NEIGHBOURS = 20
_BATCH, _BLOCK = 64, 256


def window_features(store: Store, rows: Indices, *, kernels: int, seed: int = 0) -> Singles:
    """Random convolutions of every window.

    Parameters
    ----------
    store : Store
    rows : array of int, shape (records,)
        Rows of the store.
    kernels : int
        Number for each of five dilations.
    seed : int
        Seed of the kernels.

    Returns
    -------
    array of float32, shape (records, windows, 10 kernels)
        Shares of positive outputs and maxima, mV.

    Raises
    ------
    ReproduceError
        If a record is too short for its windows.
    """
    bank = _bank(kernels, seed)
    source = SignalSource(store, rows, np.zeros((len(rows), 0), np.uint8), PREPARATION)
    features = np.empty((len(rows), WINDOWS, 2 * kernels * len(DILATIONS)), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, len(rows), _BATCH):
            batch = np.arange(start, min(start + _BATCH, len(rows)))
            crops, owner = source.evaluation_crops(batch)
            if len(crops) != WINDOWS * len(batch):
                raise ReproduceError(
                    f"{store.root}: records shorter than {WINDOWS} windows of 2.5 s",
                    remedy="pack PTB-XL, whose records are 10 s long",
                )
            convolved = _convolved(crops, bank)[torch.argsort(owner, stable=True)]
            features[batch] = convolved.reshape(len(batch), WINDOWS, -1).numpy()
    return features


def _bank(kernels: int, seed: int) -> list[tuple[int, Tensor, Tensor]]:
    """Dilation, kernels (kernels, leads, length) and thresholds, for each dilation."""
    random = np.random.default_rng(np.random.SeedSequence([seed, 0x20C7]))
    bank = []
    for dilation in DILATIONS:
        is_used = random.random((kernels, len(STANDARD_LEADS), 1)) < LEADS
        weights = random.normal(size=(kernels, len(STANDARD_LEADS), LENGTH)) * is_used
        weights -= weights.mean(axis=-1, keepdims=True)  # blind to a lead's offset
        size = np.sqrt((weights**2).sum(axis=(1, 2), keepdims=True))
        weights /= np.where(size > 0, size, 1.0)
        thresholds = random.normal(scale=THRESHOLD, size=(1, kernels, 1))
        bank.append((dilation, torch.from_numpy(weights).float(), torch.tensor(thresholds).float()))
    return bank


def _convolved(x: Tensor, bank: list[tuple[int, Tensor, Tensor]]) -> Tensor:
    parts = []
    for dilation, weights, thresholds in bank:
        y = conv1d(x, weights, dilation=dilation)
        parts += [(y > thresholds).float().mean(dim=-1), y.amax(dim=-1)]
    return torch.cat(parts, dim=1)


def standardised(train: Singles, test: Singles) -> tuple[Singles, Singles]:
    """Both by the mean and deviation of the training features."""
    centre, scale = train.mean(axis=0), train.std(axis=0) + np.float32(1e-6)
    return (train - centre) / scale, (test - centre) / scale


def probe(train: Singles, targets: Targets, test: Singles) -> Floats:
    """Probabilities `(test rows, labels)` of a linear probe by penalised least squares.

    It has one solution, no epochs and nothing to choose. An increasing function maps its values
    to (0, 1).
    """
    train, test = standardised(train, test)
    ridge = Ridge(alpha=PENALTY * len(train), solver="cholesky").fit(train, targets)
    return np.asarray(0.5 + np.arctan(4 * ridge.predict(test).astype(np.float64)) / np.pi)


def neighbours(train: Singles, targets: Targets, test: Singles) -> tuple[Floats, Indices]:
    """Similarity-weighted targets of the nearest training rows, and the nearest of them.

    Similarity is the cosine of standardised features: a model that does nothing but memorise.
    """
    train, test = standardised(train, test)
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train)), metric="cosine")
    distances, places = nearest.fit(train).kneighbors(test)
    weights = np.exp(10.0 * (1.0 - distances.astype(np.float64)))
    sums = np.einsum("rn,rnl->rl", weights, targets[places])
    return (sums / weights.sum(axis=1, keepdims=True)).clip(0, 1), places[:, 0]
