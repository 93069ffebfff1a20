"""Every label's AUROC and AUPRC in every resample, from the multiplicities.

Two paths compute the same sums: `compiled` (numba, where installed) and `tensor` (PyTorch, on any
device). They agree with scikit-learn's weighted metrics to rounding, ties included.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.metrics.label_metrics import AUPRC
from einthoven.metrics.ranking import Ranking

Floats = NDArray[np.float64]

ENGINES = ("auto", "tensor", "compiled")
COMPILED_WORTH = 20_000_000  # additions below which importing numba costs more than it saves
COLUMNS = 1024  # resamples at a time: their multiplicities fit a second-level cache


def resampled_metrics(
    ranking: Ranking,
    multiplicities: NDArray[np.integer[Any]],
    *,
    auprc: str = "average-precision",
    engine: str = "auto",
    device: str = "cpu",
) -> tuple[Floats, Floats]:
    """AUROC and AUPRC of every label in every resample.

    Parameters
    ----------
    ranking : Ranking
        Of the predictions, from `rank`.
    multiplicities : array of integers, shape (resamples, records)
        How often each record occurs in each resample.
    auprc : {"average-precision", "trapezoid"}
        Which area under the precision-recall curve.
    engine : {"auto", "tensor", "compiled"}
        `auto` takes the compiled path where numba is installed and the work is worth it.
    device : str
        Of the tensor path, such as "cuda".

    Returns
    -------
    auroc, auprc : arrays of float64, shape (resamples, labels)
        NaN where a resample holds no positive, or no negative, of the label.

    Raises
    ------
    EvaluationError
        For an unknown name, or `compiled` without numba or on another device than the CPU.
    """
    trapezoid = chosen("auprc", auprc, AUPRC) == "trapezoid"
    work = ranking.order.size * len(multiplicities)
    compiled = pick_engine(engine, device=device, work=work) == "compiled"
    path = "compiled" if compiled else device
    shape = (len(multiplicities), ranking.labels)
    areas, precisions = np.empty(shape), np.empty(shape)
    for start in range(0, len(multiplicities), COLUMNS):
        rows = slice(start, start + COLUMNS)
        weights = np.ascontiguousarray(multiplicities[rows].T)
        sums = _walk(ranking, weights, trapezoid, path)
        areas[rows], precisions[rows] = _ratios(*sums)
    return areas, precisions


def pick_engine(engine: str, *, device: str, work: int) -> str:
    """The path that `engine` means for so many additions on this device."""
    chosen("engine", engine, ENGINES)
    possible = find_spec("numba") is not None and device == "cpu"
    if engine == "compiled" and not possible:
        raise EvaluationError(
            f'engine = "compiled" needs numba and the CPU; device is {device!r}, numba is '
            f"{'installed' if find_spec('numba') else 'not installed'}",
            remedy='pip install "einthoven[fast]", or use engine="tensor"',
        )
    if engine != "auto":
        return engine
    return "compiled" if possible and work >= COMPILED_WORTH else "tensor"


def chosen(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value`, if it is one of the allowed names; an EvaluationError that lists them if not."""
    if value not in allowed:
        raise EvaluationError(
            f"{option} = {value!r} is unknown", remedy=f"use one of {', '.join(allowed)}"
        )
    return value


def _walk(
    ranking: Ranking, weights: NDArray[np.integer[Any]], trapezoid: bool, path: str
) -> tuple[Floats, ...]:
    # Both paths are imported when asked for: numba is optional, and either takes its time.
    if path == "compiled":
        from einthoven.evaluate import compiled

        return compiled.walk(ranking, weights, trapezoid=trapezoid)
    from einthoven.evaluate import tensor

    return tensor.walk(ranking, weights, trapezoid=trapezoid, device=path)


def _ratios(above: Floats, area: Floats, hits: Floats, misses: Floats) -> tuple[Floats, Floats]:
    defined = (hits > 0) & (misses > 0)
    pairs = np.where(defined, hits * misses, 1.0)
    areas = np.where(defined, 1 - above / (2 * pairs), np.nan)
    precisions = np.where(defined, area / np.where(defined, hits, 1.0), np.nan)
    return areas.T, precisions.T
