"""A patient's heart: the template of a beat, its axis, voltage, repolarisation, ectopic beats."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from einthoven.cohorts.synthetic.waves import (
    NO_WAVES,
    Array,
    Waves,
    joined,
    lead_field,
    turn_frontal,
    turn_transverse,
    waves,
)

# Mean vector loops of normal adults, as rows of (start, top, top, end) in ms and (x, y, z) in mV.
_P = waves(
    (0, 38, 40, 78, 0.050, 0.090, -0.040),  # right atrium: inferior, anterior
    (26, 62, 64, 102, 0.070, 0.055, 0.035),  # left atrium: left, posterior
)
_QRS = waves(
    (0, 15, 15, 36, -0.10, -0.05, -0.20),  # septum: to the right and forwards
    (12, 34, 34, 54, 0.92, 0.40, -0.05),  # apex and free walls
    (24, 46, 46, 70, 0.38, 0.30, 0.68),  # lateral wall: backwards
    (46, 64, 64, 92, -0.12, 0.02, 0.28),  # base
)
_T = (0.21, 0.11, -0.19)
SEPTUM, APEX, LATERAL, BASE = range(4)

# T area divided by T amplitude, seconds, at a usual JT interval: turns a missing QRS area into a
# T vector (Wilson's ventricular gradient).
_T_AREA = 0.14

# Frontal rotations that `oriented` tries, a degree apart, (360, 3, 3).
_TURNS = np.stack([turn_frontal(degrees) for degrees in range(-180, 180)])


@dataclass(frozen=True, eq=False)
class Beat:
    """A template of one heartbeat.

    Attributes
    ----------
    p : Waves
        Atrial depolarisation, seconds from the start of P. Empty: no P wave.
    pr : float
        Start of P to start of QRS, seconds.
    qrs : Waves
        Ventricular depolarisation that follows the heart's axis, seconds from the QRS's start.
    fixed : Waves
        The part of it that anatomy fixes (Q waves of a scar, a late right ventricle), and pacing
        spikes, which end before 0.
    st, t : numpy.ndarray
        (3,) mV: vector of the ST segment and of the top of T.
    t_shape : tuple of float
        Start, top and end of T as fractions of the interval from J point to end of T.
    u : numpy.ndarray
        (3,) mV: vector of the U wave.
    qtc : float
        QT interval at an RR interval of 1 s, seconds (Fridericia).
    """

    p: Waves
    pr: float
    qrs: Waves
    fixed: Waves
    st: Array
    t: Array
    qtc: float
    u: Array
    t_shape: tuple[float, float, float] = (0.17, 0.67, 1.0)

    @property
    def depolarisation(self) -> Waves:
        """QRS waves, without pacing spikes."""
        both = self.qrs + self.fixed
        return both[both.corners[:, 3] > 0]

    @property
    def qrs_duration(self) -> float:
        """Seconds from the start of QRS to the J point."""
        return float(self.depolarisation.corners[:, 3].max())

    @property
    def r_peak(self) -> float:
        """Seconds from the start of QRS to its largest vector."""
        vector = self.depolarisation.sampled(round(1000 * self.qrs_duration), 1000.0)
        return float(np.argmax((vector**2).sum(axis=0))) / 1000.0

    def qt(self, rr: float) -> float:
        """QT interval at an RR interval, seconds (Fridericia's cube root)."""
        return float(self.qtc * rr ** (1.0 / 3.0))

    def ventricular(self, rr: float) -> Waves:
        """QRS, ST, T and U at an RR interval (s), seconds from the start of QRS."""
        start, top, end = self.t_shape
        # In fractions of the interval from J point to end of T.
        corners = [[-0.06, 0.07, 0.32, 0.66], [start, top, top, end], [1.04, 1.22, 1.22, 1.42]]
        recovery = Waves(np.array(corners), np.stack([self.st, self.t, self.u]))
        duration = self.qrs_duration
        recovery = recovery.warped(stretch=self.qt(rr) - duration, shift=duration)
        return joined([self.qrs, self.fixed, recovery])


@dataclass(frozen=True, eq=False)
class Heart:
    """A patient.

    Attributes
    ----------
    beat : Beat
        Beat without any finding.
    field : numpy.ndarray
        (12, 3) lead vectors.
    tilt : float
        In 0..1: where the patient lies in the range of axis or voltage that a finding allows.
    """

    beat: Beat
    field: Array
    tilt: float


def normal_heart(rng: np.random.Generator, *, age: float, sex: int) -> Heart:
    """Draw a patient without findings from the patient's own stream.

    The axis moves to the left and T becomes lower with age (years); men (sex 0) have a higher QRS,
    women (1) a longer QT.
    """
    field = lead_field(rng)
    tilt = float(rng.uniform())
    sway = turn_transverse(rng.normal(0.0, 9.0)) @ turn_frontal(rng.normal(0.0, 4.0))
    qrs = _jittered(_QRS, rng).warped(stretch=rng.uniform(0.92, 1.08) - 0.02 * sex)
    size = np.exp(rng.normal(0.0, 0.18)) * (1.12 - 0.1 * sex)
    beat = Beat(
        p=_jittered(_P, rng).warped(stretch=rng.uniform(0.88, 1.08)),
        pr=float(np.clip(rng.normal(0.155 + 0.0002 * (age - 50), 0.016), 0.125, 0.192)),
        qrs=qrs.turned(sway).turned(float(size)),
        fixed=NO_WAVES,
        st=np.array([0.02, 0.01, -0.03]) * rng.uniform(0.0, 1.2),
        t=np.array(_T) * rng.uniform(0.8, 1.5) * (1.25 - 0.004 * age - 0.1 * sex),
        qtc=float(np.clip(rng.normal(0.402 + 0.008 * sex, 0.013), 0.372, 0.436)),
        u=np.array([0.02, 0.01, -0.03]) * max(0.0, rng.normal(0.2, 0.5)),
    )
    axis = float(np.clip(62 - 0.45 * (age - 30) + 75 * (tilt - 0.5), -12, 88))
    beat = oriented(beat, field, axis=axis)
    for measure, limits in ((sokolow, (0.9, 2.9)), (limb_voltage, (0.65, 1.9))):
        voltage = measure(beat, field)
        beat = scaled(beat, float(np.clip(voltage, *limits)) / voltage)
    return Heart(beat, field, tilt)


def _jittered(template: Waves, rng: np.random.Generator) -> Waves:
    size = np.exp(0.12 * rng.standard_normal((len(template), 1)))
    length = np.linalg.norm(template.vectors, axis=1, keepdims=True)
    shake = 0.08 * length * rng.standard_normal((len(template), 3))
    return Waves(template.corners, template.vectors * size + shake)


def axis_degrees(area: Array, field: Array) -> Array:
    """Frontal QRS axis from net areas (..., 3) in I and aVF, degrees in -180..180, (...)."""
    lead_i, lead_avf = area @ field[0], area @ field[5]
    return np.asarray(np.rad2deg(np.arctan2(lead_avf * 2.0 / np.sqrt(3.0), lead_i)))


def oriented(beat: Beat, field: Array, *, axis: float) -> Beat:
    """Turn the QRS in the frontal plane to a given net axis.

    The lead field is not isotropic and `fixed` does not turn, so the angle is searched.
    """
    still = beat.depolarisation.area() - beat.qrs.area()
    axes = axis_degrees(_TURNS @ beat.qrs.area() + still, field)
    turn = _TURNS[np.argmin(np.abs((axes - axis + 180.0) % 360.0 - 180.0))]
    return replace(beat, qrs=beat.qrs.turned(turn))


def qrs_leads(beat: Beat, field: Array) -> Array:
    """QRS of a beat in the twelve leads, (12, milliseconds) mV."""
    return field @ beat.depolarisation.sampled(round(1000 * beat.qrs_duration), 1000.0)


def sokolow(beat: Beat, field: Array) -> float:
    """Sokolow-Lyon voltage: S in V1 plus the larger R of V5 and V6, mV."""
    leads = qrs_leads(beat, field)
    return float(-leads[6].min() + leads[10:].max())


def limb_voltage(beat: Beat, field: Array) -> float:
    """Largest peak-to-peak QRS of the six limb leads, mV."""
    return float(np.ptp(qrs_leads(beat, field)[:6], axis=1).max())


def scaled(beat: Beat, gain: float) -> Beat:
    """Scale the QRS voltage of a beat, and its T wave by the square root."""
    soft = float(np.sqrt(gain))
    return replace(
        beat,
        qrs=beat.qrs.turned(gain),
        fixed=beat.fixed.turned(gain),
        st=beat.st * soft,
        t=beat.t * soft,
        u=beat.u * soft,
    )


def with_secondary_repolarisation(beat: Beat, normal: Beat, *, share: float = 0.8) -> Beat:
    """ST and T that follow from an abnormal depolarisation of the heart with a `normal` beat.

    Wilson's ventricular gradient: T's area loses a share of what QRS's area gains in a direction.
    """
    excess = beat.depolarisation.area() - normal.depolarisation.area()
    discordant = -share * excess / _T_AREA
    return replace(beat, t=beat.t + discordant, st=beat.st + 0.22 * discordant)


# Rows of (start, top, top, end) in ms, (x, y, z) in mV.
_LEFT_VENTRICULAR = waves(
    (0, 44, 52, 98, -0.10, -0.62, -0.72),
    (50, 94, 104, 156, -0.50, -0.58, -0.42),
)
_OUTFLOW_TRACT = waves(
    (0, 46, 58, 108, 0.15, 0.72, 0.62),
    (48, 92, 102, 150, 0.38, 0.78, 0.42),
)
_RIGHT_APEX = waves(
    (0, 50, 54, 112, 0.30, -0.46, 0.42),
    (44, 96, 100, 166, 0.24, -0.72, 0.56),
)


def ventricular_beat(heart: Heart, rng: np.random.Generator) -> Beat:
    """A premature ventricular beat: wide, without P, T against QRS.

    One focus a patient: the left ventricle (right bundle branch block pattern, superior axis) or
    the right outflow tract (left bundle branch block pattern, inferior axis).
    """
    focus = [_LEFT_VENTRICULAR, _OUTFLOW_TRACT, _RIGHT_APEX][rng.integers(3)]
    wide = focus.warped(stretch=rng.uniform(0.88, 1.08)).turned(rng.uniform(1.1, 1.7))
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
    wide = _RIGHT_APEX.warped(stretch=rng.uniform(0.92, 1.1)).turned(rng.uniform(0.9, 1.35))
    size = rng.uniform(0.7, 1.5) * rng.choice([-1.0, 1.0])
    spike = waves((-20, -11, -10, -2, 0.25 * size, 0.6 * size, 0.1 * size))
    beat = replace(heart.beat, qrs=wide, fixed=NO_WAVES, qtc=heart.beat.qtc + 0.03, u=np.zeros(3))
    beat = oriented(beat, heart.field, axis=-86 + 26 * heart.tilt)
    beat = with_secondary_repolarisation(beat, heart.beat, share=0.5)
    return replace(beat, fixed=spike, pr=rng.uniform(0.15, 0.18))
