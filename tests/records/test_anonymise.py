"""What is left of a record when everything that may identify a patient is left out."""

from __future__ import annotations

import numpy as np
import pytest

from einthoven.records import Record
from einthoven.records.anonymise import anonymised


def test_values_of_another_form_are_free_text() -> None:
    signal = np.random.default_rng(1).normal(0, 1, (3, 100))
    record = Record.from_array(signal, rate=100, leads=["I", "Jane Doe", "V3R"], patient="4711")
    record.metadata.update(  # type: ignore[attr-defined]
        {
            "qt_ms": "400",
            "pr_ms": "160 Doe",
            "Age": "300",
            "Sex": "Male",
            "Dx": "426783006,164889003,19551224",
            "filters": "0.05 to 150 Hz, notch 50 Hz",
            "device": "Cart 1",
            "comments": "Jane",
            "left_out": "Doe: no ECG lead",
            "lead_quality": "I: severe noise\nJane Doe: noise\nI: Doe\nDoe",
        }
    )
    clean = anonymised(record, {"426783006", "164889003"})
    assert clean.metadata == {
        "qt_ms": "400",
        "age": "90",
        "sex": "male",
        "Dx": "426783006,164889003",
        "filters": "0.05 to 150 Hz, notch 50 Hz",
        "lead_quality": "I: severe noise",
    }
    assert (clean.leads, clean.patient, clean.source) == (("I", "lead2", "V3R"), None, "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight_kg", "19551"),
        ("weight_kg", "401"),
        ("height_cm", "19"),
        ("qt_ms", "1955"),
        ("age", "121"),
        ("age", "-1"),
        ("Dx", "19551224"),
        ("Dx", "Miller"),
        ("filters", "2020.05.17 19.55 Hz"),
        ("filters", "1955 Hz"),
    ],
)
def test_values_that_may_be_identifiers_or_dates(key: str, value: str) -> None:
    record = Record.from_array(np.ones((1, 100)), rate=100, leads=["I"])
    record.metadata[key] = value  # type: ignore[index]
    assert anonymised(record, {"426783006"}).metadata == {}


def test_leads_that_are_not_known() -> None:
    leads = ["Joe", "Doe", "V19551", "V1", "MLII", "vx", "ECG2", "V4R", "-aVR", "AS"]
    record = Record.from_array(np.ones((len(leads), 100)), rate=100, leads=leads)
    assert anonymised(record, ()).leads == ("lead1", "lead2", "lead3", *leads[3:])
