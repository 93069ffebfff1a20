"""Descriptions of and findings about an installation, an ECG file, a cohort or a store.

A line is a text that describes, or a `Finding`, whose level says what follows from it: something
with an unusable finding cannot be used as a whole.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from einthoven import __version__
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import create_backbone, entry
from einthoven.cohorts import is_cohort
from einthoven.errors import BackboneError, EinthovenError, RecordError, listed
from einthoven.files import STORE_FILE
from einthoven.records import STANDARD_LEADS, Record, quality
from einthoven.records.calibration import without_calibration
from einthoven.records.formats import Stretches, format_of, is_record, read_stretches, records_of
from einthoven.records.limb_leads import contradiction
from einthoven.records.quality import LEVELS, Finding, Level
from einthoven.report.format import counted
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import evaluation_seconds, prepare_record, seconds_left_out
from einthoven.signals.steps import Fill

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.signals.store import Store
    from einthoven.tasks import Task

__all__ = ["duplicates", "examine", "inspect", "installation", "text_of"]


def __dir__() -> list[str]:
    return sorted(__all__)


Line = str | Finding
PACKAGES = ("torch", "numpy", "scipy", "pandas", "wfdb", "safetensors", "accelerate")
_PREFIXES = {"unusable": "warning: unusable", "doubt": "warning", "note": "note"}
_WINDOW_SHARE = 0.01  # of a record that evaluation crops may leave out without a warning
_EXAMPLES = 5
_READ = 50  # records of a cohort


def text_of(line: Line) -> str:
    """A line as text; a finding begins with its level, a doubt with `warning:`."""
    return line if isinstance(line, str) else f"  {_PREFIXES[line.level]}: {line.text}"


def installation() -> list[str]:
    """List versions, processors and GPUs."""
    lines = [f"einthoven {__version__}"]
    lines += [f"  {name} {metadata.version(name)}" for name in PACKAGES]
    lines.append(f"processors: {os.cpu_count()}, PyTorch threads: {torch.get_num_threads()}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [*lines, f"GPU: {', '.join(gpus) or 'none'}"]


def examine(
    path: Path,
    *,
    backbone: str | None = None,
    options: Mapping[str, Any] | None = None,
    centred: bool = False,
    task: Task | str | None = None,
    picture: Path | None = None,
) -> list[Line]:
    """Examine a cohort with the targets of a task, a store or an ECG file.

    The other options are for an ECG file, as in `inspect`. Returns descriptions and findings, in
    the order of a reader. Raises BackboneError if a backbone or a picture is requested for anything
    but an ECG file, and EinthovenError if the path cannot be read.
    """
    is_store = (path / STORE_FILE).is_file()
    is_many = is_store or is_cohort(path)
    members = [] if is_many else records_of(path)
    if is_many or len(members) > 1:
        if backbone is not None or picture is not None:
            raise BackboneError(
                f"{path} holds many ECGs; a backbone's input can be shown for one",
                remedy=f"name one, such as {members[0]}, or leave out `backbone=...` and "
                "`picture=...`"
                if members
                else "name an ECG file, or leave out `backbone=...` and `picture=...`",
            )
        if members:
            return [f"{path}: {counted(len(members), 'record')}", *_examine_signals(members, None)]
        return list(_examine_store(path) if is_store else _examine_cohort(path, task))
    recording = read_stretches(path, quality.STRETCHES)
    lines = list(_examine_recording(recording))
    record = recording.records[len(recording.records) // 2]
    if backbone is not None:
        # A picture is passed on to other people, so it does not contain the file's name.
        findings = [text_of(line).removeprefix(f"{record.source}: ") for line in lines]
        lines += inspect(
            record, backbone, options=options, centred=centred, findings=findings, picture=picture
        )
    elif picture is not None:
        raise BackboneError("a picture shows a backbone's input", remedy="add `backbone=NAME`")
    return lines


def _examine_recording(recording: Stretches) -> Iterator[Line]:
    record, records = recording.records[0], recording.records
    leads = counted(len(record.leads), "lead")
    yield f"{record.source}: {leads}, {recording.duration:.10g} s at {record.rate:g} Hz"
    yield f"  leads {' '.join(record.leads)}; SHA-256 {record.source_hash[:16]}..."
    missing = [lead for lead in STANDARD_LEADS if lead not in record.leads]
    if missing:
        yield Finding("no-lead", "doubt", f"leads {' '.join(missing)} are missing", tuple(missing))
    if len(records) > 1:
        starts = ", ".join(f"{start:.10g}" for start in recording.starts)
        yield f"  examined: {len(records)} stretches of {record.duration:g} s, from {starts} s"
    ecgs = [without_calibration(record) for record in records]
    amplitudes = [x for ecg in ecgs if (x := quality.amplitude_of(ecg)) is not None]
    if amplitudes:
        low, high = min(x.low for x in amplitudes), max(x.high for x in amplitudes)
        yield f"  amplitude {low:z.2f} to {high:z.2f} mV"
    limbs = [limb.millivolts for ecg in ecgs if (limb := contradiction(ecg)) is not None]
    if limbs:
        yield f"  limb leads: up to {max(limbs):.3f} mV from Einthoven's law"
    findings = [quality.findings(each) for each in records]
    if len(records) > 1:
        findings = [quality.of_stretches(recording.starts, findings)]
    yield from findings[0]


def _of_parts(name: str, level: Level, text: str, *, in_all: bool) -> Finding:
    """A finding on parts of a whole, which is unusable only if all of them are."""
    if level == "unusable" and not in_all:
        return Finding(name, "doubt", f"unusable: {text}")
    return Finding(name, level, text)


def _examine_cohort(path: Path, task: Task | str | None) -> Iterator[Line]:
    from einthoven.cohorts import SPLITS, open_cohort, without_labels
    from einthoven.cohorts.cohort import SMALL

    cohort = open_cohort(path, task)
    records = counted(len(cohort), "record")
    has_patients = bool((cohort.patients() != cohort.table["path"]).any())
    patients = counted(len(np.unique(cohort.patients())), "patient")
    version = f" {cohort.version}" if cohort.version else ""
    yield f"{path}: {cohort.name}{version}, {records}" + f" of {patients}" * has_patients
    if cohort.has_splits or cohort.labels:
        yield "  " + ", ".join(f"{split} {len(cohort.ids(split))}" for split in SPLITS)
    form = cohort.target.behaviour.form
    if cohort.labels:
        yield f"  {_outputs(form, len(cohort.labels))}; every patient is in one split only"
    else:
        yield f"  no labels; to train a model: {without_labels(cohort, path).remedy}"
    for reason, count in cohort.left_out.items() if task is not None or path.is_file() else ():
        yield f"  left out: {counted(count, 'record')} {reason}"
    for label in cohort.labels if task is not None or path.is_file() else ():
        yield f"  {label}: {_targets(cohort, label)}"
    if cohort.labels and len(cohort) < SMALL:
        yield f"  fewer than {SMALL:,} records: cross-validate (posttrain with `folds=5`)"
    counts = cohort.counts()
    for split in SPLITS:
        without = counts.index[counts[split] == 0].tolist()
        if without:
            what = "known number" if form == "values" else "positive record"
            number = _outputs(form, len(without))
            text = f"no {what} in {split}: {number} ({listed(without)})"
            yield Finding("no-target", "doubt", text)
    files = cohort.paths()
    present = [file for file in files if is_record(file)]
    readable = {*present}
    if missing := [file for file in files if file not in readable]:
        column = "; the column `path` is relative to the table's folder" * path.is_file()
        number = f"{len(missing):,} of {counted(len(files), 'ECG file')}"
        text = f"{number} not found: {listed(missing)}{column}"
        yield Finding("no-file", "doubt" if present else "unusable", text)
    yield from _examine_signals(present, cohort.root)


def _examine_signals(paths: Sequence[Path], root: Path | None) -> Iterator[Line]:
    """Formats, rates, leads, durations and findings of some records, spread over all of them."""
    if not paths:
        return
    places = np.unique(np.linspace(0, len(paths) - 1, min(_READ, len(paths))).astype(int))
    properties: dict[str, Counter[str]] = {
        name: Counter() for name in ("format", "rate", "leads", "duration")
    }
    records: dict[tuple[int, str], list[str]] = {}
    refused: dict[str, list[RecordError]] = {}
    for path in (paths[place] for place in places):
        try:
            recording = read_stretches(path, 1, root=root)
        except RecordError as error:
            refused.setdefault(error.problem.removeprefix(error.file), []).append(error)
            continue
        record = recording.records[0]
        leads = " ".join(record.leads)
        if {*record.leads} == {*STANDARD_LEADS}:
            leads = "the standard 12"
        duration = f"{recording.duration:.6g} s"
        values = (format_of(path).name, f"{record.rate:g} Hz", leads, duration)
        for counter, value in zip(properties.values(), values, strict=True):
            counter[value] += 1
        name = str(path.relative_to(root) if root and path.is_relative_to(root) else path)
        for finding in {(x.level, x.name) for x in quality.findings(record)}:
            records.setdefault((LEVELS.index(finding[0]), finding[1]), []).append(name)
    if len(places) == len(paths):
        yield f"  signals: {counted(len(paths), 'record')} read"
    else:
        yield f"  signals: {len(places)} of {len(paths):,} records read; `pack` reads each of them"
    for name, counter in properties.items():
        common = [f"{value} ({count})" for value, count in counter.most_common()]
        if common:
            yield f"  {name}: {listed(common)}"
    read = properties["format"].total()
    for (level, kind), names in sorted(records.items()):
        text = f"{kind} in {counted(len(names), 'record')}, such as {names[0]}"
        yield _of_parts(kind, LEVELS[level], text, in_all=len(names) == read)
    for errors in refused.values():
        such_as = f"{counted(len(errors), 'record')}, such as " if len(errors) > 1 else ""
        text = f"refused: {such_as}{errors[0].problem}; {errors[0].remedy}"
        yield Finding("refused", "doubt", text)
    if not read:
        text = f"all records that were read are refused ({len(places)} of {len(paths):,})"
        yield Finding("refused", "unusable", text)


def _outputs(form: str, number: int) -> str:
    """`1 label`, `3 classes`."""
    noun = {"labels": "label", "values": "number"}.get(form, "class")
    return f"{number} classes" if noun == "class" and number != 1 else counted(number, noun)


def _targets(cohort: Cohort, label: str) -> str:
    """Records and patients of a label, class or number, and how many are not known."""
    values = cohort.matrix[:, cohort.labels.index(label)]
    unknown = int(np.isnan(values).sum())
    more = f", {unknown:,} not known" if unknown else ""
    is_number = cohort.target.behaviour.form == "values"
    held = ~np.isnan(values) if is_number else values == 1
    carriers = counted(len(np.unique(cohort.patients()[held])), "patient")
    if is_number and not held.any():
        return "not known of any record"
    if is_number:
        unit = cohort.target.units(len(cohort.labels))[cohort.labels.index(label)]
        limits = f"{np.nanmin(values):g} to {np.nanmax(values):g} {unit}".rstrip()
        return f"{limits} in {counted(int(held.sum()), 'record')} of {carriers}{more}"
    if cohort.target.behaviour.form == "classes":
        return f"{counted(int(held.sum()), 'record')} of {carriers}"
    negatives = f", {int((values == 0).sum()):,} negative"
    return f"{counted(int(held.sum()), 'positive record')} of {carriers}{negatives}{more}"


def _examine_store(path: Path) -> Iterator[Line]:
    from einthoven.signals.pack import DERIVED, ROUNDED
    from einthoven.signals.store import Store, store_amplitude

    store = Store.open(path)
    records = counted(len(store), "record")
    yield f"{path}: {records} of {store.manifest['name']} {store.manifest['version']}".rstrip()
    yield f"  leads {' '.join(store.leads)}; every shard has its original size"
    rates = store.index["rate"].value_counts()
    yield "  " + ", ".join(f"{counted(n, 'record')} at {rate:g} Hz" for rate, n in rates.items())
    for kind, names in store.noted().items():
        text = f"{kind}: {counted(len(names), 'record')}, such as {names[0]}"
        yield Finding(kind, "note" if kind in (ROUNDED, DERIVED) else "doubt", text)
    if (finding := store_amplitude(store)) is not None:
        yield finding
    if (finding := duplicates(store)) is not None:
        yield finding
    for row in store.quarantine.head(_EXAMPLES).itertuples():
        yield f"  quarantine: {row.record}: {row.reason}"


def duplicates(store: Store) -> Finding | None:
    """Find recordings that a store holds under several names; None without any."""
    import pandas as pd

    from einthoven.stages.leakage import compared_leads, signal_fingerprints

    leads = compared_leads(store.leads)
    fingerprints = pd.Series(signal_fingerprints(store, np.arange(len(store)), leads))
    repeated = fingerprints[fingerprints.duplicated(keep=False) & (fingerprints != 0)]
    repeated = repeated.sort_values(kind="stable")
    if not len(repeated):
        return None
    names = store.index.index[repeated.index[repeated == repeated.iloc[0]]]
    text = (
        f"identical samples under several names: {counted(repeated.nunique(), 'recording')}, "
        f"for example {' and '.join(map(repr, map(str, names[:3])))}"
    )
    return Finding("duplicates", "doubt", text)


# ---------------------------------------------------------------------- a backbone's input


def inspect(
    record: Record,
    backbone: str,
    *,
    options: Mapping[str, Any] | None = None,
    centred: bool = False,
    findings: Sequence[str] = (),
    picture: Path | None = None,
) -> list[Line]:
    """Prepare a record for a backbone and list what the preparation changes, lacks or leaves out.

    Returns descriptions and findings, the last of them unusable if the backbone refuses the record.
    Raises BackboneError if the name or an option is unknown, and FileError if the picture cannot be
    written.

    Parameters
    ----------
    centred : bool
        Subtract the mean of each lead first, as the preparation of `einthoven-small` does.
    findings : sequence of str
        Earlier lines about the record, printed first on a page.
    picture : Path, optional
        Draw the record before and after preparation to this .png, .svg or .html file; the page
        includes the findings.
    """
    network = _without_weights(backbone, **(options or {}))
    full = network.preparation.centred() if centred else network.preparation
    lines: list[Line] = [f"for {backbone}: {full.describe()}"]
    try:
        preparation, notes = _for_leads(network, record, options or {})
        preparation = preparation.centred() if centred else preparation
        lines += [*notes, *_gaps(preparation, record, backbone)]
        crops = prepare_record(preparation, record).numpy()
    except EinthovenError as error:
        return [*lines, Finding("refused", "unusable", str(error))]
    lines += [*_window(preparation, record), *_artefacts(preparation, record)]
    lines += _flat(preparation, record, crops[0])
    lines.append(
        f"  {counted(len(crops), 'crop')} of {crops.shape[1]} leads x {crops.shape[2]} samples, "
        f"mean {crops.mean():+.3f}, standard deviation {crops.std():.3f}"
    )
    if picture is not None:
        from einthoven.report.page import before_and_after

        before_and_after(
            record,
            crops[0],
            preparation.leads,
            rate=preparation.rate,
            file=picture,
            start=evaluation_seconds(preparation, record)[0][0],
            title=f"An ECG as {backbone} receives it",
            findings=[*findings, *map(text_of, lines)],
        )
        lines.append(f"  picture: {picture}")
    return lines


def _without_weights(name: str, **options: Any) -> Backbone:
    with torch.device("meta"):
        return create_backbone(name, **options)


def _for_leads(
    network: Backbone, record: Record, options: Mapping[str, Any]
) -> tuple[Preparation, list[Line]]:
    """Fit the preparation to the record's leads, and describe how missing ones are treated."""
    preparation = network.preparation.deriving(record.leads)
    missing = [lead for lead in preparation.sources if lead not in record.leads]
    present = tuple(lead for lead in network.leads if lead in record.leads)
    if missing and not present:
        raise BackboneError(
            f"{record.name} has none of the leads of {network.name}: {', '.join(network.leads)}",
            remedy="choose a record with some of these leads, or another backbone",
        )
    if missing:
        preparation = _without_weights(network.name, **{**options, "leads": present}).preparation
    notes: list[Line] = []
    if preparation.derived:
        notes.append(f"  leads {' '.join(preparation.derived)} are computed from the others, in mV")
    if missing:
        text = (
            f"leads {' '.join(missing)} are missing and cannot be computed; built for "
            f"the others (`leads={present}`), {entry(network.name).missing_leads}"
        )
        notes.append(Finding("no-lead", "doubt", text, tuple(missing)))
    return preparation, notes


