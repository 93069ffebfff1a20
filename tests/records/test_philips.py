"""Philips Sierra XML."""

from __future__ import annotations

import tracemalloc
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from xml_files import STANDARD, counts_of, philips, sound_philips

from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.calibration import calibration_start, without_calibration

SHARED = Path(__file__).parents[3] / "shared" / "data" / "formats"
COUNTS = counts_of(STANDARD)
XLI = philips(COUNTS)


def read(text: str) -> Record:
    return read_record(text.encode())


def refusal(text: str) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read(text)
    return caught.value


def with_data(data: bytes) -> str:
    start, end = XLI.index('bitspersample="16">') + 19, XLI.index("</parsedwaveforms>")
    return XLI[:start] + b64encode(data).decode() + XLI[end:]


@pytest.mark.parametrize(
    "text",
    [
        XLI,
        philips(COUNTS, compression="Uncompressed"),
        philips(COUNTS, compression="Uncompressed", encoding="Plain"),
        philips(COUNTS, compression="", attributes='compressflag="false"'),
    ],
    ids=["XLI", "uncompressed", "plain", "version 1.03"],
)
def test_encodings(text: str) -> None:
    record = read(text)
    np.testing.assert_array_equal(record.signal, (COUNTS * 0.005).astype(np.float32))
    assert (record.rate, record.leads, record.patient) == (500, STANDARD_LEADS, "0017")
    assert record.metadata == {
        "time": "2024-05-17T09:30:00",
        "age": "63",
        "sex": "female",
        "statements": "SINUS RHYTHM V-rate 60-99",
        "severity": "NORMAL ECG",
        "device": "Philips PageWriter TC",
        "heart_rate_bpm": "60",
        "qrs_axis_deg": "0",
    }  # an Indeterminate interval is left out, and so is a name that has not confirmed


def test_large_counts_survive_compression() -> None:
    counts = COUNTS.copy()
    counts[6:] = np.random.default_rng(1).integers(-8000, 8000, (6, 200))
    np.testing.assert_allclose(read(philips(counts)).signal, counts * 0.005, atol=1e-5)


def test_rate_and_resolution_beside_the_samples_hold() -> None:
    """Those of the acquisition (1000 Hz, 1 uV) need not, and are used where there are no others."""
    text = XLI.replace(
        'samplespersecond="500" durationperchannel="400"', 'durationperchannel="200"'
    )
    record = read(text.replace(' resolution="5"', ""))
    assert record.rate == 1000
    np.testing.assert_allclose(record.signal, COUNTS * 0.001, atol=1e-7)


def test_names_of_leads_follow_from_the_acquisition_in_version_1_03() -> None:
    text = XLI.replace(f' leadlabels="{" ".join(STANDARD)}"', "").replace('numberofleads="12"', "")
    assert read(text).leads == STANDARD_LEADS
    assert read(text.replace("allocated>12<", "allocated>16<")).leads == STANDARD_LEADS
    assert refusal(text.replace("STD-12", "EASI")).field == "leadlabels"


def test_further_leads_of_an_uncompressed_file() -> None:
    leads = ["V3R", "V4R", "V7"]
    record = read(philips(COUNTS[6:9], leads, compression="Uncompressed"))
    assert record.leads == tuple(leads)


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("documentversion", ">1.04<", ">2.00<"),
        ("parsedwaveforms", "parsedwaveforms", "otherwaveforms"),
        ("samplingrate", 'samplespersecond="500"', 'samplespersecond="0"'),
        ("resolution", ' resolution="5"', ' resolution="5 uV"'),
        ("durationperchannel", ' durationperchannel="400"', ""),
        ("parsedwaveforms", ' durationperchannel="400"', ' durationperchannel="402"'),
        ("parsedwaveforms", ' durationperchannel="400"', ' durationperchannel="398"'),
        ("bitspersample", 'bitspersample="16"', 'bitspersample="14"'),
        ("signalsigned", ">True<", ">False<"),
        ("dataencoding", '"Base64"', '"Hex"'),
        ("compression", '"XLI"', '"ZIP"'),
        ("leadlabels", "V5 V6", "V5"),
        ("leadlabels", "I II III aVR", "I II III -aVR"),
        ("leads", "V5 V6", "V5 V5"),
        ("numberofleads", 'numberofleads="12"', 'numberofleads="0"'),
        ("numberofleads", 'numberofleads="12"', 'numberofleads="1e300"'),
    ],
)
def test_refusals(field: str, old: str, new: str) -> None:
    assert old in XLI
    assert refusal(XLI.replace(old, new)).field == field


@pytest.mark.parametrize("length", [199, 201])
def test_uncompressed_samples_have_the_announced_number(length: int) -> None:
    text = philips(counts_of(STANDARD, length), compression="Uncompressed")
    old = f'durationperchannel="{2 * length}"'
    assert refusal(text.replace(old, 'durationperchannel="400"')).field == "durationperchannel"


# ------------------------------------------------------------------ limb leads


def test_limb_leads_of_a_loose_electrode_survive_compression() -> None:
    counts = COUNTS * 10
    counts[1:6] = 0
    np.testing.assert_allclose(read(philips(counts)).signal, counts * 0.005, atol=1e-5)


