"""From a heart vector to twelve leads, and from nine electrodes to twelve leads."""

from __future__ import annotations

import numpy as np

from einthoven.cohorts.synthetic.waves import Array

# Dower's transfer coefficients from Frank's X (left), Y (inferior), Z (posterior) to leads
# (Dower, Machado and Osborne, On deriving the electrocardiogram from vectorcardiographic leads,
# Clin Cardiol 1980;3:87-95). The other limb leads follow from I and II.
_LEAD_I = (0.632, -0.235, 0.059)
_LEAD_II = (0.235, 1.066, -0.132)
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

# Rows I II III aVR aVL aVF in terms of I and II (Einthoven, Goldberger).
_LIMB = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [-0.5, -0.5], [1.0, -0.5], [-0.5, 1.0]])

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")


def lead_field(
    rng: np.random.Generator | None = None, *, placement: float = 0.15, gain: float = 0.07
) -> Array:
    """The lead vectors of one recording.

    Parameters
    ----------
    rng : numpy.random.Generator, optional
        Moves and scales the six chest electrodes; without it the field is Dower's.
    placement : float
        Standard deviation of an electrode's shift along the row V1..V6, in electrode distances.
    gain : float
        Standard deviation of the logarithm of an electrode's gain (its distance to the heart).

    Returns
    -------
    numpy.ndarray
        (12, 3), leads in the standard order; aVR, aVL, aVF and III obey Einthoven's law.
    """
    chest = _PRECORDIAL
    if rng is not None:
        place = np.clip(np.arange(6) + placement * rng.standard_normal(6), 0.0, 5.0)
        chest = np.stack([np.interp(place, np.arange(6), axis) for axis in chest.T], axis=1)
        chest = chest * np.exp(gain * rng.standard_normal((6, 1)))
    return np.concatenate([_LIMB @ np.array([_LEAD_I, _LEAD_II]), chest])


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
