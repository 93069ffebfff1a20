"""Probabilities of single ECGs, calibrated if the model has a calibration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.backbones.inference import aggregate_crops
from einthoven.backbones.leads import LeadSubset
from einthoven.errors import EinthovenError
from einthoven.models.model import Model
from einthoven.records import Record
from einthoven.records.quality import offset_text, offsets, quality_warnings, refuse_flat
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_record, seconds_left_out


@dataclass(frozen=True)
class RecordPrediction:
    """A record and its probabilities by label name.

    Attributes
    ----------
    record : Record
    probabilities : dict of str to float
        Calibrated if the model has a calibration.
    above_threshold : tuple of str, or None
        Labels at or above their decision threshold, most probable first; None if the model has no
        thresholds.
    derived_leads : tuple of str
        Limb leads that the record lacked, computed from two others in mV.
    left_out_leads : tuple of str
        Leads of the model that were not used.
    seconds_left_out : float
        Duration of the record that is in none of the predicted crops, s.
    warnings : tuple of str
        Warnings about the recording (`einthoven.records.quality.quality_warnings`), and
        offsets that the preparation does not remove: the probabilities may be unreliable.
    uncalibrated, thresholds : dict of str to float, or None
        Probabilities before calibration, and calibrated probabilities from which a label is called
        present; None if the model has no calibration.
    """

    record: Record
    probabilities: dict[str, float]
    above_threshold: tuple[str, ...] | None = None
    derived_leads: tuple[str, ...] = ()
    left_out_leads: tuple[str, ...] = ()
    seconds_left_out: float = 0.0
    warnings: tuple[str, ...] = ()
    uncalibrated: dict[str, float] | None = None
    thresholds: dict[str, float] | None = None


def predict_record(
    model: Model, record: Record, *, leads: Sequence[str] | None = None
) -> RecordPrediction:
    """Predict one ECG.

    Limb leads that the record lacks are computed if two of its leads determine them, which is
    exact; the prediction names them.

    Parameters
    ----------
    model : Model
    record : Record
    leads : sequence of str, optional
        Use these leads only, as for a record that lacks the others; see
        `einthoven.backbones.leads`.

    Raises
    ------
    PreparationError
        If the record lacks another lead, is too short, flat in every lead, or not finite.
    BackboneError
        If the model does not read one of `leads`, or cannot go without the others.
    """
    (prediction,) = Predictor(model, leads=leads)([lambda: record])
    if isinstance(prediction, Exception):
        raise prediction
    return prediction


class Predictor:
    """A model that predicts batches of records, on a device if one is named.

    Arguments and errors are those of `predict_record`; the caller's network stays in place.
    """

    def __init__(
        self,
        model: Model,
        *,
        leads: Sequence[str] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        network, self.preparation = with_leads(model, None if leads is None else tuple(leads))
        self.network = network if device is None else on_device(network, device)
        self.model = model

    def __call__(
        self, readers: Sequence[Callable[[], Record]]
    ) -> list[RecordPrediction | EinthovenError | OSError]:
        """Predict the records that functions read; a record that is refused gives its error."""
        results: list[Any] = [self._prepared(read) for read in readers]
        usable = [place for place, result in enumerate(results) if isinstance(result, tuple)]
        if usable:
            owner = torch.repeat_interleave(torch.tensor([len(results[i][2]) for i in usable]))
            crops = torch.cat([results[i][2] for i in usable])
            with torch.no_grad():
                logits = self.network(crops.to(_device(self.network))).float().cpu()
            rule: Any = self.model.aggregate
            rows = aggregate_crops(logits, owner, len(usable), rule).numpy()
            for place, values in zip(usable, rows, strict=True):
                record, preparation, _ = results[place]
                results[place] = _prediction(self.model, record, preparation, values)
        return results

    def _prepared(
        self, read: Callable[[], Record]
    ) -> tuple[Record, Preparation, Tensor] | EinthovenError | OSError:
        try:
            record = read()
            refuse_flat(record)
            preparation = self.preparation.deriving(record.leads)
            return record, preparation, prepare_record(preparation, record)
        except (EinthovenError, OSError) as error:
            return error


def _prediction(
    model: Model, record: Record, preparation: Preparation, values: NDArray[np.float64]
) -> RecordPrediction:
    above = uncalibrated = thresholds = None
    if model.calibration is not None:
        uncalibrated = dict(zip(model.labels, values.tolist(), strict=True))
        thresholds = dict(zip(model.labels, model.calibration.thresholds, strict=True))
        values = model.calibration.apply(values)
        decisions = zip(model.labels, values, model.calibration.decide(values), strict=True)
        present = [(label, value) for label, value, decision in decisions if decision]
        above = tuple(label for label, _ in sorted(present, key=lambda pair: -pair[1]))
    return RecordPrediction(
        record,
        dict(zip(model.labels, values.tolist(), strict=True)),
        above,
        derived_leads=preparation.derived,
        left_out_leads=tuple(
            lead for lead in model.preparation.leads if lead not in preparation.leads
        ),
        seconds_left_out=round(max(0.0, seconds_left_out(preparation, record)), 3),
        warnings=(*quality_warnings(record), *_offset_warnings(record, preparation)),
        uncalibrated=uncalibrated,
        thresholds=thresholds,
    )


# Subsets of leads by model, as long as the model exists: each costs a trial forward pass.
_SUBSETS: WeakKeyDictionary[Model, dict[tuple[str, ...], LeadSubset]] = WeakKeyDictionary()


def with_leads(model: Model, leads: tuple[str, ...] | None) -> tuple[nn.Module, Preparation]:
    """Network and preparation of a model for some of its leads; for all of them without `leads`."""
    if leads is None:
        return model.classifier, model.preparation
    subsets = _SUBSETS.setdefault(model, {})
    if leads not in subsets:
        all_leads, samples = model.preparation.leads, model.preparation.window
        subsets[leads] = LeadSubset(model.classifier, leads, all_leads=all_leads, samples=samples)
    subset = subsets[leads]
    return subset, model.preparation.with_leads(subset.rows).deriving(subset.leads)


def on_device(network: nn.Module, device: torch.device | str) -> nn.Module:
    """The network itself on the CPU, or a copy on another device; the caller's stays in place."""
    if _device(network).type == torch.device(device).type == "cpu":
        return network
    return copy.deepcopy(network).to(device)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _offset_warnings(record: Record, preparation: Preparation) -> Iterator[str]:
    away = {k: v for k, v in offsets(record).items() if k in preparation.sources}
    if away and preparation.passes_offsets:
        yield f"{offset_text(away)}, and the preparation removes no offsets: subtract them"
