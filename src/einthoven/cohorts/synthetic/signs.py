"""Effect of each statement on a beat.

Vectors are mV in Frank's axes (left, inferior, posterior), times ms from the start of QRS, pairs of
numbers the limits of a uniform distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

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
)
from einthoven.cohorts.synthetic.waves import Waves, waves

Range = tuple[float, float]
Vector = tuple[float, float, float]


def _weighted(qrs: Waves, factors: Mapping[int, Vector], *, delay: float = 0.0) -> Waves:
    """Scale some QRS components axis by axis and delay all of them by `delay` ms."""
    vectors = qrs.vectors.copy()
    for row, weights in factors.items():
        vectors[row] *= weights
    return Waves(qrs.corners, vectors).warped(shift=delay * 1e-3)


def _blocked(
    beat: Beat,
    rng: np.random.Generator,
    *,
    qrs: Waves,
    stretch: Range,
    gain: Range,
    t: float = 1.0,
    u: float = 1.0,
) -> Beat:
    """Another course of the whole QRS, with T times `t` and U times `u`."""
    block = qrs.warped(stretch=rng.uniform(*stretch)).turned(rng.uniform(*gain))
    return replace(beat, qrs=block, t=beat.t * t, u=beat.u * u)


def _late_right(beat: Beat, rng: np.random.Generator, *, end: Range, size: Range) -> Beat:
    last, gain = rng.uniform(*end), rng.uniform(*size)
    top = 58 + 0.5 * (last - 58)
    late = waves((58, top - 3, top + 3, last, -0.55 * gain, 0.04 * gain, -0.76 * gain))
    # The late right ventricle stands in for the basal forces, which would hide its R'.
    factors = {LATERAL: (1.0, 1.0, 0.75), BASE: (0.5, 1.0, 0.1)} if len(beat.qrs) == 4 else {}
    return replace(beat, qrs=_weighted(beat.qrs, factors), fixed=beat.fixed + late)


def _preexcited(beat: Beat, rng: np.random.Generator) -> Beat:
    forwards = -0.42 if rng.uniform() < 0.55 else 0.22  # type A (left pathway), type B (right)
    down = rng.choice([-0.22, 0.18])
    delta = waves((0, 46, 52, 88, 0.34, down, forwards)).turned(rng.uniform(0.9, 1.3))
    late = _weighted(beat.qrs, {SEPTUM: (0, 0, 0)}, delay=rng.uniform(26, 36))
    return replace(beat, qrs=late, fixed=beat.fixed + delta, pr=rng.uniform(0.082, 0.112))


def _fragmented(beat: Beat, rng: np.random.Generator) -> Beat:
    """A notch down and a second peak within a QRS of usual length."""
    height = np.linalg.norm(beat.qrs.vectors[APEX])
    apex = beat.qrs.vectors[APEX] / height
    depth = rng.uniform(0.55, 0.8) * height
    notch = waves((30, 44, 46, 60, *(-depth * apex)), (50, 66, 68, 88, *(0.75 * depth * apex)))
    return replace(beat, qrs=beat.qrs.warped(shift=-0.002) + notch)


def _hypertrophic(beat: Beat, rng: np.random.Generator) -> Beat:
    strain = rng.uniform(0.8, 1.5)
    return replace(
        beat,
        qrs=beat.qrs.turned(np.diag([1.25, 1.0, 1.35])).warped(stretch=1.06),
        st=beat.st + strain * np.array([-0.075, -0.01, 0.07]),
        t=strain * np.array([-0.17, 0.04, -0.16]),
        t_shape=(0.16, 0.74, 0.98),
    )


def _scarred(
    beat: Beat,
    rng: np.random.Generator,
    *,
    size: Range,
    lost: Waves,
    steady: npt.ArrayLike = 0.0,
    factors: Mapping[int, Vector],
    delay: float = 0.0,
    towards: Vector | None = None,
) -> Beat:
    """Lost muscle: `size` times the waves `lost`, plus `steady`, and smaller QRS components.

    With a direction `towards` the scar, ST and T change as well: an old one has a low T away from
    it, a recent one ST elevation and T inversion.
    """
    loss = Waves(lost.corners, rng.uniform(*size) * lost.vectors + np.asarray(steady))
    qrs = _weighted(beat.qrs, factors, delay=delay)
    beat = replace(beat, qrs=qrs, fixed=beat.fixed + loss)
    if towards is None:
        return beat
    scar = np.array(towards)
    recent = rng.uniform() < 0.35
    lift, invert = (rng.uniform(0.10, 0.2), 0.28) if recent else (0.02, rng.uniform(0.05, 0.15))
    opposite = beat.t - scar * max(0.0, float(beat.t @ scar))
    return replace(beat, st=beat.st + lift * scar, t=0.9 * opposite - invert * scar)


def _recovering(
    beat: Beat,
    rng: np.random.Generator,
    *,
    st: float,
    depth: Range | None = None,
    shift: Vector = (0.0, 0.0, 0.0),
    t: Range = (1.0, 1.0),
    new_t: Vector | None = None,
    t_shape: Vector | None = None,
) -> Beat:
    """ST times `st` plus `depth` times `shift`, and `t` times the patient's T or `new_t`."""
    new_st = beat.st * st
    if depth:
        new_st = new_st + rng.uniform(*depth) * np.array(shift)
    return replace(
        beat,
        st=new_st,
        t=(beat.t if new_t is None else np.array(new_t)) * rng.uniform(*t),
        t_shape=t_shape or beat.t_shape,
    )


