"""ECG files as Records: millivolts, hertz, lead names, source hash. One file a format."""

from einthoven.records.file import EcgFile
from einthoven.records.formats import FORMATS, Format, read_record, register_format
from einthoven.records.record import STANDARD_LEADS, Record, canonical_lead

__all__ = [
    "FORMATS",
    "STANDARD_LEADS",
    "EcgFile",
    "Format",
    "Record",
    "canonical_lead",
    "read_record",
    "register_format",
]


def __dir__() -> list[str]:
    return sorted(__all__)
