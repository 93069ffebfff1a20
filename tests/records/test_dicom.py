"""DICOM waveforms: what a file declares, on files written element by element, and real ones."""

from __future__ import annotations

import contextlib
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import (
    HEMODYNAMIC,
    channel,
    code,
    content,
    counts,
    data_set,
    group,
    limb_leads,
    write,
)

from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.formats import find_records

MV_A_STEP = 5e-3


def read(*groups: Any, syntax: str = "explicit", **elements: Any) -> Record:
    return read_record(content(data_set(*groups, **elements), syntax))


def refuse(field: str, *groups: Any, **elements: Any) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read(*groups, **elements)
    assert field in caught.value.field
    assert caught.value.remedy
    return caught.value


# ---------------------------------------------------------------------- real files


@pytest.fixture
def formats(shared: Path) -> Path:
    folder = shared / "data" / "formats"
    if not (folder / "dicom").is_dir():
        pytest.skip("no DICOM files in the shared folder")
    return folder


@pytest.mark.parametrize(
    ("name", "rate", "samples", "lowest", "highest"),
    [
        ("mortara_waveform_ecg", 1000, 10_000, -1.125, 1.9625),
        ("ecgtoolkit_Example", 500, 5000, -1.9275, 0.9725),
        ("ecgprocess_example-DICOM1", 500, 5000, -1.01016, 1.31272),
    ],
)
def test_real_files(
    formats: Path, name: str, rate: int, samples: int, lowest: float, highest: float
) -> None:
    path = formats / "dicom" / f"{name}.dcm"
    record = read_record(path)
    assert (record.rate, record.signal.shape) == (rate, (12, samples))
    assert record.leads == STANDARD_LEADS
    assert record.signal.min() == pytest.approx(lowest, abs=1e-6)
    assert record.signal.max() == pytest.approx(highest, abs=1e-6)
    # The counts, which pydicom takes as they are: none is lost, also where the padding value is 0.
    stored = pydicom.dcmread(path).waveform_array(0)
    np.testing.assert_allclose(1000 * record.signal.T, stored, rtol=1e-6, atol=1e-9)
    assert not np.isnan(record.signal).any()


def test_metadata_of_a_real_file(formats: Path) -> None:
    record = read_record(formats / "dicom" / "mortara_waveform_ecg.dcm")
    assert record.patient == "642341"
    assert record.metadata == {
        "time": "2013-01-25T10:59:19",
        "age": "42",
        "sex": "female",
        "device": "Mortara Instrument, Inc. el250",
        "filters": "0.05 to 300 Hz",
        "statements": "RITMO SINUSALE\nECG NORMALE",
        "pr_ms": "161",
        "qrs_ms": "75",
        "qt_ms": "368",
        "qtc_ms": "370",
        "p_axis_deg": "74",
        "qrs_axis_deg": "52",
        "t_axis_deg": "57",
    }


@pytest.mark.parametrize("twin", ["aecg/hl7_Example_aECG.xml", "scp/ecgtoolkit_Example.scp"])
def test_one_tracing_in_three_formats(formats: Path, twin: str) -> None:
    try:
        other = read_record(formats / twin)
    except RecordError as error:
        if error.field == "format":
            pytest.skip("no reader of this format")
        raise
    ours = read_record(formats / "dicom" / "ecgtoolkit_Example.dcm").select(other.leads)
    np.testing.assert_array_equal(ours.signal, other.signal)
    assert ours.rate == other.rate


def test_mutated_and_cut_real_files(formats: Path) -> None:
    random = np.random.default_rng(1)
    for path in sorted((formats / "dicom").glob("*.dcm")):
        whole = path.read_bytes()
        for _ in range(25):
            data = bytearray(whole)
            places = random.integers(0, 4000 if random.random() < 0.7 else len(data), 4)
            for place in places:
                data[place] = random.integers(256)
            for changed in (bytes(data), whole[: int(random.integers(len(whole)))]):
                with contextlib.suppress(RecordError):
                    read_record(changed)


