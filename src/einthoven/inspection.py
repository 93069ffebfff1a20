"""What a backbone's preparation makes of one record, what it leaves out, and what it makes up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import create_backbone, entry
from einthoven.errors import BackboneError, EinthovenError
from einthoven.records import Record
from einthoven.signals.prepare import (
    Fill,
    Filter,
    Fir,
    Preparation,
    evaluation_seconds,
    prepare_record,
    seconds_left_out,
)
from einthoven.signals.quality import mains_hum, offsets

__all__ = ["inspect"]


def inspect(
    record: Record,
    backbone: str,
    *,
    options: Mapping[str, Any] | None = None,
    centred: bool = False,
    findings: Sequence[str] = (),
    picture: Path | None = None,
) -> list[str]:
    """Prepare a record as a backbone would have it, and say what became of it.

    Parameters
    ----------
    record : Record
        As it was read.
    backbone : str
        A registered name.
    options : mapping, optional
        Fields of its config.
    centred : bool
        Take each lead's mean out first, as `data.centre` does.
    findings : sequence of str
        What is known of the record already; stands above these findings in a picture.
    picture : Path, optional
        Draw the record before and after preparation there (`before_and_after`).

    Returns
    -------
    list of str
        A line each; warnings say so.

    Raises
    ------
    BackboneError
        For an unknown name or option.
    FileError
        When the picture cannot be written.
    """
    network = _built(backbone, **(options or {}))
    own = network.preparation.centred() if centred else network.preparation
    lines = [f"for {backbone}: {own.describe()}"]
    try:
        preparation, said = _for_leads(network, record, options or {})
        preparation = preparation.centred() if centred else preparation
        lines += [*said, *_rate(preparation, record, backbone), *_values(preparation, record)]
        crops = prepare_record(preparation, record).numpy()
    except EinthovenError as error:
        return [*lines, f"  warning: {error}"]
    lines += [*_window(preparation, record), *_mains(preparation, record)]
    lines += _offsets(preparation, record)
    lines += _flat(preparation, record, crops[0])
    many = "crops" if len(crops) > 1 else "crop"
    lines.append(
        f"  {len(crops)} {many} of {crops.shape[1]} leads x {crops.shape[2]} samples, "
        f"mean {crops.mean():+.3f}, standard deviation {crops.std():.3f}"
    )
    if picture is not None:
        _draw(record, backbone, preparation, crops[0], [*findings, *lines], picture)
        lines.append(f"  picture: {picture}")
    return lines


def _built(name: str, **options: Any) -> Backbone:
    with torch.device("meta"):  # no weights are drawn
        return create_backbone(name, **options)


def _for_leads(
    network: Backbone, record: Record, options: Mapping[str, Any]
) -> tuple[Preparation, list[str]]:
    """The preparation that fits the record's leads, and what it does about those that it lacks.

    Raises
    ------
    BackboneError
        When the network does not take what there is.
    """
    preparation = network.preparation.deriving(record.leads)
    missing = [lead for lead in preparation.sources if lead not in record.leads]
    if missing:
        there = tuple(lead for lead in network.leads if lead in record.leads)
        if not there:
            raise BackboneError(
                f"{record.name} has none of the leads of {network.name}, "
                f"{', '.join(network.leads)}",
                remedy="take a record with some of them, or another backbone.",
            )
        preparation = _built(network.name, **{**options, "leads": there}).preparation
    said = []
    if preparation.derived:
        said.append(
            f"  leads {' '.join(preparation.derived)} follow from the others and are computed, "
            "in mV, before anything else"
        )
    if missing:
        said.append(
            f"  warning: leads {' '.join(missing)} are missing and do not follow; built for those "
            f"that there are (--leads {','.join(there)}), {entry(network.name).missing_leads}"
        )
    return preparation, said


def _rate(preparation: Preparation, record: Record, backbone: str) -> Iterator[str]:
    if record.rate < preparation.rate:
        yield (
            f"  warning: {record.rate:g} Hz is below the {preparation.rate:g} Hz of {backbone}: "
            f"resampling adds nothing above {record.rate / 2:g} Hz"
        )


def _values(preparation: Preparation, record: Record) -> Iterator[str]:
    rows = [record.leads.index(lead) for lead in preparation.sources]
    lost = [record.leads[row] for row in rows if not np.isfinite(record.signal[row]).all()]
    fills = [str(step) for step in preparation.steps if isinstance(step, Fill)]
    if lost and fills:
        yield f"  warning: {' '.join(lost)}: {fills[0]}"


def _window(preparation: Preparation, record: Record) -> Iterator[str]:
    """Whether the crops that a prediction is made of show all of the record."""
    seconds = preparation.window / preparation.rate
    if record.duration < seconds - 0.5 / record.rate:
        yield (
            f"  warning: {record.duration:g} s are less than the window of {seconds:g} s, which "
            "zeros fill up"
        )
        return
    left_out = seconds_left_out(preparation, record)
    if left_out > 0.01 * record.duration:
        count = len(evaluation_seconds(preparation, record))
        yield (
            f"  warning: {count} evaluation crops of {seconds:g} s leave out "
            f"{left_out:.3g} s of the record's {record.duration:g} s"
        )


def _mains(preparation: Preparation, record: Record) -> Iterator[str]:
    hum = mains_hum(record)
    if hum is None or set(hum.leads).isdisjoint(preparation.sources):
        return
    if _removes(preparation, hum.frequency):
        yield f"  the preparation filters {hum.frequency:g} Hz out"
    else:
        yield f"  warning: nothing in the preparation filters the mains' {hum.frequency:g} Hz out"


def _offsets(preparation: Preparation, record: Record) -> Iterator[str]:
    if set(offsets(record)).isdisjoint(preparation.sources):
        return
    if preparation.passes_offsets:
        yield "  warning: nothing in the preparation takes the offset out"
    else:
        yield "  the preparation takes the offset out"


def _removes(preparation: Preparation, frequency: float) -> bool:
    if preparation.rate <= 2 * frequency:
        return True
    for step in preparation.steps:
        if isinstance(step, Filter | Fir) and step.kind != "highpass":
            upper = float(np.max(step.cutoff))
            if upper == frequency if step.kind == "notch" else upper < frequency:
                return True
    return False


def _flat(preparation: Preparation, record: Record, crop: np.ndarray) -> Iterator[str]:
    for lead, row in zip(preparation.leads, crop, strict=True):
        if lead in record.leads and np.ptp(record.signal[record.leads.index(lead)]) == 0:
            yield f"  warning: {lead} is flat, and {np.median(row):.3g} is what is made of it"


def _draw(
    record: Record,
    backbone: str,
    preparation: Preparation,
    crop: np.ndarray,
    lines: Sequence[str],
    file: Path,
) -> None:
    from einthoven.report.page import before_and_after

    before_and_after(
        record,
        crop,
        preparation.leads,
        rate=preparation.rate,
        file=file,
        start=evaluation_seconds(preparation, record)[0][0],
        title=f"An ECG as {backbone} receives it",
        findings=lines,
    )
