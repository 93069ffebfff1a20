"""HL7 annotated ECG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xml_files import STANDARD, aecg, counts_of, sound_aecg

from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.formats import find_records, records_of

SHARED = Path(__file__).parents[3] / "shared" / "data" / "formats"
COUNTS = counts_of(STANDARD)
REPRESENTATIVE = (
    '<component><series><code code="REPRESENTATIVE_BEAT"/><component><sequenceSet/></component>'
    "</series></component>"
)


def read(text: str) -> Record:
    return read_record(text.encode())


def refusal(text: str) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read(text)
    return caught.value


def shared(name: str) -> Record:
    path = SHARED / name
    if not path.exists():
        pytest.skip("shared material is not there")
    return read_record(path)


def test_rate_unit_leads_and_patient() -> None:
    record = read(aecg(COUNTS))
    np.testing.assert_array_equal(record.signal, (COUNTS * 0.005).astype(np.float32))
    assert (record.rate, record.leads, record.patient) == (500, STANDARD_LEADS, "P-7")
    assert record.metadata == {"time": "2024-05-17T09:30:00", "age": "63", "sex": "female"}


@pytest.mark.parametrize(
    ("scale", "factor"),
    [
        ('<origin value="0" unit="uV"/><scale value="4880" unit="nV"/>', 0.00488),
        ('<origin value="0" unit="µV"/><scale value="0.005" unit="mV"/>', 0.005),
        ('<origin value="0" unit="V"/><scale value="1e-6" unit="V"/>', 0.001),
    ],
)
def test_units(scale: str, factor: float) -> None:
    record = read(aecg(COUNTS, scale=scale))
    np.testing.assert_allclose(record.signal, COUNTS * factor, rtol=1e-6)


def test_origin_and_scale_each_have_their_unit() -> None:
    record = read(aecg(COUNTS, scale='<origin value="-1" unit="mV"/><scale value="5" unit="uV"/>'))
    np.testing.assert_allclose(record.signal, COUNTS * 0.005 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("increment", "rate"),
    [
        ("0.002", 500),
        ("0.004", 250),
        ("0.001667", 600),
        ("0.00167", 598.8023952),
        ("1.667E-3", 600),
        ("0.01", 100),
        ("0.00390625", 256),
    ],
)
def test_sampling_interval_in_seconds(increment: str, rate: float) -> None:
    record = read(aecg(COUNTS, increment=f'<increment value="{increment}" unit="s"/>'))
    assert record.rate == pytest.approx(rate, rel=1e-9)
    assert read(aecg(COUNTS, increment='<increment value="2" unit="ms"/>')).rate == 500


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("sampling interval", 'value="0.002"', 'value="0"'),
        ("sampling interval", 'value="0.002" ', ""),
        ("sampling interval", 'code="TIME_ABSOLUTE"', 'code="TIME"'),
        ("unit of the sampling interval", ' unit="s"', ""),
        ("unit of the sampling interval", ' unit="s"', ' unit="min"'),
        ("scale of I", 'scale value="5"', 'scale value="0"'),
        ("scale of I", 'scale value="5"', 'scale value="5,0"'),
        ("origin of I", 'origin value="0"', 'origin value=""'),
        ("unit of the scale of I", 'value="5" unit="uV"', 'value="5"'),
        ("unit of the scale of I", 'value="5" unit="uV"', 'value="5" unit="mmHg"'),
        ("leads", "LEAD_II", "LEAD_I"),
        ("leads", "MDC_ECG_LEAD_", "MDC_RESP_"),
        ("number of samples", "</digits>", " 0</digits>"),
        ("period", "<increment", '<period value="8"/><increment'),
    ],
)
def test_refusals(field: str, old: str, new: str) -> None:
    text = aecg(COUNTS)
    assert old in text
    count = -1 if old.startswith("MDC") else 1
    assert refusal(text.replace(old, new, count)).field == field


# ------------------------------------------------------------------ series


def test_averaged_beats_are_never_the_tracing() -> None:
    rhythm = aecg(COUNTS, series=REPRESENTATIVE)
    np.testing.assert_array_equal(read(rhythm).signal, read(aecg(COUNTS)).signal)
    assert refusal(rhythm.replace('"RHYTHM"', '"REPRESENTATIVE_BEAT"')).field == "series"


def test_a_file_of_one_series_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sound_aecg(tmp_path)
    monkeypatch.setattr("einthoven.records.aecg.parse", lambda *_: pytest.fail("parsed"))
    assert records_of(path) == [path]


def test_one_of_several_rhythms_is_named(tmp_path: Path) -> None:
    later = aecg(-COUNTS).split("</timepointEvent></componentOf>")[1]
    series = later.removesuffix("</AnnotatedECG>").replace("20240517093000", "20240517101500")
    text = aecg(COUNTS, series=series)
    assert refusal(text).field == "record"
    (tmp_path / "two.xml").write_text(text)
    (tmp_path / "one.xml").write_text(aecg(COUNTS))
    paths = [path.name for path in find_records(tmp_path)]
    assert paths == ["one.xml", "two.xml::1", "two.xml::2"]
    one, first, second = (read_record(tmp_path / path) for path in paths)
    np.testing.assert_array_equal(first.signal, one.signal)
    np.testing.assert_array_equal(second.signal, -one.signal)
    for wrong in ("two.xml::3", "two.xml::0", "two.xml::x", "one.xml::2"):
        with pytest.raises(RecordError):
            read_record(tmp_path / wrong)


def sequence_set(lead: str, values: str, start: str) -> str:
    return (
        '<component><sequenceSet><component><sequence><code code="TIME_ABSOLUTE"/><value>'
        f'<head value="{start}"/><increment value="0.002" unit="s"/></value></sequence></component>'
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead}"/><value>'
        f'<origin value="0" unit="uV"/><scale value="5" unit="uV"/><digits>{values}</digits>'
        "</value></sequence></component></sequenceSet></component>"
    )


def test_parts_lie_where_their_times_say() -> None:
    later = sequence_set("V1", "7 8", "20240517093000.400")
    record = read(aecg(COUNTS[:2], STANDARD[:2], more=later))
    assert record.leads == ("I", "II", "V1")
    np.testing.assert_array_equal(record.signal[:2, :200], (COUNTS[:2] * 0.005).astype("f4"))
    assert np.isnan(record.signal[2, :200]).all()
    assert np.isnan(record.signal[:2, 200:]).all()
    np.testing.assert_array_equal(record.signal[2, 200:], np.float32([0.035, 0.04]))


def test_parts_at_relative_times() -> None:
    """Eight digits of milliseconds are no date."""
    text = aecg(COUNTS[:2], STANDARD[:2], more=sequence_set("V1", "7 8", "20240601"))
    text = text.replace("TIME_ABSOLUTE", "TIME_RELATIVE").replace("20240517093000", "20240201")
    text = text.replace('"20240201"/><increment', '"20240201" unit="ms"/><increment')
    text = text.replace('"20240601"/><increment', '"20240601" unit="ms"/><increment')
    np.testing.assert_array_equal(read(text).signal[2, 200:], np.float32([0.035, 0.04]))


@pytest.mark.parametrize(
    ("lead", "start"), [("II", "20240517093000.398"), ("V1", "20990517093000"), ("V1", "")]
)
def test_parts_that_overlap_or_have_no_place_are_refused(lead: str, start: str) -> None:
    refusal(aecg(COUNTS[:2], STANDARD[:2], more=sequence_set(lead, "7 8", start)))


def test_computed_leads_are_not_those_of_their_name() -> None:
    text = aecg(COUNTS[:4], ["I", "II", "V1", "X"])
    record = read(text.replace("LEAD_V1", "LEAD_dV1").replace("MDC_ECG_LEAD_II", "II"))
    assert record.leads == ("I", "II", "V1-cal", "X")


def test_channels_without_an_ecg_are_left_out_by_name() -> None:
    record = read(aecg(COUNTS).replace("MDC_ECG_LEAD_V6", "MDC_RESP_RATE"))
    assert "V6" not in record.leads
    assert "MDC_RESP_RATE" in record.metadata["left_out"]


# ------------------------------------------------------------------ annotations


def annotation(code: str, value: str, inside: str = "") -> str:
    return (
        f'<component><annotation><code code="MDC_ECG_{code}"/>{value}{inside}</annotation>'
        "</component>"
    )


def test_a_newborn_without_date_of_birth_is_0_years_old() -> None:
    age = (
        '<controlVariable><relatedObservation><code code="21612-7"/><value value="0" unit="a"/>'
        "</relatedObservation></controlVariable>"
    )
    text = aecg(COUNTS).replace('<birthTime value="19600518"/>', "")
    assert "age" not in read(text).metadata
    assert read(text.replace("</AnnotatedECG>", f"{age}</AnnotatedECG>")).metadata["age"] == "0"


def test_measurements_and_statements() -> None:
    beat = annotation("BEAT", "<value/>", annotation("TIME_PD_QT", '<value value="1"/>'))
    texts = [
        annotation("INTERPRETATION_STATEMENT", f"<value>{text}</value>")
        for text in ("Sinus rhythm", "Normal ECG", "Sinus rhythm")
    ]
    nested = annotation("INTERPRETATION", "<value/>", "".join(texts))
    plain = {"HEART_RATE": "57", "TIME_PD_PR": "0", "TIME_PD_QTcB": "410", "ANGLE_QRS_FRONT": "0"}
    values = [annotation(code, f'<value value="{value}"/>') for code, value in plain.items()]
    record = read(aecg(COUNTS, annotations="".join([beat, nested, *values])))
    kept = {key: record.metadata.get(key) for key in ("statements", "heart_rate_bpm", "pr_ms")}
    assert kept == {
        "statements": "Sinus rhythm\nNormal ECG",
        "heart_rate_bpm": "57",
        "pr_ms": None,  # 0 means not measured
    }
    assert record.metadata["qtc_ms"] == "410"
    assert record.metadata["qrs_axis_deg"] == "0"
    assert "qt_ms" not in record.metadata  # of a single beat


# ------------------------------------------------------------------ real files


def test_the_example_of_hl7_is_the_example_in_dicom() -> None:
    record = shared("aecg/hl7_Example_aECG.xml")
    assert (record.signal.shape, record.rate) == ((12, 5000), 500)
    assert (record.signal.min(), record.signal.max()) == (np.float32(-1.9275), np.float32(0.9725))
    assert record.patient == "SBJ-123"
    assert record.metadata["qrs_axis_deg"] == "-61"

    import pydicom

    group = pydicom.dcmread(SHARED / "dicom/ecgtoolkit_Example.dcm").WaveformSequence[0]
    counts = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).T
    for channel, row in zip(group.ChannelDefinitionSequence, counts, strict=True):
        assert channel.ChannelSensitivityUnitsSequence[0].CodeValue == "uV"
        name = channel.ChannelSourceSequence[0].CodeMeaning.removeprefix("Lead ").split(" ")[0]
        sensitivity = float(channel.ChannelSensitivity) / 1000
        lead = record.select([name]).signal[0]
        np.testing.assert_allclose(lead, row * sensitivity, atol=1e-6)


def test_a_minimal_file() -> None:
    record = shared("aecg/fda_minimum_aecg.xml")
    assert (record.leads, record.signal.shape, record.rate) == (("II",), (1, 13), 500)
    assert record.signal[0, :2].tolist() == pytest.approx([-0.005, -0.005])


def test_a_file_of_a_mindray_cart() -> None:
    record = shared("aecg/liryc_hl7aecg_example.xml")
    assert (record.signal.shape, record.rate) == ((12, 1000), 100)
    assert record.leads == STANDARD_LEADS
    assert record.metadata["heart_rate_bpm"] == "57"
    assert "qtc_ms" not in record.metadata  # the file says 0
    assert "sex" not in record.metadata
