"""HDF5 files: CODE-15 and its relatives, SPH, and any other with a sidecar.

Sources: Ribeiro et al., Nature Communications 11:1760, 2020, and the data sets CODE-15 %
(doi.org/10.5281/zenodo.4916206) and CODE-test (zenodo.3765780); Liu et al., Scientific Data 9:272,
2022 (SPH).
"""

from __future__ import annotations

import io
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import RecordError
from einthoven.records.file import EcgFile
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.records.sidecar import (
    chosen_array,
    complete_sidecar,
    known_layout,
    member_row,
    member_rows,
    record_of,
    refuse_larger,
    sidecar_of,
    source_hash,
)

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NO_EXAM = "0"  # `exam_id` of the row of zeros at the end of each part of CODE-15
_CODE_TEST = ("I", "II", "III", "aVL", "aVF", "aVR", *STANDARD_LEADS[6:])
"""Order of leads in CODE-test, by its documentation; CODE-15 has the standard one."""
_DEVIATION = 0.2  # of a limb lead from what follows of I and II, as a share of its size
_TRIED = 16  # tracings of a file that may show the order of leads
_DATASETS = 1000
_LIGHT = 64 << 10  # bytes that no compression unpacks to more than 64 MiB
_DAMAGED = "fetch the file again from its source"


def recognises(head: bytes) -> bool:
    """Whether a file begins as an HDF5 file does."""
    return head.startswith(SIGNATURE)


def read(file: EcgFile) -> Record:
    """Read one ECG of an HDF5 file.

    The layouts of CODE-15 (`tracings`, named by `exam_id` or row) and SPH (`ecg`) are known; any
    other is described by a sidecar. One that names the array replaces a known layout.

    Raises
    ------
    RecordError
        If the file is damaged, has another layout and no sidecar, or has no such exam.
    """
    with opened(file) as root:
        if sidecar_of(file).array is None:
            if (tracings := _tracings(root)) is not None:
                return _read_tracing(file, root, tracings)
            if (ecg := _sph(root)) is not None:
                layout = complete_sidecar(file, known_layout(500, STANDARD_LEADS))
                member_row(file, ecg.shape)
                values, digest = values_of(file, ecg), source_hash(file)
                return record_of(file, values, layout, digest=digest, is_documented=True)
        return _read_array(file, root)


def members(file: EcgFile) -> list[str]:
    """Exam ids of CODE-15, row numbers of other arrays of records; one record otherwise."""
    with opened(file) as root:
        tracings = _tracings(root)
        if tracings is not None and sidecar_of(file).array is None:
            exams = _exams(file, root, len(tracings))
            if exams is None:
                return member_rows(tracings.shape)
            return [name for name in exams.astype(str).tolist() if name != _NO_EXAM]
        arrays = datasets(root)
        try:
            name = chosen_array(file, _shapes(arrays), complete_sidecar(file))
        except RecordError:
            return [""]  # SPH, or refused when it is read
        return member_rows(arrays[name].shape)


def _read_array(file: EcgFile, root: Any) -> Record:
    sidecar = complete_sidecar(file)
    arrays = datasets(root)
    dataset = arrays[chosen_array(file, _shapes(arrays), sidecar)]
    row = member_row(file, dataset.shape)
    values = values_of(file, dataset, row)
    content = None if row is None else values.tobytes()
    return record_of(file, values, sidecar, digest=source_hash(file, content))


def _shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: dataset.shape for name, dataset in arrays.items()}


# ---------------------------------------------------------------------- known layouts


def _tracings(root: Any) -> Any | None:
    """Dataset of CODE-15's layout: (exams, 4096 samples, 12 leads)."""
    dataset = _dataset(root, "tracings")
    if dataset is None or dataset.dtype.kind != "f" or dataset.ndim != 3:
        return None
    return dataset if dataset.shape[1:] == (4096, 12) else None


def _sph(root: Any) -> Any | None:
    """Dataset of SPH's layout: (12 leads, samples), 16-bit floats."""
    dataset = _dataset(root, "ecg")
    if dataset is None or dataset.dtype != np.float16 or dataset.ndim != 2:
        return None
    return dataset if dataset.shape[0] == len(STANDARD_LEADS) else None