def test_uncompressed_limb_leads_that_may_be_differences_are_refused() -> None:
    counts = COUNTS * 10
    counts[2:6] = np.random.default_rng(2).integers(-1, 2, (4, 200))
    assert refusal(philips(counts, compression="Uncompressed")).field == "leads III aVR aVL aVF"
    counts[5] = 30
    assert read(philips(counts, compression="Uncompressed")).leads == STANDARD_LEADS


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize(
    "data",
    [
        b"\1",
        bytes(8),
        b"\xff\xff\xff\xff\0\0\0\0",
        b"\xff\xff\xff\x7f\0\0\0\0",
        b"\1\0\0\0\1\0\0\0\0",
        b"\4\0\0\0\1\0\0\0\xff\xff\xff\xff",  # a code before it has a meaning
    ],
)
def test_damaged_compression(data: bytes) -> None:
    assert refusal(with_data(data)).field == "parsedwaveforms"


def test_values_beyond_16_bits_are_refused() -> None:
    rows = np.zeros_like(COUNTS)
    rows[6] = np.arange(200) ** 2
    assert refusal(philips(COUNTS, stored=rows)).field == "parsedwaveforms"
    assert read(philips(COUNTS, stored=rows // 2)).leads == STANDARD_LEADS


def test_few_bytes_do_not_become_many() -> None:
    """Codes that each repeat and lengthen the one before: 500 kB would become 300 MB."""
    codes = "".join(f"{min(255 + place, 1022):010b}" for place in range(400_000))
    codes = f"{0:010b}" + codes[10:]
    body = int(codes, 2).to_bytes(len(codes) // 8, "big")
    text = with_data(len(body).to_bytes(4, "little") + bytes(4) + body)
    tracemalloc.start()
    refusal(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(text)


# ------------------------------------------------------------------ real files


FILES = ("129DYPRG_1-03", "3191723_ZZDEMOPTONLY_1-04", "ad4d3d80-d165_1-04_orig")


def test_faults_of_the_leads() -> None:
    def lead(name: str, flags: str, states: str) -> str:
        states = f"<leadqualitystates {flags}>{states}</leadqualitystates>"
        return f'<leadmeasurement leadname="{name}">{states}</leadmeasurement>'

    none = '<acartifact starttime="" duration="" level="None" />'
    event = '<inops><inop starttime="100" duration="20" /></inops>'
    leads = [
        lead("AVR", 'measuredflag="True"', '<muscleartifacts level="Moderate" />'),
        lead("V1", 'measuredflag="False" overrangeflag="True"', event),
        lead("V2", "", f'<inops /><acartifacts level="None">{none}</acartifacts>'),
    ]
    place = "internalmeasurements", "leadmeasurements"
    added = "".join(f"<{name}>" for name in place) + "".join(leads)
    added += "".join(f"</{name}>" for name in reversed(place))
    stated = read(XLI.replace("</restingecgdata>", f"{added}</restingecgdata>")).metadata
    assert stated["lead_quality"].splitlines() == [
        "aVR: moderate muscle noise",
        "V1: electrode off",
        "V1: saturation",
        "V1: not measured",
    ]


def test_a_fault_in_a_real_file() -> None:
    _, record = shared("ad4d3d80-d165_1-04_orig")
    assert record.metadata["lead_quality"] == "V3: severe baseline wander"
    _, record = shared("3191723_ZZDEMOPTONLY_1-04")
    assert "lead_quality" not in record.metadata


def shared(name: str) -> tuple[Path, Record]:
    path = SHARED / "philips" / f"{name}.xml"
    if not path.exists():
        pytest.skip("shared material is not there")
    return path, read_record(path)


def assert_equals_the_library(path: Path) -> Record:
    from sierraecg import read_file

    record = read_record(path)
    theirs = np.array([lead.samples for lead in read_file(str(path)).leads])
    np.testing.assert_allclose(record.signal, theirs * 0.005, atol=1e-6)
    assert record.leads == STANDARD_LEADS
    return record


def test_the_library_reads_the_same(tmp_path: Path) -> None:
    assert_equals_the_library(sound_philips(tmp_path))


@pytest.mark.parametrize("name", FILES)
def test_the_library_reads_the_same_of_real_files(name: str) -> None:
    record = assert_equals_the_library(shared(name)[0])
    assert (record.signal.shape, record.rate) == ((12, 5500), 500)
    assert 10.5 < without_calibration(record).duration < 10.7


def test_the_twin_in_aecg() -> None:
    _, record = shared("ad4d3d80-d165_1-04_orig")
    twin = read_record(SHARED / "philips/ad4d3d80-d165_1-04_converted.xml")
    assert calibration_start(record) == 5300
    assert calibration_start(twin) == pytest.approx(5300, abs=5)
    assert np.abs(record.signal - twin.signal).max() < 0.0201
    assert record.signal.min() == pytest.approx(-17.225)
    assert record.metadata["heart_rate_bpm"] == twin.metadata["heart_rate_bpm"] == "41"
    assert record.metadata["severity"] == "OTHERWISE NORMAL ECG"