# ---------------------------------------------------------------------- samples


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big", "deflated"])
@pytest.mark.parametrize("kind", ["SS", "US", "SB", "UB", "SL"])
def test_sample_types_and_transfer_syntaxes(syntax: str, kind: str) -> None:
    samples = counts(501, size=30).clip(-128, 127) + (128 if kind[0] == "U" else 0)
    record = read(group(samples, limb_leads(), kind=kind, big=syntax == "big"), syntax=syntax)
    np.testing.assert_array_equal(record.signal, np.float32(samples.T * MV_A_STEP))
    assert (record.leads, record.rate) == (("I", "II", "III"), 500)


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big"])
def test_without_preamble_and_suffix(syntax: str, tmp_path: Path) -> None:
    samples = counts()
    dataset = data_set(group(samples, limb_leads(), big=syntax == "big"))
    path = tmp_path / "export"
    path.write_bytes(content(dataset, syntax, preamble=False))
    record = read_record(path)
    np.testing.assert_array_equal(record.signal, np.float32(samples.T * MV_A_STEP))
    assert find_records(tmp_path) == [path]


@pytest.mark.parametrize("syntax", ["explicit", "deflated"])
def test_file_elements_without_preamble(syntax: str) -> None:
    file = content(data_set(group(counts(), limb_leads())), syntax)
    record = read_record(file[132:])
    np.testing.assert_array_equal(record.signal, np.float32(counts().T * MV_A_STEP))


@pytest.mark.parametrize(
    ("unit", "millivolts"), [("uV", 1e-3), ("µV", 1e-3), ("mV", 1), ("V", 1e3)]
)
def test_scale(unit: str, millivolts: float) -> None:
    samples = counts(size=20)
    scale = {"ChannelSensitivity": "2", "ChannelSensitivityCorrectionFactor": "1.5"}
    lead = channel(code("I", "99X"), unit=unit, ChannelBaseline="-7", **scale)
    record = read(group(samples[:, :1], [lead]), SpecificCharacterSet="ISO_IR 192")
    expected = np.float32((samples[:, 0] * 3.0 - 7) * millivolts)
    np.testing.assert_allclose(record.signal[0], expected, rtol=1e-6, atol=1e-9)


def test_absent_correction_and_baseline_are_one_and_zero() -> None:
    absent = {"ChannelSensitivityCorrectionFactor": None, "ChannelBaseline": None}
    record = read(group(counts(channels=1), [channel(code("I", "99X"), **absent)]))
    np.testing.assert_array_equal(record.signal, np.float32(counts(channels=1).T * MV_A_STEP))


@pytest.mark.parametrize("unit", ["", "mmHg", "counts"])
def test_units_are_not_guessed(unit: str) -> None:
    lead = channel(code("I", "99X"), unit=unit)
    refuse("Units", group(counts(channels=1), [lead]))


@pytest.mark.parametrize("value", ["0", "-1", None])
def test_scales_that_are_none(value: str | None) -> None:
    lead = channel(code("I", "99X"), ChannelSensitivity=value)
    refuse("Sensitivity", group(counts(channels=1), [lead]))


def test_lengths_and_rates_are_not_guessed() -> None:
    samples, leads = counts(), limb_leads()
    refuse("length of the Waveform Data", group(samples, leads, NumberOfWaveformSamples=1501))
    refuse("length of the Waveform Data", group(samples, leads, NumberOfWaveformSamples=1499))
    refuse("length of the Waveform Data", group(samples, leads, NumberOfWaveformSamples=1 << 31))
    refuse("length of the Waveform Data", group(samples, leads, WaveformData=None))
    refuse("Channels", group(samples, leads, NumberOfWaveformChannels=2))
    refuse("Sampling Frequency", group(samples, leads, SamplingFrequency=None))
    refuse("Sampling Frequency", group(samples, leads, SamplingFrequency="0"))
    refuse("Interpretation", group(samples, leads, WaveformSampleInterpretation="MB"))
    refuse("Interpretation", group(samples, leads, WaveformBitsAllocated=8))


def test_a_sign_that_is_not_extended() -> None:
    samples = counts(channels=1) & 0xFFF
    lead = channel(code("I", "99X"), WaveformBitsStored=12)
    refuse("Bits Stored", group(samples, [lead]))
    assert read(group(samples, [lead], kind="US")).signal.max() > 4000 * MV_A_STEP


