"""Effect of each statement on a beat: one small function a code.

Vectors are mV in Frank's axes (left, inferior, posterior), times ms from the start of QRS.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np

from einthoven.cohorts.synthetic.heart import (
    APEX,
    BASE,
    LATERAL,
    SEPTUM,
    Beat,
    Heart,
    limb_voltage,
    oriented,
    qrs_leads,
    scaled,
    sokolow,
    with_secondary_repolarisation,
    within_voltage,
)
from einthoven.cohorts.synthetic.waves import Array, Waves, waves

Sign = Callable[[Beat, np.random.Generator], Beat]


def _vector(*xyz: float) -> Array:
    return np.array(xyz, dtype=np.float64)


def _row(*numbers: float) -> Waves:
    return waves([numbers])


def _qrs(beat: Beat, *, scale: Mapping[int, tuple[float, float, float]], shift: float = 0) -> Beat:
    """Scale some QRS components axis by axis and delay all of them by `shift` ms."""
    vectors = beat.qrs.vectors.copy()
    for row, factors in scale.items():
        vectors[row] *= factors
    return replace(beat, qrs=Waves(beat.qrs.corners, vectors).warped(shift=shift * 1e-3))


def _add(beat: Beat, extra: Waves) -> Beat:
    return replace(beat, fixed=beat.fixed + extra)


# Conduction -------------------------------------------------------------------------------------


def _first_degree_block(beat: Beat, rng: np.random.Generator) -> Beat:
    return replace(beat, pr=rng.uniform(0.216, 0.31))


def _left_bundle_branch_block(beat: Beat, rng: np.random.Generator) -> Beat:
    rows = [
        (0, 34, 46, 86, 0.52, 0.12, 0.32),
        (26, 62, 72, 114, 0.36, 0.15, 0.86),
        (62, 94, 104, 148, 0.58, 0.05, 0.42),
    ]
    block = waves(rows).warped(stretch=rng.uniform(0.93, 1.08)).turned(rng.uniform(0.9, 1.4))
    return replace(beat, qrs=block, t=beat.t * 0.55, u=beat.u * 0)


def _late_right_ventricle(beat: Beat, *, end: float, size: float) -> Beat:
    start = 58.0
    top = start + 0.5 * (end - start)
    late = _row(start, top - 3, top + 3, end, -0.55 * size, 0.04 * size, -0.76 * size)
    # The late right ventricle stands in for the basal forces, which would hide its R'.
    factors = {LATERAL: (1.0, 1.0, 0.75), BASE: (0.5, 1.0, 0.1)} if len(beat.qrs) == 4 else {}
    return _add(_qrs(beat, scale=factors), late)


def _right_bundle_branch_block(beat: Beat, rng: np.random.Generator) -> Beat:
    return _late_right_ventricle(beat, end=rng.uniform(126, 150), size=rng.uniform(0.8, 1.25))


def _incomplete_right_block(beat: Beat, rng: np.random.Generator) -> Beat:
    return _late_right_ventricle(beat, end=rng.uniform(103, 116), size=rng.uniform(0.5, 0.75))


def _left_anterior_block(beat: Beat, rng: np.random.Generator) -> Beat:
    rows = [
        (0, 14, 14, 34, -0.14, 0.24, -0.16),
        (14, 38, 38, 64, 0.75, -0.30, 0.20),
        (30, 54, 54, 90, 0.35, -0.80, 0.45),
        (58, 80, 80, 106, -0.18, -0.30, 0.25),
    ]
    block = waves(rows).warped(stretch=rng.uniform(0.92, 1.05)).turned(rng.uniform(0.75, 1.15))
    return replace(beat, qrs=block)


def _preexcitation(beat: Beat, rng: np.random.Generator) -> Beat:
    forwards = -0.42 if rng.uniform() < 0.55 else 0.22  # type A (left pathway), type B (right)
    down = rng.choice([-0.22, 0.18])
    delta = _row(0, 46, 52, 88, 0.34, down, forwards).turned(rng.uniform(0.9, 1.3))
    late = _qrs(beat, scale={SEPTUM: (0, 0, 0)}, shift=rng.uniform(26, 36))
    return _add(replace(late, pr=rng.uniform(0.082, 0.112)), delta)


# Voltage ----------------------------------------------------------------------------------------


def _hypertrophy(beat: Beat, rng: np.random.Generator) -> Beat:
    strain = rng.uniform(0.8, 1.5)
    wide = beat.qrs.turned(np.diag([1.25, 1.0, 1.35])).warped(stretch=1.06)
    return replace(
        beat,
        qrs=wide,
        st=beat.st + strain * _vector(-0.075, -0.01, 0.07),
        t=strain * _vector(-0.17, 0.04, -0.16),
        t_shape=(0.16, 0.74, 0.98),
    )


def _low_voltage(beat: Beat, rng: np.random.Generator) -> Beat:
    return replace(beat, t=beat.t * rng.uniform(0.85, 1.0), st=beat.st * 0.5)


# Infarction -------------------------------------------------------------------------------------


def _scar_repolarisation(beat: Beat, rng: np.random.Generator, towards: Array) -> Beat:
    """An old scar with a low T away from it, or a recent one with ST elevation and T inversion."""
    recent = rng.uniform() < 0.35
    lift, invert = (rng.uniform(0.10, 0.2), 0.28) if recent else (0.02, rng.uniform(0.05, 0.15))
    opposite = beat.t - towards * max(0.0, float(beat.t @ towards))
    return replace(beat, st=beat.st + lift * towards, t=0.9 * opposite - invert * towards)


def _inferior_infarction(beat: Beat, rng: np.random.Generator) -> Beat:
    size = rng.uniform(0.9, 1.4)
    scale = {SEPTUM: (0.6, 0.0, 1.0), APEX: (1.0, 0.55, 1.0), LATERAL: (1.0, 0.8, 1.0)}
    beat = _add(_qrs(beat, scale=scale, shift=8), _row(0, 20, 24, 54, 0.10, -0.42 * size, 0.03))
    return _scar_repolarisation(beat, rng, _vector(0.05, 0.98, 0.1))


def _anteroseptal_infarction(beat: Beat, rng: np.random.Generator) -> Beat:
    size = rng.uniform(0.9, 1.25)
    scale = {SEPTUM: (0.2, 0.5, 0.0), APEX: (0.8, 1.0, 1.0)}
    lost = waves(
        [(0, 22, 28, 56, -0.04, 0.0, 0.36 * size), (14, 34, 38, 60, -0.05, 0.0, 0.42 * size)]
    )
    beat = _add(_qrs(beat, scale=scale), lost)
    return _scar_repolarisation(beat, rng, _vector(0.3, 0.0, -0.95))


def _anterior_infarction(beat: Beat, rng: np.random.Generator) -> Beat:
    size = rng.uniform(0.9, 1.25)
    scale = {SEPTUM: (0.5, 0.0, 0.5), APEX: (0.6, 0.9, 1.0), LATERAL: (0.9, 1.0, 0.8)}
    lost = waves(
        [(5, 27, 38, 72, -0.46 * size, 0.0, 0.28 * size), (24, 44, 50, 70, 0.0, 0.0, 0.22 * size)]
    )
    beat = _add(_qrs(beat, scale=scale, shift=12), lost)
    return _scar_repolarisation(beat, rng, _vector(0.8, 0.0, -0.6))


def _lateral_q(beat: Beat, rng: np.random.Generator) -> Beat:
    q = _row(0, 15, 18, 40, -0.44 * rng.uniform(0.9, 1.3), 0.02, -0.06)
    return _add(_qrs(beat, scale={SEPTUM: (0.3, 1.0, 0.6)}, shift=6), q)


def _fragmented(beat: Beat, rng: np.random.Generator) -> Beat:
    """A notch down and a second peak within a QRS of usual length."""
    apex = beat.qrs.vectors[APEX] / np.linalg.norm(beat.qrs.vectors[APEX])
    depth = rng.uniform(0.55, 0.8) * np.linalg.norm(beat.qrs.vectors[APEX])
    notch = Waves(np.array([[30, 44, 46, 60]]) * 1e-3, -depth * apex[None])
    second = Waves(np.array([[50, 66, 68, 88]]) * 1e-3, 0.75 * depth * apex[None])
    return replace(beat, qrs=beat.qrs.warped(shift=-0.002) + notch + second)


# Repolarisation ---------------------------------------------------------------------------------


def _ischaemia(beat: Beat, rng: np.random.Generator) -> Beat:
    depth = rng.uniform(0.9, 1.4)
    st = beat.st * 0.3 + depth * _vector(-0.075, -0.062, 0.03)
    return replace(beat, st=st, t=beat.t * rng.uniform(0.1, 0.35), t_shape=(0.3, 0.72, 1.0))


def _anterolateral_ischaemia(beat: Beat, rng: np.random.Generator) -> Beat:
    depth = rng.uniform(0.9, 1.6)
    st = beat.st * 0.3 + depth * _vector(-0.075, 0.0, 0.05)
    t = _vector(-0.19, 0.02, 0.05) * rng.uniform(0.9, 1.7)
    return replace(beat, st=st, t=t, t_shape=(0.24, 0.64, 1.0))


def _st_depression(beat: Beat, rng: np.random.Generator) -> Beat:
    depth = rng.uniform(1.1, 1.9)
    return replace(beat, st=beat.st * 0.2 + depth * _vector(-0.09, -0.085, 0.045))


def _inverted_t(beat: Beat, rng: np.random.Generator) -> Beat:
    t = _vector(-0.14, 0.02, 0.14) * rng.uniform(1.0, 2.0)
    return replace(beat, st=beat.st * 0.3, t=t, t_shape=(0.2, 0.64, 1.0))


def _flat_t(beat: Beat, rng: np.random.Generator) -> Beat:
    return replace(beat, t=beat.t * rng.uniform(0.08, 0.25), st=beat.st * 0.2)


def _long_qt(beat: Beat, rng: np.random.Generator) -> Beat:
    return replace(beat, qtc=rng.uniform(0.492, 0.56), u=beat.u * 0, t_shape=(0.16, 0.72, 1.0))


# Atria ------------------------------------------------------------------------------------------


def _left_atrium(beat: Beat, rng: np.random.Generator) -> Beat:
    right, left = beat.p.only(slice(0, 1)), beat.p.only(slice(1, 2))
    large = Waves(left.corners, np.array([[0.10, 0.075, 0.12]]) * rng.uniform(1.0, 1.35))
    p = right + large.warped(shift=0.028 + rng.uniform(0.0, 0.012))
    return replace(beat, p=p, pr=max(beat.pr, float(p.corners.max()) + 0.03))


# In the order in which they are applied: how the impulse runs, then what the muscle lost, then
# recovery. A code without an entry changes the rhythm only.
SIGNS: dict[str, Sign] = {
    "LAFB": _left_anterior_block,
    "CLBBB": _left_bundle_branch_block,
    "CRBBB": _right_bundle_branch_block,
    "IRBBB": _incomplete_right_block,
    "WPW": _preexcitation,
    "ABQRS": _fragmented,
    "LVH": _hypertrophy,
    "LVOLT": _low_voltage,
    "ASMI": _anteroseptal_infarction,
    "IMI": _inferior_infarction,
    "AMI": _anterior_infarction,
    "QWAVE": _lateral_q,
    "ISC_": _ischaemia,
    "ISCAL": _anterolateral_ischaemia,
    "STD_": _st_depression,
    "INVT": _inverted_t,
    "NDT": _flat_t,
    "LNGQT": _long_qt,
    "LAO/LAE": _left_atrium,
    "1AVB": _first_degree_block,
}

# Frontal axis (degrees) that a statement allows; the first one that applies decides.
_AXES = {
    "LAFB": (-73, -47),
    "CLBBB": (-40, 50),
    "CRBBB": (-15, 95),
    "IMI": (-28, 35),
    "AMI": (-10, 85),
    "QWAVE": (-5, 80),
    "LVH": (-28, 45),
}
_WIDE = ("CLBBB", "CRBBB", "WPW")
_INFARCTIONS = ("ASMI", "IMI", "AMI")


def beat_of(heart: Heart, statements: Collection[str], rng: np.random.Generator) -> Beat:
    """Sinus (or conducted) beat of a heart with these statements.

    Parameters
    ----------
    heart : Heart
        The patient.
    statements : collection of str
        SCP codes; those that only concern the rhythm are passed over.
    rng : numpy.random.Generator
        Gives every statement its own stream, so that a patient's infarct looks the same in every
        record, whatever other statements it has.

    Returns
    -------
    Beat
        QRS, ST and T in their final voltage.
    """
    beat = heart.beat
    for (code, sign), stream in zip(SIGNS.items(), rng.spawn(len(SIGNS)), strict=True):
        # Any infarct carries the statement QWAVE; only without one does it mean lateral Q waves.
        scar = code == "QWAVE" and any(infarct in statements for infarct in _INFARCTIONS)
        if code in statements and not scar:
            beat = sign(beat, stream)
    beat = _voltage(_axis(beat, heart, statements), heart, statements)
    if "ASMI" in statements:
        beat = _without_septum(beat, heart)
    if any(code in statements for code in _WIDE):
        beat = with_secondary_repolarisation(beat, heart.beat)
    return beat


def _without_septum(beat: Beat, heart: Heart) -> Beat:
    """Turn what is left of R in V1..V3 into QS, wherever this patient's electrodes are."""
    for _ in range(8):
        leads = qrs_leads(beat, heart.field)[6:9]
        lead, when = np.unravel_index(np.argmax(leads), leads.shape)
        if leads[lead, when] < 0.06:
            break
        away = -heart.field[6 + lead] / np.linalg.norm(heart.field[6 + lead]) ** 2
        top = float(np.clip(when, 26, 1000 * beat.qrs_duration - 26))
        beat = _add(beat, _row(top - 25, top, top, top + 25, *(1.05 * leads[lead, when] * away)))
    return beat


def _axis(beat: Beat, heart: Heart, statements: Collection[str]) -> Beat:
    for code, (low, high) in _AXES.items():
        if code in statements:
            return oriented(beat, heart.field, axis=low + heart.tilt * (high - low))
    return beat


def _voltage(beat: Beat, heart: Heart, statements: Collection[str]) -> Beat:
    if "LVOLT" in statements:
        goal = 0.26 + 0.16 * heart.tilt
        return scaled(beat, goal / limb_voltage(beat, heart.field))
    if not {"HVOLT", "LVH"} & set(statements):
        return beat
    limits = (3.8 + 1.2 * heart.tilt, 9.0)
    high = within_voltage(beat, heart.field, measure=sokolow, limits=limits)
    # The strain of a hypertrophy was set in mV already.
    return replace(high, st=beat.st, t=beat.t) if "LVH" in statements else high