def _left_atrium(beat: Beat, rng: np.random.Generator) -> Beat:
    right, left = beat.p[:1], beat.p[1:2]
    large = Waves(left.corners, np.array([[0.10, 0.075, 0.12]]) * rng.uniform(1.0, 1.35))
    p = right + large.warped(shift=0.028 + rng.uniform(0.0, 0.012))
    return replace(beat, p=p, pr=max(beat.pr, float(p.corners.max()) + 0.03))


# In the order in which they are applied: how the impulse runs, then what the muscle lost, then
# recovery. A code without an entry changes the rhythm only.
SIGNS: dict[str, Callable[[Beat, np.random.Generator], Beat]] = {
    "LAFB": partial(
        _blocked,
        qrs=waves(
            (0, 14, 14, 34, -0.14, 0.24, -0.16),
            (14, 38, 38, 64, 0.75, -0.30, 0.20),
            (30, 54, 54, 90, 0.35, -0.80, 0.45),
            (58, 80, 80, 106, -0.18, -0.30, 0.25),
        ),
        stretch=(0.92, 1.05),
        gain=(0.75, 1.15),
    ),
    "CLBBB": partial(
        _blocked,
        qrs=waves(
            (0, 34, 46, 86, 0.52, 0.12, 0.32),
            (26, 62, 72, 114, 0.36, 0.15, 0.86),
            (62, 94, 104, 148, 0.58, 0.05, 0.42),
        ),
        stretch=(0.93, 1.08),
        gain=(0.9, 1.4),
        t=0.55,
        u=0.0,
    ),
    "CRBBB": partial(_late_right, end=(126, 150), size=(0.8, 1.25)),
    "IRBBB": partial(_late_right, end=(103, 116), size=(0.5, 0.75)),
    "WPW": _preexcited,
    "ABQRS": _fragmented,
    "LVH": _hypertrophic,
    "LVOLT": partial(_recovering, st=0.5, t=(0.85, 1.0)),
    "ASMI": partial(
        _scarred,
        size=(0.9, 1.25),
        lost=waves((0, 22, 28, 56, 0, 0, 0.36), (14, 34, 38, 60, 0, 0, 0.42)),
        steady=[(-0.04, 0, 0), (-0.05, 0, 0)],
        factors={SEPTUM: (0.2, 0.5, 0.0), APEX: (0.8, 1.0, 1.0)},
        towards=(0.3, 0.0, -0.95),
    ),
    "IMI": partial(
        _scarred,
        size=(0.9, 1.4),
        lost=waves((0, 20, 24, 54, 0, -0.42, 0)),
        steady=(0.10, 0, 0.03),
        factors={SEPTUM: (0.6, 0.0, 1.0), APEX: (1.0, 0.55, 1.0), LATERAL: (1.0, 0.8, 1.0)},
        delay=8,
        towards=(0.05, 0.98, 0.1),
    ),
    "AMI": partial(
        _scarred,
        size=(0.9, 1.25),
        lost=waves((5, 27, 38, 72, -0.46, 0, 0.28), (24, 44, 50, 70, 0, 0, 0.22)),
        factors={SEPTUM: (0.5, 0.0, 0.5), APEX: (0.6, 0.9, 1.0), LATERAL: (0.9, 1.0, 0.8)},
        delay=12,
        towards=(0.8, 0.0, -0.6),
    ),
    "QWAVE": partial(  # lateral Q waves
        _scarred,
        size=(0.9, 1.3),
        lost=waves((0, 15, 18, 40, -0.44, 0, 0)),
        steady=(0, 0.02, -0.06),
        factors={SEPTUM: (0.3, 1.0, 0.6)},
        delay=6,
    ),
    "ISC_": partial(
        _recovering,
        st=0.3,
        depth=(0.9, 1.4),
        shift=(-0.075, -0.062, 0.03),
        t=(0.1, 0.35),
        t_shape=(0.3, 0.72, 1.0),
    ),
    "ISCAL": partial(
        _recovering,
        st=0.3,
        depth=(0.9, 1.6),
        shift=(-0.075, 0.0, 0.05),
        t=(0.9, 1.7),
        new_t=(-0.19, 0.02, 0.05),
        t_shape=(0.24, 0.64, 1.0),
    ),
    "STD_": partial(_recovering, st=0.2, depth=(1.1, 1.9), shift=(-0.09, -0.085, 0.045)),
    "INVT": partial(
        _recovering, st=0.3, t=(1.0, 2.0), new_t=(-0.14, 0.02, 0.14), t_shape=(0.2, 0.64, 1.0)
    ),
    "NDT": partial(_recovering, st=0.2, t=(0.08, 0.25)),
    "LNGQT": lambda beat, rng: replace(
        beat, qtc=rng.uniform(0.492, 0.56), u=beat.u * 0, t_shape=(0.16, 0.72, 1.0)
    ),
    "LAO/LAE": _left_atrium,
    "1AVB": lambda beat, rng: replace(beat, pr=rng.uniform(0.216, 0.31)),
}
INFARCTIONS = frozenset({"ASMI", "IMI", "AMI"})

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