def test_bombs_and_cut_deflated_files() -> None:
    file = content(data_set(group(counts(), limb_leads())), "deflated")
    with pytest.raises(RecordError):
        read_record(file[:-400])
    deflate = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(100)) + deflate.flush()
    meta = pydicom.dcmread(io.BytesIO(file)).file_meta
    end = 132 + 12 + meta.FileMetaInformationGroupLength
    with pytest.raises(RecordError) as caught:
        read_record(file[:end] + bomb)
    assert "deflated" in caught.value.field


# ---------------------------------------------------------------------- padding


def padded(samples: np.ndarray, padding: int, dtype: str = "<i2", **elements: Any) -> Record:
    kind = "US" if dtype == "<u2" else "SS"
    value = np.array(padding, dtype).tobytes()
    return read(group(samples, limb_leads(), kind=kind, WaveformPaddingValue=value, **elements))


def test_a_padding_value_of_zero_is_a_voltage() -> None:
    assert (counts() == 0).sum() >= 3
    np.testing.assert_array_equal(padded(counts(), 0).signal, np.float32(counts().T * MV_A_STEP))


@pytest.mark.parametrize("padding", [-32768, 32767, -9999])
def test_padding_that_no_voltage_can_be(padding: int) -> None:
    samples = counts()
    samples[-100:] = padding
    signal = padded(samples, padding).signal
    assert np.isnan(signal[:, -100:]).all()
    np.testing.assert_array_equal(signal[:, :-100], np.float32(samples[:-100].T * MV_A_STEP))


def test_padding_of_unsigned_samples_is_zero() -> None:
    samples = counts() + 2048
    samples[:50] = 0
    signal = padded(samples, 0, "<u2").signal
    assert np.isnan(signal[:, :50]).all()
    assert not np.isnan(signal[:, 50:]).any()


def test_a_value_near_the_samples_is_a_sample() -> None:
    samples = counts().clip(-300, 300)
    samples[7] = 320
    assert not np.isnan(padded(samples, 320).signal).any()


def test_nothing_but_padding() -> None:
    with pytest.raises(RecordError):
        padded(np.zeros((500, 3), int), 0)


@pytest.mark.parametrize(
    "status", ["DISCONNECTED", "INVALID", "TEST DATA", "UNCALIBRATED", ["OK", "DISCONNECTED"]]
)
def test_channels_without_voltages_of_a_patient(status: str | list[str]) -> None:
    leads = limb_leads()
    leads[1].ChannelStatus = status
    record = read(group(counts(), leads))
    np.testing.assert_array_equal(np.isnan(record.signal).all(axis=1), [False, True, False])
    assert record.leads[1] in record.metadata["left_out"]
    for lead in leads:
        lead.ChannelStatus = status
    refuse("Channel Status", group(counts(), leads))


def test_channels_of_a_doubtful_status() -> None:
    leads = limb_leads()
    leads[0].ChannelStatus, leads[1].ChannelStatus = "OK", ["UNZEROED", "QUESTIONABLE"]
    record = read(group(counts(), leads))
    assert np.isfinite(record.signal).all()
    assert record.metadata["lead_quality"].splitlines() == [
        f"{record.leads[1]}: questionable",
        f"{record.leads[1]}: unzeroed",
    ]


@pytest.mark.parametrize(
    ("elements", "shift"),
    [
        ({"ChannelSampleSkew": "50"}, 50),
        ({"ChannelSampleSkew": None, "ChannelTimeSkew": "0.1"}, 50),
        ({"ChannelOffset": "0.02"}, 10),
        ({"ChannelSampleSkew": "-5", "ChannelOffset": "0.02"}, 5),
        ({"ChannelSampleSkew": "0.3"}, 0),
    ],
)
def test_channels_that_begin_later_are_shifted(elements: dict[str, Any], shift: int) -> None:
    leads, samples = limb_leads(), counts()
    plain = read(group(samples, limb_leads())).signal
    for name, value in elements.items():
        setattr(leads[2], name, value)
    signal = read(group(samples, leads)).signal
    count = plain.shape[1]
    assert signal.shape[1] == count + shift
    np.testing.assert_array_equal(signal[:2, :count], plain[:2])
    np.testing.assert_array_equal(signal[2, shift:], plain[2])
    assert np.isnan(signal[2, :shift]).all()


