"""CSV and TSV with a sidecar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_files import SIDECAR, sound_csv, three_leads, with_sidecar

from einthoven.cohorts import is_cohort
from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, read_record
from einthoven.records.formats import find_records

CONTEC = Path(__file__).resolve().parents[3] / "shared/data/formats/csv/contec_0000050.csv"
RATE_AND_UNIT = 'rate = 500\nunit = "mV"\n'
TWO = RATE_AND_UNIT + 'leads = ["I", "II"]\n'


def ecg(folder: Path, text: str | bytes, sidecar: str = RATE_AND_UNIT) -> Path:
    path = folder / "ecg_1.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return with_sidecar(path, sidecar)


def test_without_a_sidecar_the_keys_are_named(tmp_path: Path) -> None:
    path = sound_csv(tmp_path)
    path.with_suffix(".toml").unlink()
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.field == "description"
    for text in ("rate =", "unit =", "leads =", "sound.toml", "ecg.toml"):
        assert text in caught.value.remedy


def test_a_header_of_leads_states_the_leads(tmp_path: Path) -> None:
    text = "time,Lead I,ii,AVR (mV)\n0,1,2,3\n0.002,4,5,6\n0.004,7,8,9\n"
    record = read_record(ecg(tmp_path, text))
    assert record.leads == ("I", "II", "aVR")
    assert record.signal.tolist() == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]
    path = ecg(tmp_path, text, "")
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert "rate =" in caught.value.remedy
    assert "leads =" not in caught.value.remedy


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    text = "II,other,I\n1,2,3\n4,5,6\n7,8,9\n"
    record = read_record(ecg(tmp_path, text, TWO))
    assert record.leads == ("I", "II")
    assert record.signal.tolist() == [[3, 6, 9], [1, 4, 7]]
    with pytest.raises(RecordError) as caught:
        read_record(ecg(tmp_path, text, RATE_AND_UNIT + 'leads = ["I", "III"]\n'))
    assert caught.value.value == ["III"]


def test_a_lead_in_two_columns(tmp_path: Path) -> None:
    text = "I,II,I\n1,2,3\n4,5,6\n7,8,9\n"
    for sidecar in (RATE_AND_UNIT, TWO):
        with pytest.raises(RecordError) as caught:
            read_record(ecg(tmp_path, text, sidecar))
        assert caught.value.field == "leads"


def test_columns_with_other_names_are_named_in_order(tmp_path: Path) -> None:
    text = "Time [s],ch1,ch2\n0,1,2\n0.002,3,4\n0.004,5,6\n"
    assert read_record(ecg(tmp_path, text, TWO)).signal.tolist() == [[1, 3, 5], [2, 4, 6]]


def test_a_column_that_is_no_lead(tmp_path: Path) -> None:
    text = "0,1,9\n1,3,9\n2,5,9\n3,7,9\n"
    record = read_record(ecg(tmp_path, text, RATE_AND_UNIT + 'leads = ["", "I", ""]\n'))
    assert (record.leads, record.signal.tolist()) == (("I",), [[1, 3, 5, 7]])


@pytest.mark.parametrize("step", ["0.002", "2", "1"])
def test_times_that_agree_with_the_rate(tmp_path: Path, step: str) -> None:
    rows = "".join(f"{i * float(step)},{i},{2 * i}\n" for i in range(9))
    assert read_record(ecg(tmp_path, "time,I,II\n" + rows)).signal.shape == (2, 9)


def test_times_that_contradict_the_rate(tmp_path: Path) -> None:
    rows = "".join(f"{i / 1000},{i},{2 * i}\n" for i in range(9))
    with pytest.raises(RecordError) as caught:
        read_record(ecg(tmp_path, "time,I,II\n" + rows))
    assert (caught.value.field, caught.value.value) == ("sampling rate", 500)


@pytest.mark.parametrize("name", ["time [ms]", "ms", "Time (msec)", "time_ms"])
def test_a_time_in_a_stated_unit_is_no_sample_number(tmp_path: Path, name: str) -> None:
    text = f"{name},I,II\n" + "".join(f"{i},{i},{2 * i}\n" for i in range(9))
    path = ecg(tmp_path, text)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.field == "sampling rate"
    assert read_record(ecg(tmp_path, text, 'rate = 1000\nunit = "mV"\n')).signal.shape == (2, 9)


@pytest.mark.parametrize(
    ("order", "row"),
    [
        ([*range(500), *range(540, 1000)], 501),
        ([*range(500), *[499] * 40, *range(500, 1000)], 501),
        ([*range(250), *range(500, 750), *range(250, 500), *range(750, 1000)], 501),
        ([*range(998), 997, 998, 999], 999),
        ([*range(7), *range(8, 1000)], 8),
    ],
)
def test_rows_that_are_missing_repeated_or_in_disorder(
    tmp_path: Path, order: list[int], row: int
) -> None:
    text = "time [ms],I,II\n" + "".join(f"{2 * i},{i % 7},{i % 5}\n" for i in order)
    with pytest.raises(RecordError) as caught:
        read_record(ecg(tmp_path, text))
    assert f"row {row} " in caught.value.field


@pytest.mark.parametrize(
    ("rate", "shown"), [(360, "{:.3f}"), (360, "{:.2f}"), (500, "{:.2f}"), (500, "{:g}")]
)
def test_times_may_be_rounded(tmp_path: Path, rate: int, shown: str) -> None:
    rows = "".join(shown.format(100 + i / rate) + f",{i % 7},{i % 5}\n" for i in range(5000))
    path = ecg(tmp_path, f"time [s],I,II\n{rows}", f'rate = {rate}\nunit = "mV"\n')
    assert read_record(path).signal.shape == (2, 5000)


def test_clock_times_are_passed_over(tmp_path: Path) -> None:
    text = "time,I\n09:30:00.000,1\n09:30:00.002,2\n09:30:00.004,4\n"
    assert read_record(ecg(tmp_path, text)).signal.tolist() == [[1, 2, 4]]


@pytest.mark.parametrize(
    "text",
    [
        "I;II\n0,5;1,5\n-1;2e0\n,25;3\n",
        "I\tII\r\n0,5\t1,5\r\n-1\t2\r\n,25\t3\r\n",
        "\ufeffI,II\n0.5,1.5\n-1,2\n.25,3\n",
        '"I","II"\n"0.5","1.5"\n"-1","2"\n".25","3"\n',
        "I II\n0.5   1.5\n-1 2\n.25 3",
        "I|II\r0.5|1.5\r-1|2\r.25|3\r",
        "\nI,II\n0.5,1.5\n-1,2\n\n.25,3\n\n",
        "I (mV),II (mV),\n0.5,1.5,\n-1,2,\n.25,3,\n",
    ],
    ids=["semicolons", "tabs", "bom", "quotes", "blanks", "bars", "blank lines", "final comma"],
)
def test_spellings_of_the_same_table(tmp_path: Path, text: str) -> None:
    path = ecg(tmp_path, text)
    assert read_record(path).signal.tolist() == [[0.5, -1, 0.25], [1.5, 2, 3]]
    path.write_bytes(text.lstrip("\ufeff").encode("utf-16"))
    assert read_record(path).signal.tolist() == [[0.5, -1, 0.25], [1.5, 2, 3]]


@pytest.mark.parametrize(
    "text",
    [
        "I;II\n1,234;567\n-80;1,001\n12;13\n",
        "I\tII\n1,234\t567\n-80\t1,001\n12\t13\n",
        "I;II\n1.234;567\n-80;1.001\n12;13\n",
        "I;II\n32,768;32,801\n32,500;33,000\n32,768;32,768\n",
        "I;II\n1,234,567;1\n2;3\n4;5\n",
    ],
)
def test_separators_of_thousands(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(ecg(tmp_path, text, 'rate = 500\nunit = "uV"\n'))
    assert caught.value.field == "samples"


@pytest.mark.parametrize(
    "text",
    [
        "I;II\n1,234;567\n-0,080;1,001\n99;13\n",
        "I;II\n1,234;567\n-80;1,01\n99;13\n",
        "I,II\n1.234,56.789\n2.345,1.001\n99.200,1.300\n",
        "index,I,II\n0,1.234,56.789\n1,2.345,1.001\n2,99.200,1.300\n",
    ],
)
def test_decimals_of_three_digits(tmp_path: Path, text: str) -> None:
    record = read_record(ecg(tmp_path, text, 'rate = 500\nunit = "uV"\n'))
    assert record.signal[0, 0] == pytest.approx(0.001234)


def test_brackets_that_name_another_lead(tmp_path: Path) -> None:
    text = "I (mV),II (inv),V3 (V3R),V4 [V4R],V5 (V5)\n1,2,3,4,5\n2,3,4,5,6\n3,4,5,6,7\n"
    record = read_record(ecg(tmp_path, text))
    assert record.leads == ("I", "II (inv)", "V3 (V3R)", "V4 [V4R]", "V5")
    with pytest.raises(RecordError):
        read_record(ecg(tmp_path, text, RATE_AND_UNIT + 'leads = ["I", "V4"]\n'))


def test_lines_in_front_of_the_samples(tmp_path: Path) -> None:
    text = "Device: X5 µ\nII,I\nmV,mV\n1,2\n3,4\n5,6\n"
    for encoding in ("utf-8", "latin-1"):
        record = read_record(ecg(tmp_path, text.encode(encoding), "header = 3\n" + RATE_AND_UNIT))
        assert (record.leads, record.signal.tolist()) == (("II", "I"), [[1, 3, 5], [2, 4, 6]])
    with pytest.raises(RecordError):
        read_record(ecg(tmp_path, text, TWO))
    with pytest.raises(RecordError):
        read_record(ecg(tmp_path, text, "header = 99\n" + TWO))


def test_missing_samples(tmp_path: Path) -> None:
    text = "1,2\n,NaN\n-32768,5\nout,7\n2,2\n"
    path = ecg(tmp_path, text, TWO + 'missing = [-32768, "out"]\n')
    expected = [[1, np.nan, np.nan, np.nan, 2], [2, np.nan, 5, 7, 2]]
    np.testing.assert_array_equal(read_record(path).signal, expected)
    with pytest.raises(RecordError) as caught:
        read_record(ecg(tmp_path, text, TWO))
    assert (caught.value.field, caught.value.value) == ("line 4", "out")


def test_an_empty_column_is_no_lead(tmp_path: Path) -> None:
    record = read_record(ecg(tmp_path, "I,II\n1,\n2,\n4,\n"))
    assert record.leads == ("I",)
    assert record.metadata["left_out"].startswith("II")


def test_columns_that_are_no_leads_are_named(tmp_path: Path) -> None:
    text = "time,I,C1,AF\n0,1,2,0\n0.002,4,5,0\n0.004,7,8,0\n"
    record = read_record(ecg(tmp_path, text))
    assert (record.leads, record.metadata) == (("I",), {"left_out": "C1, AF"})
    chosen = read_record(ecg(tmp_path, text, RATE_AND_UNIT + 'leads = ["I"]\n'))
    assert (chosen.leads, chosen.metadata) == (("I",), {})


@pytest.mark.parametrize(
    "text", ["1,2\n3,4\n5", "1,2\n3,4,5\n6,7\n", "1 2\n3\n4 5\n", "1,2\n3;4\n"]
)
def test_lines_with_another_number_of_cells(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(ecg(tmp_path, text, TWO))
    assert caught.value.field.startswith("line ")


@pytest.mark.parametrize(
    "text", ["1,2x\n3,4\n5,6\n", "1,2\n3,4\n5,-\n", "1,2\n3,inf\n5,6\n", "1,1_0\n"]
)
def test_cells_that_are_no_numbers(tmp_path: Path, text: str) -> None:
    """Not even in the first line, which is no header where one cell is a number."""
    with pytest.raises(RecordError) as caught:
        read_record(ecg(tmp_path, text, TWO))
    assert caught.value.field in ("line 1", "line 2", "line 3", "signal")


def test_a_row_a_lead(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "wide.csv", np.tile(three_leads(), 5), fmt="%.4f", delimiter=",")
    text = SIDECAR.replace("200", "1000")
    record = read_record(with_sidecar(tmp_path / "wide.csv", text))
    np.testing.assert_allclose(record.signal, np.tile(three_leads(), 5), rtol=1e-6)
    lines = (tmp_path / "wide.csv").read_text().splitlines()
    for mark in ("", "NaN", "-1e3", "x"):
        changed = "\n".join(";".join(["1,5", mark, *line.split(",")[2:]]) for line in lines)
        (tmp_path / "marks.csv").write_text(changed)
        more = 'missing = ["-1e3", "x"]\n'
        signal = read_record(with_sidecar(tmp_path / "marks.csv", text + more)).signal
        np.testing.assert_array_equal(signal[:, 0], 1.5)
        assert np.isnan(signal[:, 1]).all()
        np.testing.assert_array_equal(signal[:, 2:], record.signal[:, 2:])
    (tmp_path / "wide.csv").write_text((tmp_path / "wide.csv").read_text()[:-9])
    with pytest.raises(RecordError):
        read_record(tmp_path / "wide.csv")


def test_as_many_samples_as_leads(tmp_path: Path) -> None:
    path = ecg(tmp_path, "1,2\n3,4\n", TWO)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert "leads_in" in caught.value.remedy
    with_sidecar(path, TWO + 'leads_in = "rows"\n')
    assert read_record(path).signal.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "path,patient,MI\na.hea,7,0\n"),
        ("exams.csv", "exam_id,age,AF\n17,50,1\n"),
        ("attributes.csv", "age,sex\n34,M\n"),
        ("gold.csv", "1dAVb,RBBB,LBBB,SB,AF,ST\n0,0,0,0,0,1\n"),
        ("mixed.csv", "path,I,II\na.hea,0,1\n"),
        ("quoted.csv", 'path,licence,note\na.dcm,"MIT (a, b)","1, 2"\n'),
    ],
)
def test_tables_among_ecg_files_are_no_records(tmp_path: Path, name: str, text: str) -> None:
    sound_csv(tmp_path)
    (tmp_path / name).write_text(text)
    assert [path.name for path in find_records(tmp_path)] == ["sound.csv"]


def test_a_table_of_samples_is_no_cohort(tmp_path: Path) -> None:
    """`predict ecg.csv` predicts an ECG, `predict labels.csv` the ECGs of a table."""
    assert not is_cohort(sound_csv(tmp_path))
    assert not is_cohort(ecg(tmp_path, "time,ECG\n0,1\n0.002,2\n", ""))
    (tmp_path / "labels.csv").write_text("path,patient,MI\na.hea,7,0\n")
    (tmp_path / "old.csv").write_text("file,person,MI\na.hea,7,0\n")
    assert is_cohort(tmp_path / "labels.csv")
    (tmp_path / "labels.toml").write_text("kind = 'binary'\n")  # of another purpose
    assert is_cohort(tmp_path / "labels.csv")
    assert is_cohort(tmp_path / "old.csv")
    assert is_cohort(tmp_path / "gone.csv")


def test_a_table_of_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("path,patient,MI\na.hea,7,0\n")
    with pytest.raises(RecordError) as caught:
        read_record(with_sidecar(path))
    assert caught.value.field == "columns"


@pytest.mark.skipif(not CONTEC.is_file(), reason="needs ../shared/data/formats")
def test_counts_of_a_real_file(tmp_path: Path) -> None:
    """Counts of 5 uV, and no samples of V1 to V6."""
    (tmp_path / "a.csv").write_bytes(CONTEC.read_bytes())
    names = ", ".join(f'"{lead}"' for lead in STANDARD_LEADS)
    text = f'rate = 800\nunit = "5 uV"\nleads = [{names}]\nsamples = 37855\n'
    record = read_record(with_sidecar(tmp_path / "a.csv", text))
    assert record.leads == STANDARD_LEADS[:6]
    np.testing.assert_allclose(record.signal[:3, 0], [-0.1, -0.125, -0.025], rtol=1e-6)