def beat_of(heart: Heart, statements: Collection[str], rng: np.random.Generator) -> Beat:
    """Sinus (or conducted) beat of a heart with these statements.

    Statements that only concern the rhythm are passed over. Each of the others draws from a stream
    of its own, so that a patient's infarct looks the same in every record, whatever other
    statements it has.
    """
    beat, codes = heart.beat, set(statements)
    if codes & INFARCTIONS:
        codes -= {"QWAVE"}  # part of any infarct; without one, lateral Q waves
    for (code, sign), stream in zip(SIGNS.items(), rng.spawn(len(SIGNS)), strict=True):
        if code in codes:
            beat = sign(beat, stream)
    for code, (low, high) in _AXES.items():
        if code in statements:
            beat = oriented(beat, heart.field, axis=low + heart.tilt * (high - low))
            break
    if "LVOLT" in codes:
        goal = 0.26 + 0.16 * heart.tilt
        beat = scaled(beat, goal / limb_voltage(beat, heart.field))
    elif codes & {"HVOLT", "LVH"}:
        voltage = sokolow(beat, heart.field)
        goal = float(np.clip(voltage, 3.8 + 1.2 * heart.tilt, 9.0))
        tall = scaled(beat, goal / voltage)
        # The strain of a hypertrophy was set in mV already.
        beat = replace(tall, st=beat.st, t=beat.t) if "LVH" in codes else tall
    if "ASMI" in codes:
        beat = _without_septum(beat, heart)
    if codes & {"CLBBB", "CRBBB", "WPW"}:
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
        loss = waves((top - 25, top, top, top + 25, *(1.05 * leads[lead, when] * away)))
        beat = replace(beat, fixed=beat.fixed + loss)
    return beat
