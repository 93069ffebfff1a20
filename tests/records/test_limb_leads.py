from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from einthoven.records.limb_leads import (
    derivable_leads,
    derivation,
    derive_limb_leads,
    repair_leads,
)
from einthoven.records.record import STANDARD_LEADS, Record

LIMB = STANDARD_LEADS[:6]


def _twelve() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.5, (2, 50))
    limb = (first, second, second - first, -(first + second) / 2, first - second / 2)
    rows = dict(zip(LIMB, (*limb, second - first / 2), strict=True))
    rows |= {f"V{i}": rng.normal(0, 0.5, 50) for i in range(1, 7)}
    return {lead: row.astype(np.float32) for lead, row in rows.items()}


def _record(*leads: str) -> Record:
    rows = _twelve()
    signal = np.stack([rows[lead] for lead in leads])
    return Record.create(signal, 500, leads=leads, name="r", metadata={"Age": "70"})


@pytest.mark.parametrize("pair", list(combinations(LIMB, 2)), ids="-".join)
def test_any_two_limb_leads_give_the_others(pair: tuple[str, str]) -> None:
    whole = derive_limb_leads(_record(*pair, "V3"))
    assert whole.leads[:3] == (*pair, "V3")
    assert set(whole.leads) == {*LIMB, "V3"}
    rows = _twelve()
    for lead, row in zip(whole.leads, whole.signal, strict=True):
        np.testing.assert_allclose(row, rows[lead], atol=1e-6, err_msg=lead)


def test_invalid_samples_follow_from_two_valid_leads() -> None:
    """Where two other limb leads are valid; a lead that is invalid throughout is left out."""
    rows = _twelve()
    record = _record(*LIMB, "V1", "V2")
    signal = record.signal.copy()
    signal[3, 10:20] = np.nan  # aVR, while all others are valid
    signal[:5, 30] = np.nan  # only aVF is left: nothing follows
    signal[0, 40] = signal[1, 40] = np.nan  # I and II follow from III and aVR
    signal[6, 5] = np.nan  # V1 never follows
    signal[7] = np.nan
    repaired = repair_leads(replace(record, signal=signal))
    assert repaired.leads == (*LIMB, "V1")
    assert np.argwhere(np.isnan(repaired.signal)).tolist() == [*([x, 30] for x in range(5)), [6, 5]]
    for row, lead in enumerate(LIMB):
        valid = np.arange(50) != 30
        np.testing.assert_allclose(repaired.signal[row, valid], rows[lead][valid], atol=1e-6)
    assert repaired.metadata["repaired_leads"].startswith("I (1 samples), II (1 samples), aVR (10")
    assert np.isnan(signal[7]).all()  # the caller's record is as it was


def test_a_record_without_gaps_or_values_stays_as_it_is() -> None:
    record = _record("I", "II")
    assert repair_leads(record) is record
    empty = replace(record, signal=np.full_like(record.signal, np.nan))
    assert repair_leads(empty) is empty


def test_derived_leads_are_named_and_recorded_ones_kept() -> None:
    record = _record("V1", "II", "I", "aVF")
    whole = derive_limb_leads(record)
    assert whole.metadata == {"Age": "70", "derived_leads": "III, aVR, aVL"}
    np.testing.assert_array_equal(whole.signal[:4], record.signal)
    assert whole.signal.dtype == np.float32
    assert not whole.signal.flags.writeable
    assert record.metadata == {"Age": "70"}


@pytest.mark.parametrize("leads", [("II",), ("V1", "V2"), ("aVF", "V1"), LIMB, STANDARD_LEADS])
def test_nothing_follows_from_fewer_than_two_and_nothing_is_left_of_six(
    leads: tuple[str, ...],
) -> None:
    record = _record(*leads)
    assert derivable_leads(leads) == ()
    assert derive_limb_leads(record) is record


def test_names_in_any_case() -> None:
    assert derivable_leads(["AVR", "avl", "mlii"]) == ("I", "II", "III", "aVF")
    pair, shares = derivation(["v1", "ii", "i"])
    assert pair == ("I", "II")
    np.testing.assert_allclose(shares, [[-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]])


def test_samples_that_are_not_known_stay_unknown() -> None:
    record = _record("I", "II")
    signal = record.signal.copy()
    signal[1, 7] = np.nan
    whole = derive_limb_leads(Record.create(signal, 500, leads=("I", "II"), name="r"))
    assert np.isnan(whole.signal[1:, 7]).all()
    assert np.isfinite(np.delete(whole.signal, 7, axis=1)).all()
