"""Waves of the heart vector in time, and their projection on the twelve leads.

Every deflection of an ECG is one or a few bumps with an exact start and an exact end, so that
the intervals (PR, QRS, QT) are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from einthoven.records.limb_leads import LIMB_LEADS

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Waves:
    """Bumps that rise, stay and fall with smooth ramps.

    Attributes
    ----------
    corners : numpy.ndarray
        (waves, 4): start, end of the rise, start of the fall, end, in seconds.
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
        """Stretch the waves in time by `stretch`, then delay them by `shift`."""
        return Waves(self.corners * stretch + shift, self.vectors)

    def turned(self, matrix: Array | float) -> Waves:
        """Multiply every vector by a (3, 3) matrix or by a number."""
        if isinstance(matrix, np.ndarray):
            return Waves(self.corners, self.vectors @ matrix.T)
        return Waves(self.corners, self.vectors * matrix)

    def __getitem__(self, rows: slice | Mask) -> Waves:
        return Waves(self.corners[rows], self.vectors[rows])

    def area(self) -> Array:
        """Time integral of the sum of the waves, mV s, (3,)."""
        start, top, fall, end = self.corners.T
        # A smooth ramp from 0 to 1 covers half of its rectangle.
        return np.asarray((end + fall - start - top) / 2 @ self.vectors)

    def sampled(self, samples: int, rate: float) -> Array:
        """Heart vector at 0, 1/rate, ... seconds, (3, samples) mV.

        Only the instants inside a wave are evaluated.
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


def waves(*rows: Sequence[float]) -> Waves:
    """Build waves from rows of four corners (ms) and a vector (mV)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return Waves(table[:, :4] * 1e-3, table[:, 4:])


NO_WAVES = waves()


def joined(parts: Sequence[Waves]) -> Waves:
    """Concatenate groups of waves."""
    return Waves(
        np.concatenate([part.corners for part in [NO_WAVES, *parts]]),
        np.concatenate([part.vectors for part in [NO_WAVES, *parts]]),
    )


# Dower's transfer coefficients from Frank's X (left), Y (inferior), Z (posterior) to leads
# (Dower, Machado and Osborne, On deriving the electrocardiogram from vectorcardiographic leads,
# Clin Cardiol 1980;3:87-95). The other limb leads follow from I and II.
_LEADS_I_II = np.array([[0.632, -0.235, 0.059], [0.235, 1.066, -0.132]])
_PRECORDIAL = np.array(
    [
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

# Rows I II III aVR aVL aVF in terms of I and II.
_LIMB = np.array(list(LIMB_LEADS.values()))

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")


def lead_field(rng: np.random.Generator) -> Array:
    """Lead vectors of one patient, (12, 3), leads in the standard order.

    Each chest electrode is moved along the row V1..V6, with a standard deviation of 0.15 electrode
    distances, and its gain (its distance to the heart) varies by about 7 %. The limb leads obey
    Einthoven's law.
    """
    place = np.clip(np.arange(6) + 0.15 * rng.standard_normal(6), 0.0, 5.0)
    chest = np.stack([np.interp(place, np.arange(6), axis) for axis in _PRECORDIAL.T], axis=1)
    chest = chest * np.exp(0.07 * rng.standard_normal((6, 1)))
    return np.concatenate([_LIMB @ _LEADS_I_II, chest])


def electrode_matrix() -> Array:
    """Leads as differences of electrode potentials, (12, 9), electrodes as in `ELECTRODES`."""
    bipolar = np.zeros((2, 9))
    bipolar[0, :2] = -1.0, 1.0
    bipolar[1, [0, 2]] = -1.0, 1.0
    chest = np.eye(9)[3:]
    chest[:, :3] = -1.0 / 3.0  # Wilson's central terminal
    return np.concatenate([_LIMB @ bipolar, chest])


def turn_frontal(degrees: float) -> Array:
    """Rotation in the frontal plane, clockwise as the axis of an ECG is counted, (3, 3)."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def turn_transverse(degrees: float) -> Array:
    """Rotation about the long axis of the body, which moves the precordial transition."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
