"""SCP-ECG files, in which electrocardiographs store and exchange resting ECGs.

Source: EN 1064, also ISO 11073-91064. Sections and fields have their names there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from einthoven.records.file import EcgFile
from einthoven.records.lead_codes import LEADS
from einthoven.records.rates import roundest_rate
from einthoven.records.record import Record
from einthoven.records.scp_metadata import metadata_of, patient_of
from einthoven.records.scp_samples import Lead, voltages
from einthoven.records.scp_sections import Section, Sections

_LEAST_SHARE = 16  # a sixteenth: twelve leads may follow each other


def read(file: EcgFile) -> Record:
    """Read an SCP-ECG file in millivolts.

    Parameters
    ----------
    file : EcgFile
        The ECG.

    Returns
    -------
    Record
        Float32 mV of the rhythm data (section 6), with the reference beat (section 5) where it was
        subtracted; samples between decimated ones (bimodal compression) are interpolated. A lead is
        NaN while only others were recorded. Leads that follow from others are not computed.

    Raises
    ------
    RecordError
        If a checksum fails, a section is missing or contradicts another, or a lead has fewer
        samples than it announces.
    """
    sections = Sections.of(file)
    definition = sections.required(3)
    leads = _leads(definition)
    values, interval = voltages(sections, leads)
    return Record.create(
        _together(definition, leads, values),
        roundest_rate(interval * 1e-6, 1e-6),
        leads=[lead.name for lead in leads],
        name=file.label,
        patient=patient_of(sections),
        source=file.name,
        source_hash=file.sha256,
        metadata=metadata_of(sections),
    )


def _leads(section: Section) -> list[Lead]:
    (number,) = section.unpack("B")
    leads = []
    for row in range(number):
        first, last, code = section.unpack("IIB", 2 + 9 * row)
        name = LEADS.get(code, f"lead {code}")
        if not 1 <= first <= last:
            raise section.refusal(f"samples of {name}", (first, last), "is no range from 1")
        leads.append(Lead(name, first - 1, last))
    if not leads:
        raise section.refusal("number of leads", 0, "there is no ECG in the file")
    return leads


def _together(
    section: Section, leads: list[Lead], values: list[NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Float32 mV of shape (leads, samples) from nV; NaN where a lead was not recorded."""
    start, stop = min(lead.start for lead in leads), max(lead.stop for lead in leads)
    total = sum(map(len, values))
    if stop - start > total or (stop - start) * len(leads) > _LEAST_SHARE * total:
        reason = f"the leads have {total} of them together, and would be nearly empty"
        raise section.refusal("samples", (start + 1, stop), reason)
    signal = np.full((len(leads), stop - start), np.nan, np.float32)
    for row, lead, nanovolts in zip(signal, leads, values, strict=True):
        row[lead.start - start : lead.stop - start] = nanovolts / 1e6
    signal.flags.writeable = False
    return signal