def _gaps(preparation: Preparation, record: Record, backbone: str) -> Iterator[Finding]:
    """Frequencies and samples that the record lacks."""
    if record.rate < preparation.rate:
        text = (
            f"{record.rate:g} Hz is below the {preparation.rate:g} Hz of {backbone}: "
            f"resampling adds nothing above {record.rate / 2:g} Hz"
        )
        yield Finding("rate", "doubt", text)
    rows = [record.leads.index(lead) for lead in preparation.sources]
    lost = [record.leads[row] for row in rows if not np.isfinite(record.signal[row]).all()]
    fills = [str(step) for step in preparation.steps if isinstance(step, Fill)]
    if lost and fills:
        yield Finding("missing", "doubt", f"{' '.join(lost)}: {fills[0]}", tuple(lost))


def _window(preparation: Preparation, record: Record) -> Iterator[Finding]:
    seconds = preparation.window / preparation.rate
    if record.duration < seconds - 0.5 / record.rate:
        text = f"{record.duration:g} s is shorter than the window of {seconds:g} s"
        yield Finding("window", "doubt", f"{text}; zeros fill the rest")
        return
    left_out = seconds_left_out(preparation, record)
    if left_out > _WINDOW_SHARE * record.duration:
        count = len(evaluation_seconds(preparation, record))
        text = f"{count} evaluation crops of {seconds:g} s leave out {left_out:.3g} s"
        yield Finding("window", "doubt", f"{text} of the record's {record.duration:g} s")


