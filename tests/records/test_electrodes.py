"""Exchanged electrodes are found and named, and other records are left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from einthoven.cohorts.synthetic import sample_record
from einthoven.records.electrodes import (
    EXCHANGES,
    LEADS,
    Exchange,
    coefficients,
    exchange_of,
    independent_leads,
)
from einthoven.records.limb_leads import derive_limb_leads
from einthoven.records.quality import findings
from einthoven.records.record import STANDARD_LEADS, Record


def eight(matrix: np.ndarray, record: Record) -> Record:
    """A record of twelve leads whose eight independent leads are changed by a matrix."""
    chosen = record.select(LEADS)
    signal = (matrix @ chosen.signal).astype(np.float32)
    return derive_limb_leads(replace(chosen, signal=signal)).select(STANDARD_LEADS)


def found(record: Record) -> Exchange | None:
    x = independent_leads(record)
    return None if x is None else exchange_of(x)


@pytest.fixture(scope="module")
def sound() -> Record:
    return sample_record()


def test_a_sound_record_has_no_exchange(sound: Record) -> None:
    assert found(sound) is None
    assert found(sound.select(LEADS)) is None


@pytest.mark.parametrize(
    "name", ["arms", "arm-leg", "V1-V3", "V1-V4", "V2-V5", "reverse", "-V1", "-V4", "V3/10"]
)
def test_exchanges_are_found_named_and_stated(sound: Record, name: str) -> None:
    record = eight(EXCHANGES[name].matrix, sound)
    assert found(record) is EXCHANGES[name]
    (finding,) = [x for x in findings(record) if x.level != "note"]
    assert (finding.name, finding.level) == ("electrodes", "doubt")
    assert finding.leads == EXCHANGES[name].leads
    assert all(x.name != "limb-leads" for x in findings(record))


@pytest.mark.parametrize(("wire", "flat"), [("right arm", "II"), ("left arm", "III")])
def test_a_wire_on_the_right_leg_leaves_a_lead_without_a_signal(
    sound: Record, wire: str, flat: str
) -> None:
    one, two = sound.signal[0], sound.signal[1]
    noise = np.random.default_rng(0).normal(0, 0.01, one.shape)
    signal = sound.signal.astype(np.float64)
    signal[:2] = (one - two, noise) if wire == "right arm" else (two + noise, two)
    limb = replace(sound, signal=signal[:2].astype(np.float32), leads=("I", "II"))
    signal[:6] = derive_limb_leads(limb).select(STANDARD_LEADS[:6]).signal
    exchange = found(replace(sound, signal=signal.astype(np.float32)))
    assert exchange is not None
    assert exchange.leads == (flat,)


def test_it_does_not_depend_on_the_rate(sound: Record) -> None:
    twice = replace(sound, signal=np.repeat(sound.signal, 2, axis=1), rate=2 * sound.rate)
    assert found(twice) is None
    assert found(eight(EXCHANGES["V1-V3"].matrix, twice)) is EXCHANGES["V1-V3"]


def test_records_with_other_faults_are_not_judged(sound: Record) -> None:
    wrong = eight(EXCHANGES["arms"].matrix, sound)
    assert found(wrong.select(("I", "II", "V1", "V2"))) is None
    signal = wrong.signal.copy()
    signal[6] = 0
    assert found(replace(wrong, signal=signal)) is None
    signal[6, 3] = np.nan
    assert found(replace(wrong, signal=signal)) is None


def test_every_exchange_has_coefficients_and_can_be_undone() -> None:
    assert coefficients().shape == (len(EXCHANGES), 45)
    for name, exchange in EXCHANGES.items():
        assert abs(np.linalg.det(exchange.matrix)) == pytest.approx(0.1 if "/10" in name else 1)
