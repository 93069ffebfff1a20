"""From a bundle and ECGs to named probabilities, calibrated where the bundle knows how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from einthoven.backbones.inference import aggregate_crops, probabilities
from einthoven.backbones.subset import FewerLeads
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import EvaluationError
from einthoven.models import Model
from einthoven.predictions import Predictions
from einthoven.records import Record, read_record
from einthoven.signals.batches import SignalSource
from einthoven.signals.prepare import Preparation, prepare_record, seconds_left_out
from einthoven.signals.quality import doubts, offset_text, offsets, refuse_flat
from einthoven.signals.store import Store

CALIBRATED = "calibrated"  # key of a table's metadata: yes or no


@dataclass(frozen=True)
class RecordPrediction:
    """A record and its probabilities by label name.

    Attributes
    ----------
    record : Record
    probabilities : dict of str to float
        Calibrated where the bundle has a calibration.
    above_threshold : tuple of str, or None
        The labels that are called present, most probable first; None where the bundle has no
        thresholds.
    derived_leads : tuple of str
        Limb leads that the record lacked and that were computed from two others, in mV.
    left_out_leads : tuple of str
        Leads that the bundle was trained with and that were not used here.
    seconds_left_out : float
        How much of the record is in none of the crops that were predicted, s: long records have
        more than the bundle's crops show.
    doubts : tuple of str
        What is odd about the recording (`einthoven.signals.quality.doubts`), and offsets that the
        preparation leaves in: answers to it may be worth nothing.
    """

    record: Record
    probabilities: dict[str, float]
    above_threshold: tuple[str, ...] | None = None
    derived_leads: tuple[str, ...] = ()
    left_out_leads: tuple[str, ...] = ()
    seconds_left_out: float = 0.0
    doubts: tuple[str, ...] = ()


def predict_record(
    bundle: Model, record: Record, *, leads: Sequence[str] | None = None
) -> RecordPrediction:
    """Probabilities of one ECG.

    Limb leads that the record lacks are computed where two of its own give them, which is exact;
    the prediction names them.

    Parameters
    ----------
    bundle : Model
    record : Record
    leads : sequence of str, optional
        Use these leads and no others, as for a record that lacks the rest; see
        `einthoven.backbones.subset`.

    Raises
    ------
    PreparationError
        When the record lacks another lead, is too short or flat in every lead, or holds values
        that are not finite.
    BackboneError
        When `leads` are not among those that the bundle reads, or it refuses to go without others.
    """
    refuse_flat(record)
    network, preparation = with_leads(bundle, bundle.classifier, leads)
    preparation = preparation.deriving(record.leads)
    crops = prepare_record(preparation, record)
    with torch.no_grad():
        # Where `predict_cohort` may have left the network.
        logits = network(crops.to(next(network.parameters()).device)).float().cpu()
    how: Any = bundle.aggregate
    joined = aggregate_crops(logits, torch.zeros(len(logits), dtype=torch.long), 1, how)[0]
    said = _named(bundle, record, joined.numpy())
    missing = tuple(s for s in bundle.preparation.leads if s not in preparation.leads)
    odd = (*doubts(record), *_offset_doubts(record, preparation))
    return replace(
        said,
        derived_leads=preparation.derived,
        left_out_leads=missing,
        seconds_left_out=round(max(0.0, seconds_left_out(preparation, record)), 3),
        doubts=odd,
    )


def predict_files(bundle: Model, files: Iterable[str | Path]) -> Iterator[RecordPrediction]:
    """Probabilities of ECG files, one after the other."""
    for file in files:
        yield predict_record(bundle, read_record(file))


def predict_cohort(
    bundle: Model,
    cohort: Cohort,
    store: Store,
    split: str,
    *,
    calibrated: bool = True,
    leads: Sequence[str] | None = None,
    some_labels: bool = False,
    batch_size: int = 64,
    precision: Any = "fp32",
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predictions of a split, beside its targets.

    Parameters
    ----------
    bundle, cohort, store, split
        What is predicted.
    calibrated : bool
        Apply the bundle's calibration, where it has one; the table's metadata says whether it was
        applied (`calibrated`: yes or no). False gives what the network says.
    leads : sequence of str, optional
        Use these leads and no others; see `predict_record`.
    some_labels : bool
        Take a cohort that has some of the bundle's labels only, and predict those.

    Raises
    ------
    EvaluationError
        When the bundle's labels are not the cohort's, or the split is empty.
    BackboneError
        When `leads` are not among those that the bundle reads, or it refuses to go without others.
    """
    kept = cohort.select(store.without_quarantined(cohort.ids()))
    known = [label for label in bundle.labels if label in kept.labels or not some_labels]
    columns = _label_columns(bundle, known, kept)
    ids = kept.ids(split)
    if not len(ids):
        raise EvaluationError(
            f"{cohort.name}: no records in {split}", remedy="choose a split that has records"
        )
    targets = np.zeros((len(ids), len(bundle.labels)), dtype=np.uint8)
    places = [bundle.labels.index(label) for label in known]
    targets[:, places] = kept.targets(split)[:, columns]
    network, preparation = with_leads(bundle, bundle.classifier.to(device), leads)
    how: Any = bundle.aggregate
    values = probabilities(
        network,
        SignalSource(store, store.rows(ids), targets, preparation),
        aggregate=how,
        batch_size=batch_size,
        precision=precision,
        device=device,
        progress=progress,
    )
    table = Predictions(
        labels=bundle.labels,
        records=ids,
        patients=kept.patients(split),
        targets=targets,
        probabilities=values,
        metadata=_metadata(bundle, cohort, split)
        | {"quarantined": str(len(cohort) - len(kept)), CALIBRATED: "no"}
        | ({} if leads is None else {"leads": ",".join(preparation.sources)}),
    )
    table = calibrate_table(bundle, table) if calibrated else table
    return table if len(known) == len(bundle.labels) else table.with_labels(known)


