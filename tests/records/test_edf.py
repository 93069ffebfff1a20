"""EDF and BDF files: choice of channels, scale, number of data records, gaps, parts, patient."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest
from edf_files import Channel, edf_bytes

from einthoven.errors import RecordError
from einthoven.records import EcgFile, read_record


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).integers(-8000, 8000, 400)


def refused(content: bytes) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read_record(content)
    return caught.value


def test_a_file_of_another_encoder() -> None:
    values = np.random.default_rng(1).normal(0, 0.4, (2, 500)).clip(-2, 2)
    file = edfio.Edf(
        [
            edfio.EdfSignal(row, 250, label=label, physical_dimension="mV", physical_range=(-2, 2))
            for label, row in zip(["ECG V1", "ECG V2"], values, strict=True)
        ]
    )
    content = io.BytesIO()
    file.write(content)
    record = read_record(content.getvalue())
    assert (record.rate, record.leads) == (250, ("V1", "V2"))
    for row, signal in zip(record.signal, file.signals, strict=True):
        np.testing.assert_allclose(row, signal.data, atol=1e-6)


@pytest.mark.parametrize(
    ("unit", "factor"), [("uV", 1e-3), ("\xb5V", 1e-3), ("mV", 1.0), ("V", 1e3)]
)
def test_units_and_offsets(counts: np.ndarray, unit: str, factor: float) -> None:
    channel = Channel("II", counts, unit, physical=(-0.1, 0.3), digital=(-8192, 8191))
    expected = ((counts + 8192) * (0.4 / 16383) - 0.1) * factor
    record = read_record(edf_bytes([channel]))
    np.testing.assert_allclose(record.signal[0], expected, rtol=1e-5, atol=1e-6 * factor)


def test_twenty_four_bits() -> None:
    counts = np.array([-(1 << 23), -1, 0, 1, 255, 256, 65536, (1 << 23) - 1])
    channel = Channel("I", counts, physical=(-262144, 262143), digital=(-(1 << 23), (1 << 23) - 1))
    signal = read_record(edf_bytes([channel], bits=24, records=2, seconds=0.1)).signal
    step = 524287 / ((1 << 24) - 1)
    expected = ((counts + (1 << 23)) * step - 262144) / 1000
    np.testing.assert_allclose(signal[0], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("label", "lead"),
    [
        ("ECG I", "I"),
        ("EKG-aVF", "aVF"),
        ("ecg avr", "aVR"),
        ("Lead II", "II"),
        ("V6", "V6"),
        ("MLII", "MLII"),
        ("ECG X", "X"),
        ("ECG", "ECG"),
        ("EKG1", "EKG1"),
        ("ECGL-ECGR", "ECGL-ECGR"),
        ("ECG V1-W", "ECG V1-W"),
        ("Chest ECG", "Chest ECG"),
        ("ECG V1 (V4R)", "V1 (V4R)"),
        ("ECG I (inv)", "I (inv)"),
        ("ECG I (mV)", "I"),
    ],
)
def test_labels_of_an_ecg(counts: np.ndarray, label: str, lead: str) -> None:
    others = [Channel("EEG Cz", counts), Channel("V1-ref", counts), Channel("X", counts)]
    record = read_record(edf_bytes([*others, Channel(label, counts)]))
    assert record.leads == (lead,)
    assert record.metadata["left_out"] == "EEG Cz, V1-ref, X"


def test_without_an_ecg_the_labels_are_named(counts: np.ndarray) -> None:
    error = refused(edf_bytes([Channel("EEG Cz", counts), Channel("Resp", counts)]))
    assert (error.field, error.value) == ("channels", "EEG Cz, Resp")


def test_other_rates_and_units_are_left_out(counts: np.ndarray) -> None:
    record = read_record(
        edf_bytes(
            [
                Channel("ECG II", counts),
                Channel("ECG slow", counts[:100]),
                Channel("ECG rate", counts, unit="bpm"),
                Channel("ECG I", counts),
            ],
            reserved="EDF+C",
            onsets=[0, 1, 2, 3],
        )
    )
    assert (record.leads, record.rate) == (("II", "I"), 100)
    assert record.metadata["left_out"] == "ECG slow (25 Hz, uV), ECG rate (100 Hz, bpm)"


def test_two_channels_of_one_lead(counts: np.ndarray) -> None:
    error = refused(edf_bytes([Channel("ECG II", counts), Channel("II", counts)]))
    assert (error.field, error.value) == ("channels", "ECG II, II")


@pytest.mark.parametrize("unit", ["", "MV", "n/a", "bpm"])
def test_a_unit_that_is_no_voltage(counts: np.ndarray, unit: str) -> None:
    assert refused(edf_bytes([Channel("II", counts, unit=unit)])).field.startswith("physical dim")


@pytest.mark.parametrize(
    "changes",
    [
        {"digital": (0, 0)},
        {"digital": (100, -100)},
        {"physical": (5, 5)},
        {"physical": ("nan", 5)},
        {"physical": ("-1e400", 5)},
        {"physical": ("low", 5)},
        {"digital": (0.5, 7)},
        {"physical": (-1000, 1000), "unit": "mV"},
    ],
)
def test_ranges_without_a_plausible_scale(counts: np.ndarray, changes: dict[str, Any]) -> None:
    assert "range" in refused(edf_bytes([Channel("II", counts, **changes)])).field


def test_an_inverted_physical_range_inverts_the_signal(counts: np.ndarray) -> None:
    upright = read_record(edf_bytes([Channel("II", counts, physical=(-3276.8, 3276.8))]))
    inverted = read_record(edf_bytes([Channel("II", counts, physical=(3276.8, -3276.8))]))
    np.testing.assert_allclose(inverted.signal, -upright.signal, atol=1e-6)


@pytest.mark.parametrize("announced", [-1, 0, 3, 5])
def test_another_number_of_data_records(counts: np.ndarray, announced: int) -> None:
    error = refused(edf_bytes([Channel("II", counts)], announced=announced))
    assert (error.field, error.value) == ("number of data records", announced)


def test_a_last_data_record_that_is_cut_off(counts: np.ndarray) -> None:
    assert refused(edf_bytes([Channel("II", counts)])[:-20]).field == "number of data records"


@pytest.mark.parametrize("seconds", [0, -1, "nan", "1e400", "x"])
def test_no_duration_no_rate(counts: np.ndarray, seconds: float | str) -> None:
    error = refused(edf_bytes([Channel("II", counts)], seconds=seconds))
    assert error.field == "duration of a data record"


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [("0.001250", 800), ("0.007813", 128), ("0.001953", 512), ("0.0125", 80), ("0.013", 1 / 0.013)],
)
def test_durations_of_eight_characters_may_be_rounded(
    counts: np.ndarray, seconds: str, rate: float
) -> None:
    content = edf_bytes([Channel("II", counts)], records=400, seconds=seconds)
    assert read_record(content).rate == pytest.approx(rate, rel=1e-12)


def test_patient_and_recording(counts: np.ndarray) -> None:
    record = read_record(edf_bytes([Channel("II", counts)]))
    assert record.patient == "P-17"
    assert record.metadata == {
        "time": "2020-12-12T08:30:15",
        "age": "70",
        "sex": "female",
        "device": "Cart 3000",
        "filters": "HP:0.05Hz LP:150Hz",
    }


def test_text_of_plain_edf_is_no_patient(counts: np.ndarray) -> None:
    content = edf_bytes([Channel("II", counts)], patient="Ada Lovelace, 1950", recording="Room 3")
    record = read_record(content)
    assert record.patient is None
    assert record.metadata == {"time": "2020-12-12T08:30:15", "filters": "HP:0.05Hz LP:150Hz"}


@pytest.mark.parametrize("bits", [16, 24])
def test_gaps_are_nan(counts: np.ndarray, bits: int) -> None:
    kind = "BDF+D" if bits == 24 else "EDF+D"
    arguments: dict[str, Any] = {"reserved": kind, "bits": bits}
    content = edf_bytes([Channel("II", counts)], onsets=[7, 8, 9.5, 12], **arguments)
    record = read_record(content)
    whole = read_record(edf_bytes([Channel("II", counts)], bits=bits)).signal
    gap = np.full((1, 50), np.nan), np.full((1, 150), np.nan)
    expected = [whole[:, :200], gap[0], whole[:, 200:300], gap[1], whole[:, 300:]]
    np.testing.assert_array_equal(record.signal, np.concatenate(expected, axis=1))
    part = read_record(content, start=2, stop=3)
    np.testing.assert_array_equal(part.signal, record.signal[:, 200:300])


@pytest.mark.parametrize("onsets", [[0, 1, 2, 99], [0, 1, 1.5, 2.5], [0, 5, 2, 3]])
def test_gaps_that_are_refused(counts: np.ndarray, onsets: list[float]) -> None:
    content = edf_bytes([Channel("II", counts)], onsets=onsets, reserved="EDF+D")
    assert refused(content).field == "onsets of the data records"


def test_a_discontinuous_recording_without_times(counts: np.ndarray) -> None:
    assert refused(edf_bytes([Channel("II", counts)], reserved="EDF+D")).field.startswith("onset")


@pytest.mark.parametrize("bits", [16, 24])
def test_a_part_reads_its_own_data_records(
    counts: np.ndarray, bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "night.edf"
    path.write_bytes(edf_bytes([Channel("EEG Cz", counts), Channel("ECG", counts)], bits=bits))
    whole = read_record(path)
    monkeypatch.setattr(EcgFile, "content", property(lambda file: pytest.fail("read as a whole")))
    for first, last in [(0, 100), (100, 200), (130, 170), (199, 400)]:
        part = read_record(path, start=first / 100, stop=last / 100)
        np.testing.assert_array_equal(part.signal, whole.signal[:, first:last])
        assert (part.metadata, part.source_hash) == (whole.metadata, whole.source_hash)


def test_real_files_that_are_refused(shared: Path) -> None:
    folder = shared / "data" / "formats" / "edf"
    with pytest.raises(RecordError, match="EEG Fpz-Cz") as sleep:
        read_record(folder / "edfio_short_psg.edf")
    assert sleep.value.field == "channels"
    with pytest.raises(RecordError) as wrong:  # 30.5 uV a count; the truth is 5 uV
        read_record(folder / "contec_0000050.edf")
    assert wrong.value.field == "physical and digital range of I"


def test_a_real_file_with_the_right_range_equals_its_twin(shared: Path) -> None:
    folder = shared / "data" / "formats"
    content = (folder / "edf" / "contec_0000050.edf").read_bytes()
    content = content.replace(b"-1000.00", b"-163.84 ").replace(b"1000.00 ", b"163.835 ")
    twin = np.genfromtxt(folder / "csv" / "contec_0000050.csv", delimiter=",")[:, :6] * 0.005
    record = read_record(content)
    assert (record.rate, len(record.leads)) == (800, 12)
    np.testing.assert_allclose(record.signal[:6], twin.T, atol=1e-5)
