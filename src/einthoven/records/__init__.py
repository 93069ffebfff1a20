"""Files of ECGs become Records: mV, Hz, lead names, source hash. One file a format."""

from einthoven.records.readers import READERS, read_record
from einthoven.records.record import STANDARD_LEADS, Record, canonical_lead

__all__ = ["READERS", "STANDARD_LEADS", "Record", "canonical_lead", "read_record"]