def _exams(file: EcgFile, root: Any, count: int) -> NDArray[Any] | None:
    """Exam ids of the rows; None if the file has none. RecordError if they are not one each."""
    dataset = _dataset(root, "exam_id")
    if dataset is None:
        return None
    if dataset.shape != (count,) or dataset.dtype.kind not in "iu":
        raise file.refusal(
            "exam_id",
            dataset.shape,
            f"is not a whole number for each of {count} tracings",
            remedy=_DAMAGED,
        )
    return values_of(file, dataset)


def _read_tracing(file: EcgFile, root: Any, tracings: Any) -> Record:
    exams = _exams(file, root, len(tracings))
    if exams is None:
        row = member_row(file, tracings.shape)
    else:
        is_exam = file.member.isdecimal() and file.member[0] != "0" and len(file.member) < 19
        rows = np.flatnonzero(exams == int(file.member)) if is_exam else np.array([], int)
        if len(rows) > 1:
            raise file.refusal(
                "exam_id", file.member, f"names {len(rows)} tracings", remedy=_DAMAGED
            )
        if not len(rows):
            raise file.unknown_member(int((exams != 0).sum()), example=str(exams[0]))
        row = int(rows[0])
    assert row is not None
    values = values_of(file, tracings, row)
    # Shorter recordings lie in the middle of 4,096 samples, and zeros are on both sides.
    recorded = np.flatnonzero((values != 0).any(axis=1))
    if not len(recorded):
        raise file.refusal("samples", 0, "are all zero", remedy="leave out the exam")
    first, last = int(recorded[0]), int(recorded[-1]) + 1
    # The documentation states two scales that exclude each other, 1e-4 V and volts times 1000. The
    # second is millivolts: so say the authors, and so reads PhysioNet's Challenge of 2025.
    layout = complete_sidecar(file, known_layout(400, _order(file, values, tracings)))
    padding = [f"{samples / 400:g}" for samples in (first, len(values) - last)]
    return record_of(
        file,
        values[first:last],
        layout,
        digest=source_hash(file, values.tobytes()),
        statements={"padding_s": " ".join(padding) if first or last < len(values) else None},
        is_documented=True,
    )


def _order(file: EcgFile, values: NDArray[Any], tracings: Any) -> Sequence[str]:
    """Order of the leads: CODE-15's or CODE-test's, whose aVR, aVL and aVF follow from I and II.

    If the tracing does not show it, as with a lead off, other tracings of the file do.
    """
    rows = np.unique(np.linspace(0, len(tracings) - 1, _TRIED).astype(int)).tolist()
    for row in (None, *rows):
        tracing = values if row is None else values_of(file, tracings, row)
        fitting = [order for order in (STANDARD_LEADS, _CODE_TEST) if _follows(tracing, order)]
        if len(fitting) == 1:
            return fitting[0]
    raise file.refusal(
        "order of leads",
        None,
        "is neither CODE-15's nor CODE-test's: aVR, aVL and aVF do not follow from I and II",
        remedy='state array = "tracings", rate, unit and leads in a sidecar',
    )