def _artefacts(preparation: Preparation, record: Record) -> Iterator[Line]:
    """Whether the preparation removes mains hum and offsets."""
    hum = quality.mains_hum(record)
    artefacts: dict[str, tuple[str, bool]] = {}
    if hum is not None and not set(hum.leads).isdisjoint(preparation.sources):
        is_removed = _removes(preparation, hum.frequency)
        artefacts["mains-hum"] = f"{hum.frequency:g} Hz mains hum", is_removed
    if not set(quality.offsets(record)).isdisjoint(preparation.sources):
        artefacts["offset"] = "offset", not preparation.passes_offsets
    for name, (artefact, is_removed) in artefacts.items():
        if is_removed:
            yield f"  the preparation removes the {artefact}"
        else:
            yield Finding(name, "doubt", f"the preparation keeps the {artefact}")


def _removes(preparation: Preparation, frequency: float) -> bool:
    if preparation.rate <= 2 * frequency:
        return True
    return any(step.removes(frequency) for step in preparation.steps)


def _flat(preparation: Preparation, record: Record, crop: np.ndarray) -> Iterator[Finding]:
    for lead, row in zip(preparation.leads, crop, strict=True):
        if lead in record.leads and np.ptp(record.signal[record.leads.index(lead)]) == 0:
            text = f"{lead} is flat; the network receives {np.median(row):.3g}"
            yield Finding("flat", "doubt", text, (lead,))