@pytest.mark.parametrize(
    "elements",
    [
        {"ChannelSampleSkew": "10.5"},
        {"ChannelSampleSkew": "1500"},
        {"ChannelOffset": "0.0033"},
        {"ChannelSampleSkew": "0", "ChannelTimeSkew": "0.1"},
    ],
)
def test_skews_that_cannot_be_followed(elements: dict[str, str]) -> None:
    leads = limb_leads()
    for name, value in elements.items():
        setattr(leads[2], name, value)
    refuse("Skew", group(counts(), leads))


# ---------------------------------------------------------------------- leads


@pytest.mark.parametrize(
    ("value", "scheme", "meaning", "lead"),
    [
        ("5.6.3-9-1", "SCPECG", "Lead I (Einthoven)", "I"),
        ("5.6.3-9-64", "SCPECG", "", "aVF"),
        ("2:62", "MDC", "aVR, augmented voltage, right", "aVR"),
        ("131075", "MDC", "MDC_ECG_LEAD_V1", "V1"),
        ("MDC_ECG_LEAD_AVL", "MDC", "", "aVL"),
        ("2:12", "MDC", "Lead V4R", "V4R"),
        ("2:66", "MDC", "Lead V8", "V8"),
        ("2:34", "MDC", "Derived Lead V2", "V2-cal"),
        ("1", "99HOSPITAL", "ECG Lead V6", "V6"),
        ("v3", "", "", "V3"),
        ("1", "99HOSPITAL", "LEAD_V4", "V4"),
        ("1", "99HOSPITAL", "Lead-II", "II"),
        ("1", "99HOSPITAL", "Lead -aVR", "-aVR"),
        ("42", "99HOSPITAL", "MCL1", "MCL1"),
    ],
)
def test_lead_names(value: str, scheme: str, meaning: str, lead: str) -> None:
    record = read(group(counts(channels=1), [channel(code(value, scheme, meaning))]))
    assert record.leads == (lead,)


def test_labels_name_channels_without_source() -> None:
    record = read(group(counts(channels=1), [channel(None, ChannelLabel="Lead II")]))
    assert record.leads == ("II",)


@pytest.mark.parametrize(
    ("value", "meaning", "label"),
    [
        ("5.6.3-9-1", "Lead II", "I"),
        ("2:62", "aVR", "-aVR"),
        ("X1", "V1", "V2"),
        ("5.6.3-9-6", "Lead V4", "V4 (V4R)"),
    ],
)
def test_code_and_names_that_disagree(value: str, meaning: str, label: str) -> None:
    lead = channel(code(value, meaning=meaning), ChannelLabel=label)
    refuse("Channel Source", group(counts(channels=1), [lead]))


def test_a_label_does_not_hide_that_a_lead_was_computed() -> None:
    lead = channel(code("2:34", "MDC", "Derived Lead V2"), ChannelLabel="V2")
    assert read(group(counts(channels=1), [lead])).leads == ("V2-cal",)


def test_haemodynamic_files_hold_ecg_leads_among_pressures() -> None:
    pressure = channel(code("109019", "DCM", "Aortic pressure"), unit="mm[Hg]")
    catheter = channel(code("6-42", "99X", "HIS d"), unit="mV")
    leads = limb_leads()
    record = read(
        group(counts(channels=2), [pressure, catheter], rate=250),
        group(counts(channels=4), [leads[0], pressure, leads[1], leads[2]], rate=240),
        sop_class=HEMODYNAMIC,
    )
    assert (record.leads, record.rate) == (("I", "II", "III"), 240)
    assert record.metadata == {"left_out": "Aortic pressure: no ECG lead"}
    np.testing.assert_array_equal(
        record.signal, np.float32(counts(channels=4)[:, [0, 2, 3]].T * MV_A_STEP)
    )