def _follows(tracing: NDArray[Any], order: Sequence[str]) -> bool:
    leads = dict(zip(order, tracing.T.astype(np.float64), strict=True))
    one, two = leads["I"], leads["II"]
    expected = {"aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    sizes = {lead: float(np.std(values)) for lead, values in expected.items()}
    return all(
        sizes[lead] > 0 and float(np.std(leads[lead] - values)) <= _DEVIATION * sizes[lead]
        for lead, values in expected.items()
    )


# ---------------------------------------------------------------------- any HDF5 file


@contextmanager
def opened(file: EcgFile) -> Iterator[Any]:
    """Root of an HDF5 file; every exception of the library becomes a RecordError."""
    import h5py

    source = file.name if file.data is None else io.BytesIO(file.data)
    if not file.head:  # RecordError for anything but a readable file
        raise file.refusal("content", None, "is empty", remedy=_DAMAGED)
    try:
        with h5py.File(source, "r", locking=False) as root:
            yield root
    except RecordError:
        raise
    except Exception as error:  # a damaged file raises any kind
        raise file.refusal(
            "content", None, f"is damaged: {error or type(error).__name__}", remedy=_DAMAGED
        ) from None


def datasets(root: Any) -> dict[str, Any]:
    """Datasets of numbers in a file by their path, at most 1,000; links to files are left out."""
    import h5py

    numeric: dict[str, Any] = {}

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and 0 < item.ndim < 4:
            numeric[name] = item
        return True if len(numeric) == _DATASETS else None

    root.visititems(visit)
    return numeric


def _dataset(root: Any, name: str) -> Any | None:
    import h5py

    if not isinstance(root.get(name, getlink=True), h5py.HardLink):
        return None  # a link could lead to another file
    item = root[name]
    return item if isinstance(item, h5py.Dataset) else None


def values_of(file: EcgFile, dataset: Any, row: int | None = None) -> NDArray[Any]:
    """Values of a dataset, or of one of its rows.

    Raises
    ------
    RecordError
        If they are no numbers, lie in another file, were not written completely, or are far larger
        than what is stored.
    """
    name, size = dataset.name, dataset.dtype.itemsize
    if dataset.dtype.kind not in "iuf" or dataset.is_virtual or dataset.external:
        raise file.refusal(
            name,
            str(dataset.dtype),
            "must be numbers that lie in the file itself",
            remedy="store the samples in one HDF5 file",
        )
    allocated = int(dataset.id.get_storage_size())
    length = math.prod(dataset.shape if row is None else dataset.shape[1:]) * size
    refuse_larger(file, name, length, allocated)
    if dataset.chunks is None:
        written = allocated >= math.prod(dataset.shape) * size
    else:
        refuse_larger(file, f"{name} in pieces", math.prod(dataset.chunks) * size, allocated)
        pieces = [
            -(-samples // piece)
            for samples, piece in zip(dataset.shape, dataset.chunks, strict=True)
        ]
        written = dataset.id.get_num_chunks() == math.prod(pieces)
        _refuse_overfull(file, dataset, row, pieces)
    if not written:  # HDF5 would fill up with zeros
        raise file.refusal(
            name, dataset.shape, "has samples that were never written", remedy=_DAMAGED
        )
    return np.asarray(dataset[()] if row is None else dataset[row])


def _refuse_overfull(file: EcgFile, dataset: Any, row: int | None, pieces: Sequence[int]) -> None:
    """Refuse compressed pieces that unpack to more than a piece: HDF5 would allocate all of it."""
    from h5py import h5z

    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(place)[0] for place in range(properties.get_nfilters())]
    if h5z.FILTER_DEFLATE not in filters:
        return
    largest = math.prod(dataset.chunks) * dataset.dtype.itemsize
    offsets: list[tuple[int, ...]] = []  # of pieces that may unpack to more than 64 MiB
    if row is None:
        dataset.id.chunk_iter(
            lambda piece: offsets.append(piece.chunk_offset) if piece.size > _LIGHT else None
        )
    else:
        first = row // dataset.chunks[0] * dataset.chunks[0]
        steps = zip(pieces[1:], dataset.chunks[1:], strict=True)
        grid = itertools.product(*(range(0, count * step, step) for count, step in steps))
        size_at = dataset.id.get_chunk_info_by_coord
        offsets = [(first, *rest) for rest in grid if size_at((first, *rest)).size > _LIGHT]
    for offset in offsets:
        _, packed = dataset.id.read_direct_chunk(offset)
        if len(zlib.decompressobj().decompress(packed, largest + 1)) > largest:
            raise file.refusal(
                dataset.name, offset, "unpacks to more than its size", remedy=_DAMAGED
            )
    if filters.count(h5z.FILTER_DEFLATE) > 1:
        raise file.refusal(
            dataset.name, filters, "is compressed twice", remedy="compress it once, with gzip"
        )
