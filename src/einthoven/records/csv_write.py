"""Write an ECG as CSV, a column a lead, with the sidecar that describes it."""

from __future__ import annotations

import json
import re
from io import BytesIO

import pyarrow as pa
import pyarrow.csv

from einthoven.records.metadata import KEYS
from einthoven.records.record import Record

_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")


def csv_content(record: Record) -> tuple[bytes, bytes]:
    """CSV file of millivolts, exact in float32, and TOML file of rate, unit, leads and metadata.

    Of the metadata, the names in `KEYS` are written, which are those of a sidecar.
    """
    buffer = BytesIO()
    pyarrow.csv.write_csv(pa.table(dict(zip(record.leads, record.signal, strict=True))), buffer)
    lines = [
        f"rate = {record.rate!r}",
        'unit = "mV"',
        f"leads = {json.dumps(list(record.leads), ensure_ascii=False)}",
        f"samples = {record.signal.shape[1]}",
    ]
    if record.patient:
        lines.append(f"patient = {_quoted(record.patient)}")
    statements = [
        f"{key} = {_quoted(text)}" for key, text in record.metadata.items() if key in KEYS
    ]
    if statements:
        lines += ["\n[metadata]", *statements]
    return buffer.getvalue(), "\n".join([*lines, ""]).encode()


def _quoted(text: str) -> str:
    """A string of TOML, which has the escapes of JSON."""
    lines = (_UNPRINTABLE.sub(" ", line) for line in text.splitlines())
    return json.dumps("\n".join(lines), ensure_ascii=False)
