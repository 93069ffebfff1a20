"""What is wrong with an installation, an ECG file, a cohort or a store, in plain lines."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from einthoven.errors import BackboneError
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.formats import is_record
from einthoven.version import __version__

if TYPE_CHECKING:
    from einthoven.signals.store import Store


def installation() -> list[str]:
    """Versions, devices and what is optional."""
    import torch

    packages = ("torch", "numpy", "scipy", "pandas", "wfdb", "safetensors", "accelerate")
    lines = [f"einthoven {__version__}"]
    lines += [f"  {name} {metadata.version(name)}" for name in packages]
    lines.append(f"processors: {os.cpu_count()}, threads of torch: {torch.get_num_threads()}")
    lines.append(
        f"GPU: {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "GPU: none"
    )
    compiled = importlib.util.find_spec("numba") is not None
    lines.append(
        "bootstrap: compiled (extra `fast`)"
        if compiled
        else "bootstrap: tensor path; pip install 'einthoven[fast]' compiles it"
    )
    return lines


def examine(
    path: Path,
    *,
    backbone: str | None = None,
    options: Mapping[str, Any] | None = None,
    centred: bool = False,
    labels: Sequence[str] | None = None,
    picture: Path | None = None,
) -> list[str]:
    """Findings about a cohort folder, a store or an ECG file.

    Parameters
    ----------
    path : Path
        What to look at.
    backbone : str, optional
        For an ECG file: say what this backbone's preparation makes of it.
    options : mapping, optional
        Fields of its config.
    centred : bool
        Whether each lead's mean is taken out first, as for `einthoven-small`.
    labels : sequence of str, optional
        For an own table: its label columns.
    picture : Path, optional
        Draw it before and after there: .png, .svg, or .html with the findings.

    Raises
    ------
    BackboneError
        When a backbone's view is asked of something that is no ECG file.
    EinthovenError
        When it cannot be read at all.
    """
    is_store = (path / "store.json").is_file()
    if is_store or path.is_dir() or path.suffix in (".csv", ".parquet"):
        if backbone is not None or picture is not None:
            raise BackboneError(
                f"{path} holds many ECGs, and a backbone's view is of one",
                remedy="name an ECG file, or leave --backbone and --picture out",
            )
        return list(_examine_store(path) if is_store else _examine_cohort(path, labels))
    record = read_record(path)
    lines = list(_examine_record(record))
    if backbone is not None:
        from einthoven.inspection import inspect

        # A picture is handed around: what the file is called stays here.
        findings = [line.removeprefix(f"{record.source}: ") for line in lines]
        how: Any = {"options": options, "centred": centred}
        lines += inspect(record, backbone, **how, findings=findings, picture=picture)
    elif picture is not None:
        raise BackboneError("a picture shows a backbone's input", remedy="add --backbone NAME")
    return lines


def _examine_record(record: Record) -> Iterator[str]:
    yield f"{record.source}: {len(record.leads)} leads, {record.duration:g} s at {record.rate:g} Hz"
    yield f"  leads {' '.join(record.leads)}; SHA-256 {record.source_hash[:16]}..."
    missing = [lead for lead in STANDARD_LEADS if lead not in record.leads]
    if missing:
        yield f"  warning: leads {' '.join(missing)} are missing"
    yield from _size(record)
    yield from _offsets(record)
    yield from _mains(record)
    yield from _limb_leads(record)


def _size(record: Record) -> Iterator[str]:
    from einthoven.signals.quality import doubts, size_of

    size = size_of(record)
    if size is not None:
        yield f"  amplitude {size.low:.2f} to {size.high:.2f} mV"
    yield from (f"  warning: {said}" for said in doubts(record, size))


def _offsets(record: Record) -> Iterator[str]:
    from einthoven.signals.quality import offset_text, offsets

    away = offsets(record)
    if away:
        yield f"  warning: {offset_text(away)}: an offset"


def _mains(record: Record) -> Iterator[str]:
    from einthoven.signals.quality import mains_hum

    hum = mains_hum(record)
    if hum is not None:
        yield (
            f"  warning: {hum.frequency:g} Hz from the mains in {' '.join(hum.leads)}, "
            f"up to {max(hum.leads.values()):.2f} mV"
        )


def _limb_leads(record: Record) -> Iterator[str]:
    """Einthoven's law, III = II - I: leads that were exchanged or scaled apart break it."""
    if not {"I", "II", "III"} <= set(record.leads):
        return
    one, two, three = (record.signal[record.leads.index(lead)] for lead in ("I", "II", "III"))
    distance = np.abs(three - (two - one))
    known = distance[np.isfinite(distance)]
    if not len(known):
        return
    gap = float(known.max())
    yield f"  Einthoven's law: III differs from II - I by at most {gap:.3f} mV"
    if gap > 0.1:
        yield "  warning: the limb leads do not fit together (exchanged, filtered or scaled apart)"


def _examine_cohort(path: Path, labels: Sequence[str] | None) -> Iterator[str]:
    from einthoven.cohorts import SPLITS, open_cohort

    options: dict[str, Any] = {"labels": labels} if labels else {}
    cohort = open_cohort(path, **options)
    patients = len(np.unique(cohort.patients()))
    yield f"{path}: {cohort.name} {cohort.version}, {len(cohort)} records of {patients} patients"
    yield "  " + ", ".join(f"{split} {len(cohort.ids(split))}" for split in SPLITS)
    yield f"  {len(cohort.labels)} labels; no patient is in two splits"
    counts = cohort.counts()
    for split in SPLITS:
        absent = counts.index[counts[split] == 0].tolist()
        if absent:
            yield f"  warning: {split} has no record of {len(absent)} labels: {absent[:8]}"
    missing = [file for file in cohort.paths() if not is_record(file)]
    if missing:
        yield f"  warning: {len(missing)} records have no file, first {missing[0]}"
    yield "  signals were not read: `einthoven pack` reads and checks every one of them"


def _examine_store(path: Path) -> Iterator[str]:
    from einthoven.signals.store import Store

    store = Store.open(path)
    yield f"{path}: {len(store)} records of {store.manifest['name']} {store.manifest['version']}"
    yield f"  leads {' '.join(store.leads)}; every shard has the size that was packed"
    rates = store.index["rate"].value_counts()
    yield "  " + ", ".join(f"{count} records at {rate:g} Hz" for rate, count in rates.items())
    for note, count in store.index["notes"].value_counts().head(5).items():
        if note:
            yield f"  note: {count} records {note}"
    yield from _duplicates(store)
    for row in store.quarantine.head(5).itertuples():
        yield f"  quarantine: {row.record}: {row.reason}"


def _duplicates(store: Store) -> Iterator[str]:
    """Recordings that are there under several names."""
    import pandas as pd

    from einthoven.signals.fingerprint import signal_fingerprints

    known = pd.Series(signal_fingerprints(store, np.arange(len(store)), store.leads))
    twice = known[known.duplicated(keep=False) & (known != 0)].sort_values(kind="stable")
    if len(twice):
        names = store.index.index[twice.index[twice == twice.iloc[0]]]
        yield (
            f"  warning: {twice.nunique()} recordings are there more than once, sample for sample, "
            f"such as {' and '.join(map(repr, map(str, names[:3])))}: one patient, or one too many?"
        )