def test_files_without_an_ecg() -> None:
    pressure = channel(code("109019", "DCM", "Aortic pressure"), unit="mm[Hg]")
    assert "pressure" in str(
        refuse("channels", group(counts(channels=1), [pressure]), sop_class=HEMODYNAMIC).value
    )
    refuse("Waveform Sequence", sop_class="1.2.840.10008.5.1.4.1.1.104.1")


def test_a_directory_of_a_disc_is_no_record(tmp_path: Path) -> None:
    write(tmp_path / "DICOMDIR", data_set(sop_class="1.2.840.10008.1.3.10"))
    write(tmp_path / "1.dcm", data_set(group(counts(), limb_leads())))
    assert find_records(tmp_path) == [tmp_path / "1.dcm"]


# ---------------------------------------------------------------------- groups


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("rhythm", "beat"),
    [
        ({"MultiplexGroupLabel": "RHYTHM"}, {"MultiplexGroupLabel": "MEDIAN BEAT"}),
        ({}, {"WaveformOriginality": "DERIVED"}),
        ({"WaveformOriginality": "DERIVED"}, {}),
        ({}, {"MultiplexGroupLabel": "AVERAGE BEAT", "rate": 1000}),
    ],
)
def test_the_rhythm_is_chosen(order: int, rhythm: dict[str, Any], beat: dict[str, Any]) -> None:
    groups = [
        group(counts(5000), limb_leads(), **rhythm),
        group(counts(600, seed=6), limb_leads(), **beat),
    ]
    record = read(*groups[::order])
    np.testing.assert_array_equal(record.signal, np.float32(counts(5000).T * MV_A_STEP))


def test_a_beat_of_more_leads_is_not_the_rhythm() -> None:
    beat = group(counts(600), limb_leads())
    record = read(beat, group(counts(5000, 2), limb_leads()[:2]))
    assert record.leads == ("I", "II", "III")[:2]


def test_an_averaged_beat_alone() -> None:
    refuse("groups", group(counts(5000), limb_leads(), MultiplexGroupLabel="MEDIAN BEAT"))


def test_groups_of_one_time_are_joined() -> None:
    chest = [channel(code(f"2:{number}", "MDC")) for number in range(3, 9)]
    record = read(
        group(counts(5000), limb_leads()), group(counts(5000, 6, seed=7), chest, rate=500)
    )
    assert record.leads == ("I", "II", "III", "V1", "V2", "V3", "V4", "V5", "V6")
    assert record.signal.shape == (9, 5000)


@pytest.mark.parametrize("later", [{"rate": 250}, {"MultiplexGroupTimeOffset": "5000"}, {}])
def test_leads_of_other_rates_and_unknown_times(later: dict[str, Any]) -> None:
    chest = [channel(code(f"2:{number}", "MDC")) for number in (3, 4)]
    refuse("groups", group(counts(1250), limb_leads()), group(counts(1500, 2), chest, **later))


def test_leads_recorded_in_turn_beside_a_strip() -> None:
    chest = [channel(code(f"2:{number}", "MDC")) for number in (3, 4, 5)]
    record = read(
        group(counts(1250), limb_leads(), MultiplexGroupTimeOffset="0"),
        group(counts(1250, seed=6), chest, MultiplexGroupTimeOffset="2500"),
        group(counts(2500, 1, seed=7), limb_leads()[1:2], MultiplexGroupTimeOffset="0"),
    )
    assert record.leads == ("I", "II", "III", "V1", "V2", "V3")
    nothing = np.full((3, 1250), np.nan)
    expected = np.block(
        [[counts(1250).T * MV_A_STEP, nothing], [nothing, counts(1250, seed=6).T * MV_A_STEP]]
    )
    expected[1] = counts(2500, 1, seed=7)[:, 0] * MV_A_STEP
    np.testing.assert_array_equal(record.signal, np.float32(expected))


def test_an_original_is_preferred_to_what_was_derived_from_it() -> None:
    derived = group(counts(2500, seed=6), limb_leads(), WaveformOriginality="DERIVED")
    record = read(derived, group(counts(2500), limb_leads()))
    np.testing.assert_array_equal(record.signal, np.float32(counts(2500).T * MV_A_STEP))


