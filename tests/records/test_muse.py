"""GE MUSE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xml_files import EIGHT, counts_of, muse, muse_lead, muse_waveform

from einthoven.errors import RecordError
from einthoven.records import Record, read_record

SHARED = Path(__file__).parents[3] / "shared" / "data" / "formats"
COUNTS = counts_of(EIGHT)
DERIVED = ("III", "aVR", "aVL", "aVF")


def read(text: str) -> Record:
    return read_record(text.encode("latin-1"))


def refusal(text: str) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read(text)
    return caught.value


def shared(name: str) -> Record:
    path = SHARED / name
    if not path.exists():
        pytest.skip("shared material is not there")
    return read_record(path)


def test_the_rhythm_and_not_the_averaged_beat() -> None:
    record = read(muse(COUNTS))
    assert record.leads == (*EIGHT, *DERIVED)
    assert (record.rate, record.patient) == (500, "0017")
    np.testing.assert_allclose(record.signal[:8], COUNTS * 0.00488, atol=1e-6)


def test_limb_leads_follow_from_i_and_ii() -> None:
    record = read(muse(COUNTS))
    one, two = COUNTS[:2] * 0.00488
    expected = [two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    np.testing.assert_allclose(record.signal[8:], expected, atol=1e-6)
    assert record.metadata["derived_leads"] == ", ".join(DERIVED)


def test_nothing_is_derived_from_one_limb_lead() -> None:
    record = read(muse(COUNTS[[0, 2]], ["I", "V1"]))
    assert record.leads == ("I", "V1")
    assert "derived_leads" not in record.metadata


def test_stored_limb_leads_are_kept_and_further_leads_named() -> None:
    leads = ["I", "II", "III", "AVR", "V3R", "V4R", "V7", "V9"]
    record = read(muse(COUNTS, leads))
    assert record.leads == ("I", "II", "III", "aVR", "V3R", "V4R", "V7", "V9", "aVL", "aVF")
    np.testing.assert_allclose(record.signal[2], COUNTS[2] * 0.00488, atol=1e-6)


def test_the_fullest_of_several_rhythms() -> None:
    slow = muse_waveform(COUNTS[:, ::2], EIGHT, rate=250)
    few = muse_waveform(COUNTS[:2].repeat(2, axis=1), EIGHT[:2], rate=1000)
    full = muse_waveform(COUNTS, EIGHT)
    for rhythm, more in ((slow + few, full), (full, slow + few)):
        record = read(muse(COUNTS, rhythm=rhythm, more=more))
        assert (record.rate, record.signal.shape) == (500, (12, 200))


def test_the_exponent_is_part_of_the_rate() -> None:
    text = muse(COUNTS).replace(">500</SampleBase>", ">25</SampleBase>")
    assert read(text.replace("<SampleExponent>0", "<SampleExponent>1")).rate == 250


def test_units() -> None:
    text = muse(COUNTS).replace("MICROVOLTS", "MILLIVOLTS").replace(">4.88<", ">0.01<")
    np.testing.assert_allclose(read(text).signal[:8], COUNTS * 0.01, rtol=1e-6)


RHYTHM = muse_waveform(COUNTS, EIGHT)


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("SampleBase", "<SampleBase>500</SampleBase>", ""),
        ("SampleBase", "<SampleBase>500", "<SampleBase>0"),
        ("SampleExponent", "<SampleExponent>0", "<SampleExponent>99"),
        ("SampleType", "CONTINUOUS_SAMPLES", "MEDIAN_SAMPLES"),
        ("NumberofLeads", "<NumberofLeads>8", "<NumberofLeads>9"),
        ("leads", "<LeadID>II<", "<LeadID>I<"),
        ("leads", "<LeadID>II<", "<LeadID><"),
        ("LeadAmplitudeUnitsPerBit of I", ">4.88<", ">4,88<"),
        ("LeadAmplitudeUnitsPerBit of I", ">4.88<", "><"),
        ("LeadAmplitudeUnits of I", "MICROVOLTS", ""),
        ("LeadAmplitudeUnits of I", "MICROVOLTS", "BITS"),
        ("LeadSampleCountTotal of I", "CountTotal>200", "CountTotal>5000"),
        ("LeadSampleCountTotal of I", "<LeadSampleCountTotal>200</LeadSampleCountTotal>", ""),
        ("LeadSampleSize of I", "SampleSize>2", "SampleSize>4"),
        ("LeadOffsetFirstSample of I", "FirstSample>0", "FirstSample>1250"),
        ("LeadDataCRC32 of I", "CRC32>", "CRC32>1"),
        ("WaveFormData of I", "<WaveFormData>\n", "<WaveFormData>\n*"),
        ("number of samples", muse_lead("V6", COUNTS[7]), muse_lead("V6", COUNTS[7, 1:])),
        ("waveforms", ">Rhythm<", ">Median<"),
    ],
)
def test_refusals(field: str, old: str, new: str) -> None:
    assert old in RHYTHM
    assert refusal(muse(COUNTS, rhythm=RHYTHM.replace(old, new, 1))).field == field


def test_one_changed_sample_fails_the_checksum() -> None:
    old, new = (muse_lead("V6", row).split("<WaveFormData>")[1] for row in (COUNTS[7], COUNTS[6]))
    assert refusal(muse(COUNTS).replace(old, new)).field == "LeadDataCRC32 of V6"


def test_a_lead_without_checksum_is_read() -> None:
    without = RHYTHM.replace("<LeadDataCRC32>", "<Other>").replace("</LeadDataCRC32>", "</Other>")
    assert read(muse(COUNTS, rhythm=without)).leads == (*EIGHT, *DERIVED)


def test_leads_that_are_off() -> None:
    rhythm = RHYTHM.replace("<LeadID>II<", "<LeadOff>TRUE</LeadOff><LeadID>II<")
    record = read(muse(COUNTS, rhythm=rhythm))
    off = [
        lead for lead, row in zip(record.leads, record.signal, strict=True) if np.isnan(row).all()
    ]
    assert off == ["II", *DERIVED]
    assert "II" in record.metadata["left_out"]
    every = RHYTHM.replace("<LeadID>", "<LeadOff>TRUE</LeadOff><LeadID>")
    assert refusal(muse(COUNTS, rhythm=every)).field == "LeadOff"
    none = RHYTHM.replace("<LeadID>", "<LeadOff>FALSE</LeadOff><LeadID>")
    assert "left_out" not in read(muse(COUNTS, rhythm=none)).metadata


def test_leads_whose_baseline_sways() -> None:
    rhythm = RHYTHM
    for lead, sways in (("V2", "TRUE"), ("V3", "FALSE")):
        new = f"<BaselineSway>{sways}</BaselineSway><LeadID>{lead}<"
        rhythm = rhythm.replace(f"<LeadID>{lead}<", new)
    assert read(muse(COUNTS, rhythm=rhythm)).metadata["lead_quality"] == "V2: baseline wander"


# ------------------------------------------------------------------ metadata


def test_dates_are_american_and_ages_in_any_unit() -> None:
    kept = dict(read(muse(COUNTS)).metadata)
    assert kept == {
        "time": "2024-05-17T09:30:00",
        "age": "1.5",
        "sex": "female",
        "device": "GE MAC55",
        "filters": "0.16 to 150 Hz",
        "heart_rate_bpm": "90",
        "qrs_axis_deg": "0",
        "derived_leads": ", ".join(DERIVED),
    }


def test_an_impossible_date_is_left_out() -> None:
    assert "time" not in read(muse(COUNTS).replace("05-17-2024", "17-05-2024")).metadata


def diagnosis(section: str, *statements: str) -> str:
    texts = "".join(
        f"<DiagnosisStatement><StmtFlag>USERINSERT</StmtFlag>{flag}<StmtText>{text}</StmtText>"
        "</DiagnosisStatement>"
        for text, flag in (
            (text.removesuffix("|"), "<StmtFlag>ENDSLINE</StmtFlag>" if text[-1] == "|" else "")
            for text in statements
        )
    )
    return f"<{section}>{texts}</{section}>"


def test_statements_of_the_device_and_of_its_reader() -> None:
    original = diagnosis("OriginalDiagnosis", "Sinus rhythm|", "Anterior infarct", ", age unknown|")
    edited = diagnosis("Diagnosis", "Atrial fibrillation|", "Abnormal ECG")
    record = read(muse(COUNTS, diagnosis=edited + original))
    assert record.metadata["statements"] == "Sinus rhythm\nAnterior infarct , age unknown"
    assert record.metadata["edited_statements"] == "Atrial fibrillation\nAbnormal ECG"
    assert "confirmed_by" not in record.metadata

    text = muse(COUNTS, diagnosis=original + original.replace("Original", ""))
    text = text.replace(">UNCONFIRMED<", ">CONFIRMED<")
    text = text.replace("</Status>", "</Status><OverreaderLastName>Roe</OverreaderLastName>")
    record = read(text)
    assert "edited_statements" not in record.metadata
    assert record.metadata["confirmed_by"] == "Roe"


# ------------------------------------------------------------------ real files


def test_the_twin_in_wfdb_has_rounded_microvolts() -> None:
    """Its header says 200 counts a millivolt, five times too few."""
    record = shared("muse/egm_muse-sinus.xml")
    assert (record.signal.shape, record.rate) == ((12, 5000), 500)
    twin = read_record(SHARED / "muse/muse-sinus.hea")
    microvolts = twin.select(record.leads).signal * 200
    assert np.abs(record.signal * 1000 - microvolts).max() < 0.481
    assert record.metadata["time"] == "2023-04-29T22:41:16"
    assert record.metadata["statements"].startswith("Normal Sinus rhythm\nAnterior infarct")
    assert record.metadata["qtc_ms"] == "491"


@pytest.mark.parametrize(("name", "rate"), [("example1", "48"), ("example2", "65")])
def test_files_without_a_patient(name: str, rate: str) -> None:
    record = shared(f"muse/braveheart_{name}.xml")
    assert (record.signal.shape, record.patient) == ((12, 5000), None)
    assert record.metadata["heart_rate_bpm"] == rate
