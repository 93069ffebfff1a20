"""Waves: bumps of a heart vector in time, and their sum at the sampling instants.

Every deflection of an ECG is one or a few bumps with an exact start and an exact end, so that
intervals (PR, QRS, QT) are known rather than measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Waves:
    """Bumps that rise, stay and fall with smooth ramps.

    Attributes
    ----------
    corners : numpy.ndarray
        (waves, 4): start, end of the rise, start of the fall, end. Seconds, or fractions of an
        interval where the owner says so.
    vectors : numpy.ndarray
        (waves, 3): the heart vector at the top, mV, Frank's axes (left, inferior, posterior).
    """

    corners: Array
    vectors: Array

    def __len__(self) -> int:
        return len(self.corners)

    def __add__(self, other: Waves) -> Waves:
        return joined([self, other])

    def warped(self, *, stretch: float = 1.0, shift: float = 0.0) -> Waves:
        """The same waves, `stretch` times as long and then `shift` later."""
        return Waves(self.corners * stretch + shift, self.vectors)

    def turned(self, matrix: Array | float) -> Waves:
        """The same waves with every vector multiplied by a (3, 3) matrix, or by a number."""
        if isinstance(matrix, np.ndarray):
            return Waves(self.corners, self.vectors @ matrix.T)
        return Waves(self.corners, self.vectors * matrix)

    def only(self, rows: slice) -> Waves:
        """Some of the waves."""
        return Waves(self.corners[rows], self.vectors[rows])

    def area(self) -> Array:
        """The time integral of the sum of the waves, mV s, (3,)."""
        start, top, fall, end = self.corners.T
        # A smooth ramp from 0 to 1 covers half of its rectangle.
        return np.asarray((end + fall - start - top) / 2 @ self.vectors)

    def sampled(self, samples: int, rate: float) -> Array:
        """The heart vector at 0, 1/rate, ... seconds, (3, samples) mV.

        Only the instants inside a wave are evaluated, so that a long recording of short waves
        costs little.
        """
        out = np.zeros((3, samples))
        inside = (self.corners[:, 3] > 0) & (self.corners[:, 0] < samples / rate)
        if not inside.any():
            return out
        start, top, fall, end = self.corners[inside].T[..., None]
        first = np.floor(start * rate)
        index = first + np.arange(np.ceil((end - start).max() * rate) + 2)
        time = index / rate
        ramp = np.clip(
            np.minimum((time - start) / (top - start), (end - time) / (end - fall)), 0, 1
        )
        ramp *= ramp * (3.0 - 2.0 * ramp)
        ramp[(index < 0) | (index >= samples)] = 0.0
        where = np.clip(index, 0, samples - 1).astype(np.int64).ravel()
        for axis, vectors in zip(out, self.vectors[inside].T, strict=True):
            axis += np.bincount(where, (vectors[:, None] * ramp).ravel(), samples)
        return out


def waves(rows: Sequence[Sequence[float]], *, unit: float = 1e-3) -> Waves:
    """Build waves from rows of four corners (in `unit` seconds) and three mV."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return Waves(table[:, :4] * unit, table[:, 4:])


NO_WAVES = waves([])


def joined(parts: Sequence[Waves]) -> Waves:
    """All waves of several groups."""
    parts = parts or [NO_WAVES]
    return Waves(
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.vectors for part in parts]),
    )
