"""Beats that do not come down the usual way: paced, ventricular and atrial ectopic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from einthoven.cohorts.synthetic.heart import (
    Beat,
    Heart,
    oriented,
    with_secondary_repolarisation,
)
from einthoven.cohorts.synthetic.waves import NO_WAVES, waves

# Rows of (start, top, top, end) in ms, (x, y, z) in mV.
_LEFT_VENTRICULAR = [
    (0, 44, 52, 98, -0.10, -0.62, -0.72),
    (50, 94, 104, 156, -0.50, -0.58, -0.42),
]
_OUTFLOW_TRACT = [
    (0, 46, 58, 108, 0.15, 0.72, 0.62),
    (48, 92, 102, 150, 0.38, 0.78, 0.42),
]
_RIGHT_APEX = [
    (0, 50, 54, 112, 0.30, -0.46, 0.42),
    (44, 96, 100, 166, 0.24, -0.72, 0.56),
]
_SPIKE = (-20.0, -11.0, -10.0, -2.0)


def ventricular_beat(heart: Heart, rng: np.random.Generator) -> Beat:
    """A premature ventricular beat: wide, without P, T against QRS.

    One focus a patient: the left ventricle (right bundle branch block pattern, superior axis) or
    the right outflow tract (left bundle branch block pattern, inferior axis).
    """
    focus = [_LEFT_VENTRICULAR, _OUTFLOW_TRACT, _RIGHT_APEX][rng.integers(3)]
    wide = waves(focus).warped(stretch=rng.uniform(0.88, 1.08)).turned(rng.uniform(1.1, 1.7))
    beat = replace(
        heart.beat, p=NO_WAVES, qrs=wide, fixed=NO_WAVES, qtc=heart.beat.qtc + 0.03, u=np.zeros(3)
    )
    return with_secondary_repolarisation(beat, heart.beat, share=0.58)


def atrial_beat(beat: Beat, rng: np.random.Generator) -> Beat:
    """A premature atrial beat: P of another shape, QRS as always."""
    low = rng.uniform() < 0.5
    turn = np.diag([0.9, -0.9, 1.0]) if low else np.diag([-0.6, 1.1, -1.2])
    p = beat.p.turned(turn).warped(stretch=rng.uniform(0.75, 0.9))
    return replace(beat, p=p, pr=max(float(p.corners.max()) + 0.03, beat.pr - 0.02))


def paced_beat(heart: Heart, rng: np.random.Generator) -> Beat:
    """A ventricular beat paced from the right apex, after its spike.

    The P waves, where the mode senses the atrium, stay with the caller.
    """
    wide = waves(_RIGHT_APEX).warped(stretch=rng.uniform(0.92, 1.1)).turned(rng.uniform(0.9, 1.35))
    size = rng.uniform(0.7, 1.5) * rng.choice([-1.0, 1.0])
    spike = waves([(*_SPIKE, 0.25 * size, 0.6 * size, 0.1 * size)])
    beat = replace(heart.beat, qrs=wide, fixed=NO_WAVES, qtc=heart.beat.qtc + 0.03, u=np.zeros(3))
    beat = oriented(beat, heart.field, axis=-86 + 26 * heart.tilt)
    beat = with_secondary_repolarisation(beat, heart.beat, share=0.5)
    return replace(beat, fixed=spike, pr=rng.uniform(0.15, 0.18))
