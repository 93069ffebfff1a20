"""GE CardioSoft."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xml_files import STANDARD, cardiosoft, counts_of

from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, Record, read_record

SHARED = Path(__file__).parents[3] / "shared" / "data" / "formats"
COUNTS = counts_of(STANDARD)


def read(text: str) -> Record:
    return read_record(text.encode())


def test_the_strip_and_not_the_averaged_beat() -> None:
    record = read(cardiosoft(COUNTS))
    np.testing.assert_array_equal(record.signal, (COUNTS * 0.005).astype(np.float32))
    assert (record.rate, record.leads, record.patient) == (500, STANDARD_LEADS, "0017")
    assert record.metadata == {
        "time": "2024-05-17T09:30:00",
        "age": "64",
        "sex": "female",
        "device": "GE",
        "filters": "below 100 Hz, notch 50 Hz",
        "pr_ms": "174",
    }  # a height in inches is left out


def test_statements_of_the_device_and_of_its_reader() -> None:
    def statements(diagnosis: str, conclusion: str) -> dict[str, str]:
        sections = {"Diagnosis": diagnosis, "Conclusion": conclusion}
        texts = [f"<{x}><{x}Text>{y}</{x}Text></{x}>" for x, y in sections.items()]
        text = f"</PatientInfo><Interpretation>{''.join(texts)}</Interpretation>"
        found = read(cardiosoft(COUNTS).replace("</PatientInfo>", text)).metadata
        return {key: found[key] for key in ("statements", "edited_statements") if key in found}

    assert statements("Sinus", "Sinus") == {"statements": "Sinus"}
    assert statements("", "Sinus") == {"statements": "Sinus"}
    assert statements("Sinus", "AF") == {"statements": "Sinus", "edited_statements": "AF"}


def test_millivolts() -> None:
    text = cardiosoft(COUNTS).replace("uVperLsb'>5", "mVperLsb'>0.01")
    np.testing.assert_allclose(read(text).signal, COUNTS * 0.01, rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("ObservationType", "StripData", "FullDisclosure"),
        ("SampleRate", ">500<", "><"),
        ("units of SampleRate", "<SampleRate units='Hz'>", "<SampleRate>"),
        ("Resolution", "uVperLsb'>5<", "uVperLsb'>0<"),
        ("units of Resolution", " units='uVperLsb'", ""),
        ("units of Resolution", "uVperLsb", "LsbperMv"),
        ("ChannelSampleCountTotal", "Total>200<", "Total>5000<"),
        ("ChannelSampleCountTotal", "Total>200<", "Total><"),
        ("NumberOfLeads", "NumberOfLeads>12", "NumberOfLeads>15"),
        ("leads", 'lead="II"', 'lead="I"'),
        ("leads", 'lead="II"', ""),
        ("WaveformData of I", '"I">\n', '"I">\n;'),
    ],
)
def test_refusals(field: str, old: str, new: str) -> None:
    text = cardiosoft(COUNTS)
    assert old in text
    with pytest.raises(RecordError) as caught:
        read(text.replace(old, new))
    assert caught.value.field == field


def test_a_real_file() -> None:
    path = SHARED / "cardiosoft/ecgprocess_example-XML1.xml"
    if not path.exists():
        pytest.skip("shared material is not there")
    record = read_record(path)
    assert (record.signal.shape, record.rate) == ((12, 5000), 500)
    assert record.leads == STANDARD_LEADS
    np.testing.assert_allclose(record.signal[0, :4], [-0.02, -0.01, -0.01, -0.02])
    # Stored, not derived: Einthoven's law holds within the rounding of three counts.
    law = record.signal[1] - record.signal[0] - record.signal[2]
    assert np.abs(law).max() < 0.0151
    assert record.metadata["time"] == "2018-07-19T14:19:39"
    assert record.metadata["statements"].startswith("Sinus bradycardia\nOtherwise normal ECG")
    assert record.metadata["height_cm"] == "175"
