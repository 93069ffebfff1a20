"""Reading an ECG file of every format, against 10 ms, and of XML against its parser alone.

    python benchmarks/bench_readers.py

A file holds twelve leads of 10 s at 500 Hz, written by the tests' encoders, and is read through
`read_record` by its path, checksum included. For `parser` the baseline is defusedxml's parser on
the same file, whose aECG has 1,400 elements of annotations, as HL7's example and Philips' exports.
Both sides are run in turn, and the fastest of each counts; on a busy machine read the CPU ratio.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from defusedxml.ElementTree import parse

from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.dicom_write import write_dicom
from einthoven.records.wfdb import write_wfdb
from table import Row, Times, alternately, print_table, speed_row

RATE, SAMPLES = 500, 5000
LIMIT = 0.010  # s
PARSER = 1 / 3
ROUNDS = 30
_HELPERS = str(Path(__file__).resolve().parents[1] / "tests" / "helpers")


def _helper(name: str) -> Any:
    if _HELPERS not in sys.path:
        sys.path.append(_HELPERS)
    return import_module(name)


def _counts() -> Any:
    xml = _helper("xml_files")
    return xml.counts_of(xml.STANDARD, SAMPLES)


def _record() -> Record:
    return Record.from_array(_counts() * 5, rate=RATE, leads=STANDARD_LEADS, unit="uV")


# ------------------------------------------------------------------ files


_ANNOTATION = (
    '<component><annotation><code code="MDC_ECG_WAVC"/><value code="MDC_ECG_WAVC_PWAVE"/><support>'
    '<supportingROI><code code="ROIPS"/><component><boundary><code code="TIME_RELATIVE"/><value>'
    '<low value="380" unit="ms"/></value></boundary></component></supportingROI></support>'
    "</annotation></component>"
)


def _xml(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        xml = _helper("xml_files")
        counts = _counts()[[0, 1, *range(6, 12)]] if name == "muse" else _counts()
        more = {"annotations": 120 * _ANNOTATION} if name == "aecg" else {}
        path: Path = xml.write(folder, getattr(xml, name)(counts, **more))
        return path

    return write


def _wfdb(folder: Path) -> Path:
    write_wfdb(folder / "ecg", _record().signal, rate=RATE, leads=STANDARD_LEADS)
    return folder / "ecg.hea"


def _dicom(folder: Path) -> Path:
    write_dicom(folder / "ecg.dcm", _record())
    return folder / "ecg.dcm"


def _scp(folder: Path) -> Path:
    scp, leads = _helper("scp_files"), (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
    (folder / "ecg.scp").write_bytes(scp.scp_bytes(scp.simple_bodies(_counts(), leads)))
    return folder / "ecg.scp"


def _ishne(folder: Path) -> Path:
    content = _helper("ishne_files").ishne_bytes(_counts(), rate=RATE, codes=range(5, 17))
    (folder / "ecg.ecg").write_bytes(content)
    return folder / "ecg.ecg"


def _edf(folder: Path) -> Path:
    edf = _helper("edf_files")
    channels = [edf.Channel(lead, row) for lead, row in zip(STANDARD_LEADS, _counts(), strict=True)]
    (folder / "ecg.edf").write_bytes(edf.edf_bytes(channels, records=10))
    return folder / "ecg.edf"


def _array(suffix: str, *, leads_in_rows: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        arrays, path = _helper("array_files"), folder / f"ecg{suffix}"
        signal = _record().signal
        if suffix == ".h5":  # the layout of SPH
            with arrays.h5py.File(path, "w") as file:
                file.create_dataset("ecg", data=signal.astype(np.float16), compression="gzip")
        elif suffix == ".mat":  # the layout of CPSC 2018
            ecg = {"sex": "Female", "age": 70.0, "data": signal.astype(float)}
            arrays.savemat(path, {"ECG": ecg}, do_compression=True)
        else:
            leads = ", ".join(f'"{lead}"' for lead in STANDARD_LEADS)
            arrays.with_sidecar(path, f'rate = {RATE}\nunit = "mV"\nleads = [{leads}]\n')
            if suffix == ".npy":
                np.save(path, signal)
            else:
                np.savetxt(path, signal if leads_in_rows else signal.T, fmt="%.3f", delimiter=",")
        return path

    return write


FILES: dict[str, Callable[[Path], Path]] = {
    "WFDB": _wfdb,
    "DICOM": _dicom,
    "SCP-ECG": _scp,
    "ISHNE Holter": _ishne,
    "EDF": _edf,
    "HL7 aECG": _xml("aecg"),
    "GE MUSE": _xml("muse"),
    "GE CardioSoft": _xml("cardiosoft"),
    "Philips Sierra": _xml("philips"),
    "HDF5": _array(".h5"),
    "MATLAB": _array(".mat"),
    "NumPy": _array(".npy"),
    "CSV": _array(".csv"),
    "CSV, a row a lead": _array(".csv", leads_in_rows=True),
}
"""Writers of a file of 10 s of each format."""

AGAINST_THE_PARSER = ("HL7 aECG", "GE MUSE")


# ------------------------------------------------------------------ measurement


def _rows(name: str, folder: Path) -> list[Row]:
    path = FILES[name](folder)

    def ours() -> None:
        read_record(path)

    def parser() -> None:
        parse(path)

    ours()  # imports the reader
    in_xml = name in AGAINST_THE_PARSER
    mine, theirs = alternately(ours, parser if in_xml else ours, ROUNDS)
    note = f"limit on one core; {path.stat().st_size / 1e3:.0f} kB"
    rows = [speed_row(f"read 10 s, {name}", mine, Times(LIMIT, LIMIT), target=1, note=note)]
    if in_xml:
        note = "the XML parser alone"
        rows.append(speed_row(f"parser, {name}", mine, theirs, target=round(PARSER, 2), note=note))
    return rows


def run() -> list[Row]:
    """Measure every format."""
    with TemporaryDirectory() as folder:
        rows = []
        for name in FILES:
            (Path(folder) / name).mkdir()
            rows += _rows(name, Path(folder) / name)
        return rows


def main() -> None:
    """Print the table."""
    print_table(run(), title="Readers")


if __name__ == "__main__":
    main()
