"""What is left of a record when everything that may identify a patient is left out."""

from __future__ import annotations

import numpy as np

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
            "Dx": "426783006,164889003",
            "filters": "0.05 to 150 Hz, notch 50 Hz",
            "device": "Cart 1",
            "comments": "Jane",
            "left_out": "Doe: no ECG lead",
        }
    )
    clean = anonymised(record)
    assert clean.metadata == {
        "qt_ms": "400",
        "age": "90",
        "sex": "male",
        "Dx": "426783006,164889003",
        "filters": "0.05 to 150 Hz, notch 50 Hz",
    }
    assert (clean.leads, clean.patient, clean.source) == (("I", "lead2", "V3R"), None, "")
