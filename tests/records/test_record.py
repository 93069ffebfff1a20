"""What a Record promises, and what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, Record, canonical_lead
from einthoven.records.record import canonical_patient


def make(signal: np.ndarray | None = None, rate: float = 100.0, **changes: object) -> Record:
    signal = np.arange(8, dtype=np.float32).reshape(2, 4) if signal is None else signal
    fields = {"leads": ("AVR", "MLII"), "name": "demo"} | changes
    return Record.create(signal, rate, **fields)  # type: ignore[arg-type]


def test_standard_leads_are_spelled_one_way() -> None:
    for lead in STANDARD_LEADS:
        assert canonical_lead(lead.upper()) == canonical_lead(f" {lead.lower()} ") == lead
    assert [canonical_lead(name) for name in ("MLII", "vx")] == ["MLII", "vx"]


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        ("17", "17"),
        ("17.0", "17"),
        ("\u00a017,00 ", "17"),
        (17, "17"),
        (np.float64(17), "17"),
        (1e17, "100000000000000000"),
        ("007.0", "007"),
        ("17.5", "17.5"),
        ("1.23456780000E+11", "123456780000"),
        ("1,7E+01", "17"),
        ("1e+05", "100000"),
        ("1.23457E+11", "1.23457E+11"),
        ("1.75E+01", "1.75E+01"),
        ("1e5", "1e5"),
        ("1.2.840.0", "1.2.840.0"),
        ("Mu\u0308ller", "M\u00fcller"),
        (" ", ""),
        ("\u200eP1\u200f", "P1"),
        ("P\u00ad1\ufeff", "P1"),
        ("\u200bP\u2060\u034f1\ufe0f", "P1"),
        ("\uff30\uff11", "P1"),
        ("\uff11\uff17.0", "17"),
        ("P\u00a01", "P 1"),
        ("e\u200d\u0301\uffa0", "\u00e9"),
        ("\u00ad", ""),
    ],
)
def test_a_patient_is_spelled_one_way(value: object, spelling: str) -> None:
    assert canonical_patient(value) == spelling
    record = make(patient=value)
    assert record.patient == (spelling or None)


@pytest.mark.parametrize("rate", [np.int64(100), np.float32(100), np.array([[100]]), [100]])
def test_a_rate_is_a_number_of_any_type(rate: object) -> None:
    """`loadmat` gives arrays of one element."""
    assert make(rate=rate).rate == 100.0  # type: ignore[arg-type]
    with pytest.raises(RecordError):
        make(rate=[100, 200])  # type: ignore[arg-type]


def test_create_names_leads_and_measures_duration() -> None:
    record = make()
    assert record.leads == ("aVR", "MLII")
    assert record.duration == 0.04


def test_signal_cannot_be_changed_from_either_side() -> None:
    mine = np.zeros((2, 4), np.float32)
    record = make(mine)
    mine[0, 0] = 9.0
    assert record.signal[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        record.signal[0, 0] = 1.0
    assert make(np.zeros((4, 2), np.float32).T).signal.flags.c_contiguous


def test_select_orders_rows_without_case() -> None:
    selected = make().select(["mlii", "avr"])
    assert selected.leads == ("MLII", "aVR")
    np.testing.assert_array_equal(selected.signal, [[4, 5, 6, 7], [0, 1, 2, 3]])
    assert not selected.signal.flags.writeable


def test_select_of_the_same_leads_is_the_record() -> None:
    record = make()
    assert record.select(["aVR", "MLII"]) is record


@pytest.mark.parametrize("leads", [["V1"], ["aVR", "AVR"], []])
def test_select_refuses_missing_repeated_and_no_leads(leads: list[str]) -> None:
    with pytest.raises(RecordError) as caught:
        make().select(leads)
    assert caught.value.field == "leads"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"signal": np.zeros((2, 4))}, "signal"),
        ({"signal": [[0.0]]}, "signal"),
        ({"signal": np.full((2, 4), np.inf, np.float32)}, "signal"),
        ({"signal": np.zeros(4, np.float32)}, "shape of the signal"),
        ({"signal": np.zeros((2, 0), np.float32)}, "shape of the signal"),
        ({"rate": 0.0}, "sampling rate"),
        ({"rate": float("nan")}, "sampling rate"),
        ({"rate": float("inf")}, "sampling rate"),
        ({"leads": ("I",)}, "leads"),
        ({"leads": ("avl", "AVL")}, "leads"),
        ({"leads": ("I", " ")}, "leads"),
    ],
)
def test_create_refuses(changes: dict[str, object], field: str) -> None:
    with pytest.raises(RecordError) as caught:
        make(**changes)  # type: ignore[arg-type]
    assert (caught.value.field, bool(caught.value.remedy)) == (field, True)


def test_nan_marks_an_invalid_sample_and_is_kept() -> None:
    assert np.isnan(make(np.full((2, 4), np.nan, np.float32)).signal).all()


def test_records_travel_to_worker_processes() -> None:
    record = make(metadata={"Age": "85"})
    back = pickle.loads(pickle.dumps(record))
    assert (back.leads, back.rate, back.metadata) == (record.leads, 100.0, {"Age": "85"})
    np.testing.assert_array_equal(back.signal, record.signal)


@pytest.mark.parametrize(("unit", "factor"), [("mV", 1.0), ("uV", 1e-3), ("V", 1e3)])
def test_an_array_is_converted_to_millivolts(unit: str, factor: float) -> None:
    millivolts = np.random.default_rng(0).normal(0, 0.3, (2, 500))
    values = millivolts / factor
    record = Record.from_array(values, rate=250, leads=["i", "V2"], unit=unit, patient="p")
    assert (record.leads, record.rate, record.patient) == (("I", "V2"), 250.0, "p")
    np.testing.assert_allclose(record.signal, millivolts, rtol=1e-6)
    values[0] = 9
    assert record.signal[0, 0] != 9
    whole = np.round(1000 * millivolts).astype(np.int16)
    record = Record.from_array(whole, rate=250, leads=["I", "V2"], unit="uV")
    np.testing.assert_allclose(record.signal, whole / 1000, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "scale", "unit", "field", "fault"),
    [
        ((2, 500), 1, "µV", "unit", "unknown"),
        ((500, 2), 1, "mV", "shape of the signal", "samples, leads"),
        ((3, 500), 1, "mV", "leads", "2 .*3 rows"),
        ((1, 2, 500), 1, "mV", "shape of the signal", "2-D"),
        ((2, 500), 1000, "mV", "unit", "like uV"),
        ((2, 500), 1e-3, "mV", "unit", "like V"),
        ((2, 500), 1, "uV", "unit", "like mV"),
        ((2, 500), 1000, "V", "unit", "like uV"),
    ],
)
def test_an_array_of_another_unit_or_shape_is_refused(
    shape: tuple[int, ...], scale: float, unit: str, field: str, fault: str
) -> None:
    signal = scale * np.random.default_rng(0).normal(0, 0.3, shape)
    with pytest.raises(RecordError, match=fault) as caught:
        Record.from_array(signal, rate=500, leads=("I", "II"), unit=unit)
    assert caught.value.field == field


def test_flat_and_text_arrays() -> None:
    assert Record.from_array(np.zeros((1, 9)), rate=100, leads="I").signal.shape == (1, 9)
    with pytest.raises(RecordError, match="<U1"):
        Record.from_array([["a", "b"]], rate=100, leads="I")
