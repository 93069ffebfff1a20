"""DICOM files of ECGs, written element by element with pydicom."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

TWELVE_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"
HEMODYNAMIC = "1.2.840.10008.5.1.4.1.1.9.2.1"
SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
KINDS = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4"}


def code(value: str, scheme: str = "SCPECG", meaning: str = "") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def channel(lead: Dataset | None, *, unit: str = "uV", **elements: Any) -> Dataset:
    item = Dataset()
    if lead is not None:
        item.ChannelSourceSequence = [lead]
    if unit:
        item.ChannelSensitivityUnitsSequence = [code(unit, "UCUM", unit)]
    item.ChannelSensitivity, item.ChannelSensitivityCorrectionFactor = "5", "1"
    item.ChannelBaseline, item.ChannelSampleSkew = "0", "0"
    return updated(item, elements)


def group(
    samples: np.ndarray,
    channels: Sequence[Dataset],
    *,
    rate: float = 500,
    kind: str = "SS",
    big: bool = False,
    **elements: Any,
) -> Dataset:
    """Multiplex group of samples, shape (samples, channels)."""
    item = Dataset()
    item.WaveformOriginality = "ORIGINAL"
    item.NumberOfWaveformSamples, item.NumberOfWaveformChannels = samples.shape
    item.SamplingFrequency = str(rate)
    item.ChannelDefinitionSequence = list(channels)
    dtype = np.dtype(KINDS[kind]).newbyteorder(">" if big else "<")
    item.WaveformBitsAllocated, item.WaveformSampleInterpretation = 8 * dtype.itemsize, kind
    data = samples.astype(dtype).tobytes()
    item.add_new(
        "WaveformData", "OB" if dtype.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2)
    )
    return updated(item, elements)


def updated(item: Dataset, elements: dict[str, Any]) -> Dataset:
    """Item with further elements, valid or not, and without those that are None."""
    with disable_value_validation():
        for keyword, value in elements.items():
            if value is None:
                delattr(item, keyword)
            elif keyword == "WaveformPaddingValue":
                item.add_new(keyword, "OW", value)
            else:
                setattr(item, keyword, value)
    return item


def data_set(*groups: Dataset, sop_class: str = TWELVE_LEAD, **elements: Any) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, "2.25.1"
    dataset.Modality, dataset.PatientID = "ECG", "P1"
    if groups:
        dataset.WaveformSequence = list(groups)
    return updated(dataset, elements)


def content(dataset: Dataset, syntax: str = "explicit", *, preamble: bool = True) -> bytes:
    """Bytes of a DICOM file; without preamble also without the file's own elements."""
    buffer = io.BytesIO()
    if not preamble:
        encoding = {"implicit_vr": syntax == "implicit", "little_endian": syntax != "big"}
        dataset.save_as(buffer, **encoding)
        return buffer.getvalue()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = SYNTAXES[syntax]
    file = FileDataset(
        "", dataset, file_meta=meta, preamble=b"\0" * 128, is_little_endian=syntax != "big"
    )
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(path: Path, dataset: Dataset, syntax: str = "explicit") -> Path:
    path.write_bytes(content(dataset, syntax))
    return path


def counts(samples: int = 1500, channels: int = 3, *, seed: int = 5, size: int = 200) -> np.ndarray:
    """Integers around 0 of both signs, shape (samples, channels); 0 is among them."""
    values = np.random.default_rng(seed).normal(0, size, (samples, channels)).astype(int)
    values[3] = 0
    return values


def limb_leads() -> list[Dataset]:
    return [
        channel(code("5.6.3-9-1", meaning="Lead I (Einthoven)")),
        channel(code("2:2", "MDC", "Lead II")),
        channel(code("5.6.3-9-61", meaning="III")),
    ]


def sound_dicom(folder: Path) -> Path:
    return write(folder / "sound.dcm", data_set(group(counts(200), limb_leads())))