def calibrate_table(bundle: Model, table: Predictions) -> Predictions:
    """A table of what the network said, with the bundle's calibration; itself without one.

    Raises
    ------
    EvaluationError
        When the table is calibrated already, or has other labels.
    """
    if table.labels != bundle.labels or table.metadata.get(CALIBRATED) == "yes":
        raise EvaluationError(
            "the table is calibrated already, or its labels are not the bundle's",
            remedy="pass what predict_cohort(..., calibrated=False) gave for this bundle",
        )
    if bundle.calibration is None:
        return table
    return replace(
        table,
        probabilities=bundle.calibration.apply(table.probabilities),
        metadata=dict(table.metadata) | {CALIBRATED: "yes"},
    )


def with_leads(
    bundle: Model, network: nn.Module, leads: Sequence[str] | None
) -> tuple[nn.Module, Preparation]:
    """A bundle's network and preparation for some of its leads, or for all where None are named."""
    if leads is None:
        return network, bundle.preparation
    every, samples = bundle.preparation.leads, bundle.preparation.window
    fewer = FewerLeads(network, leads, every=every, samples=samples)
    return fewer, bundle.preparation.with_leads(fewer.rows).deriving(fewer.leads)


def _offset_doubts(record: Record, preparation: Preparation) -> Iterator[str]:
    away = {k: v for k, v in offsets(record).items() if k in preparation.sources}
    if away and preparation.passes_offsets:
        yield (
            f"{offset_text(away)}, and nothing in the preparation takes an offset out: subtract it"
        )


def _named(bundle: Model, record: Record, said: np.ndarray[Any, Any]) -> RecordPrediction:
    if bundle.calibration is None:
        return RecordPrediction(record, dict(zip(bundle.labels, said.tolist(), strict=True)))
    values = bundle.calibration.apply(said)
    named = dict(zip(bundle.labels, values.tolist(), strict=True))
    called = zip(bundle.labels, bundle.calibration.decide(values), strict=True)
    above = sorted((label for label, present in called if present), key=lambda label: -named[label])
    return RecordPrediction(record, named, tuple(above))


def _metadata(bundle: Model, cohort: Cohort, split: str) -> dict[str, str]:
    return {
        "cohort": cohort.name,
        "version": cohort.version,
        "task": cohort.task,
        "split": split,
        "backbone": bundle.backbone.name,
        "recipe": str(
            ((bundle.config.get("provenance") or {}).get("recipe") or {}).get("name", "")
        ),
    }


def _label_columns(
    bundle: Model, labels: Sequence[str], cohort: Cohort
) -> np.ndarray[Any, np.dtype[np.intp]]:
    missing = [label for label in labels if label not in cohort.labels]
    extra = [label for label in cohort.labels if label not in labels]
    if missing or extra or not labels:
        raise EvaluationError(
            f"the bundle's {len(bundle.labels)} labels are not the cohort's {len(cohort.labels)}"
            + (f"; the cohort lacks {missing[:5]}" if missing else "")
            + (f"; the bundle lacks {extra[:5]}" if extra else ""),
            remedy="open the cohort with the task that the bundle was trained for (--task)",
        )
    return np.array([cohort.labels.index(label) for label in labels])