# ---------------------------------------------------------------------- metadata


def annotation(**elements: Any) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.AnnotationGroupNumber = 1
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def measurement(name: pydicom.Dataset, value: str, unit: str, place: int = 0) -> pydicom.Dataset:
    return annotation(
        ConceptNameCodeSequence=[name],
        NumericValue=value,
        MeasurementUnitsCodeSequence=[code(unit, "UCUM", unit)],
        ReferencedWaveformChannels=[1, place],
    )


def test_patient_and_time() -> None:
    record = read(
        group(counts(), limb_leads()),
        PatientID="00017",
        PatientSex="F",
        PatientAge="018M",
        PatientSize="1.71",
        PatientWeight="70",
        AcquisitionDateTime="20240517093015.250+0200",
        Manufacturer="ACME",
        ManufacturerModelName="Cart 1",
    )
    assert record.patient == "00017"
    assert record.metadata == {
        "time": "2024-05-17T09:30:15",
        "age": "1.5",
        "sex": "female",
        "height_cm": "171",
        "weight_kg": "70",
        "device": "ACME Cart 1",
    }


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"StudyDate": "20240517", "StudyTime": "0930"}, {"time": "2024-05-17T09:30:00"}),
        ({"ContentDate": "20240517"}, {"time": "2024-05-17"}),
        ({"ContentDate": "00000000", "PatientSex": "O", "PatientAge": "old"}, {}),
        (
            {"PatientBirthDate": "19540518", "ContentDate": "20240517"},
            {"time": "2024-05-17", "age": "69"},
        ),
    ],
)
def test_partial_and_invalid_statements(elements: dict[str, str], expected: dict[str, str]) -> None:
    assert read(group(counts(), limb_leads()), **elements).metadata == expected


def test_statements_measurements_and_filters() -> None:
    lead = channel(
        code("I", "99X"),
        FilterLowFrequency="0.05",
        FilterHighFrequency="150",
        NotchFilterFrequency="50",
    )
    coded = annotation(
        ConceptNameCodeSequence=[code("9", "99X", "Interpretation")],
        ConceptCodeSequence=[code("164889003", "SCT", "Atrial fibrillation")],
    )
    wave = annotation(
        ConceptNameCodeSequence=[code("10:256", "MDC", "P wave")], ReferencedSamplePositions=[7]
    )
    record = read(
        group(counts(channels=1), [lead]),
        WaveformAnnotationSequence=[
            annotation(UnformattedTextValue="Sinus rhythm"),
            coded,
            wave,
            measurement(code("2:16156", "MDC", "QRS duration"), "0.098", "s"),
            measurement(code("5.13.5-11", "SCPECG", "QT Interval"), "29999", "ms"),
            measurement(code("5.13.5-7", "SCPECG", "PR Interval"), "160", ""),
            measurement(code("2:16132", "MDC", "QRS axis"), "-61", "ms"),
            measurement(code("2:16136", "MDC", "T axis"), "999", "deg"),
            measurement(code("8867-4", "LN", "Heart rate"), "72", "/min"),
            measurement(code("2:15876", "MDC", "QTc"), "430", "ms", place=4),
        ],
    )
    assert record.metadata == {
        "filters": "0.05 to 150 Hz, notch 50 Hz",
        "statements": "Sinus rhythm\nAtrial fibrillation",
        "heart_rate_bpm": "72",
        "qrs_ms": "98",
        "qrs_axis_deg": "-61",
    }


def test_texts_with_backslashes() -> None:
    elements = {"PatientID": ["1", "2"], "Manufacturer": ["A", "B"]}
    record = read(group(counts(), limb_leads()), **elements)
    assert (record.patient, record.metadata["device"]) == ("1\\2", "A\\B")


def test_texts_of_another_character_set() -> None:
    record = read(
        group(counts(), limb_leads()),
        SpecificCharacterSet="ISO_IR 192",
        WaveformAnnotationSequence=[annotation(UnformattedTextValue="Überleitung verzögert")],
    )
    assert record.metadata["statements"] == "Überleitung verzögert"
